"""DICOM: which series files belong to, and a series as one image."""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.base.images import TOLERANCE, ImageError, check_name, note_down
from nnunetv2_d2net.base.text import counted, last_line, listed

_LOG = logging.getLogger("nnunetv2_d2net")
_MAGIC, _MAGIC_AT = b"DICM", 128
_FIRST_TAGS = {b"\2\0\0\0", *(bytes((8, 0, element, 0)) for element in (0, 1, 5, 8, 18, 22, 24))}
"""Tags that a file without preamble begins with (PS3.10, 7.1; old exports leave it out), low byte first."""
_UID, _DESCRIPTION, _PROTOCOL = "0020|000e", "0008|103e", "0018|1030"
_PATIENT = ("0010|0020", "0010|0010", "0010|0030")
_STUDY, _DATE = "0020|000d", "0008|0020"
_KIND, _AGENT = ("0008|0060", "0008|0008"), "0018|0010"
_PLACE, _NOWHERE = "0020|0032", r"nan\nan\nan"
_AXES, _PIXELS, _FRAMES = "0020|0037", "0028|0030", "0028|0008"
_STEP, _THICKNESS = "0018|0088", "0018|0050"
_SCALES = "0028|1053", "0028|1052", "0028|0100", "0028|0103"
"""Slope, intercept, and how a stored value is one."""
_EXTENT = "0028|0010", "0028|0011", "0028|0002", "0028|0100", _FRAMES  # the fourth is the bits of a pixel

_MOST_UNEVEN = 0.1
"""Share of the distance of slices by which one may lie elsewhere than evenly."""

_MISSING = 1.5
"""By how much larger than SpacingBetweenSlices the distance of slices is where every other one is missing, or more."""

_MOST_ASKEW = 0.01
"""Share of a stack's length by which its end may lie beside its normal, and of 1 by which its axes may be wrong."""

_OWN_SERIES = re.compile(rb"\x20\0\x0d\0(?:UI..|....)[\d.]*[\0 ]?\x20\0\x0e\0(?:UI..|....)([\d.]+)", re.DOTALL)
"""StudyInstanceUID and, right behind it, SeriesInstanceUID: a file's own, for those it refers to are not neighbors."""
_ROWS = re.compile(rb"\x28\0\x10\0(?:US\x02\0|\x02\0\0\0)")
"""Of pixels, which RTSTRUCT, SR and presentation states have none of."""
_PIXEL_DATA = re.compile(rb"\xe0\x7f\x10\0(?:O[BW]\0\0)?(....)", re.DOTALL)  # their length; compressed, the largest
_FRAME_PLACE = re.compile(
    rb"\x20\0\x13\x91(?:SQ\0\0)?....\xfe\xff\0\xe0....\x20\0\x32\0(?:DS..|....)"
    rb"([-+.\deE ]+\\[-+.\deE ]+\\[-+.\deE]+)",
    re.DOTALL,
)
"""ImagePositionPatient in the PlanePositionSequence of a frame."""


class Series(NamedTuple):
    """The files of one SeriesInstanceUID in one folder.

    Attributes:
        uid: SeriesInstanceUID.
        description: SeriesDescription, or else ProtocolName; may be empty.
        files: In the order of the slices.
        patient: PatientID, PatientName and PatientBirthDate; each may be empty.
        study: StudyInstanceUID and StudyDate; each may be empty.
        cut: A file of it that is cut short, and so not among the others.
        protocol: ProtocolName; may be empty.
        agent: ContrastBolusAgent; may be empty.
        kind: Modality and ImageType; each may be empty.
    """

    uid: str
    description: str
    files: tuple[Path, ...]
    patient: tuple[str, ...] = ("", "", "")
    study: tuple[str, str] = ("", "")
    cut: Path | None = None
    protocol: str = ""
    agent: str = ""
    kind: tuple[str, ...] = ("", "")

    def __str__(self) -> str:
        return f"{self.files[0]} ({self.description or 'no description'}, {counted(len(self.files), 'file')})"


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, whatever it is called, with a preamble or without.

    An index of others (DICOMDIR) is not.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            start = file.read(_MAGIC_AT + len(_MAGIC))
    except OSError:
        return False
    bare_voxels = path.suffix.lower() in {".img", ".raw"}  # of another file's header, and may begin with anything
    return start[_MAGIC_AT:] == _MAGIC or (start[:4] in _FIRST_TAGS and not bare_voxels)


def find_series(files: Iterable[Path]) -> list[Series]:
    """List the series that any of the files belong to, folder by folder; files that are no DICOM belong to none.

    DICOM files of those folders that cannot be read and may be of any series are passed over, in one line of the log.
    """
    reader, found = sitk.ImageSeriesReader, []
    for folder in sorted({path.parent for path in files if is_dicom(path)}):
        check_name(folder)
        ids = reader.GetGDCMSeriesIDs(str(folder))
        series = {uid: tuple(map(Path, reader.GetGDCMSeriesFileNames(str(folder), uid))) for uid in ids}
        cut = _cut_short(folder, series)
        for uid, slices in series.items():
            tags = defaultdict(str, _tags(str(slices[0])))
            description, study = tags[_DESCRIPTION] or tags[_PROTOCOL], (tags[_STUDY], tags[_DATE])
            patient, kind = (tuple(tags[tag] for tag in group) for group in (_PATIENT, _KIND))
            one = Series(uid, description, slices, patient, study, cut.get(uid), tags[_PROTOCOL], tags[_AGENT], kind)
            found.append(one)
    return found


def _cut_short(folder: Path, series: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    """Return a file of each series that GDCM has left out, which it does in silence."""
    whole = {path for slices in series.values() for path in slices}
    cut, passed_over = {}, []
    endings = {path.suffix for path in whole}
    alike = sorted(path for path in folder.iterdir() if path.suffix in endings and path.is_file())
    passed_over += [path for path in alike if not path.stat().st_size]
    for path in sorted(path for path in folder.iterdir() if path not in whole and is_dicom(path)):
        content = path.read_bytes()
        own = _OWN_SERIES.search(content)
        uid = own[1].decode() if own else ""
        if uid in series:
            cut.setdefault(uid, path)
        elif not own or _ROWS.search(content):
            passed_over.append(path)
    if passed_over:
        _LOG.warning("passed over, cannot be read as DICOM: %s: copy what is needed again", listed(passed_over))
    return cut


def series_of(file: Path) -> Series:
    """Return the series that a slice belongs to.

    Raises:
        ImageError: The file cannot be read.
    """
    uid = _tags(str(file)).get(_UID)
    found = next((series for series in find_series([file]) if series.uid == uid), None)
    if found is None:
        raise _unreadable(file, "no series")
    return found


def read_series(series: Series) -> sitk.Image:
    """Read a series as one image.

    Raises:
        ImageError: A file cannot be read, or slices are missing, lie on each other or askew, or do not say where.
    """
    if series.cut is not None:
        raise ImageError(series.cut, "unreadable", f"is cut short, and is a slice of {series}", "copy it again")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # noqa: FBT003  # what ITK warns of is looked at
    first, tags = series.files[0], [_tags(str(file)) for file in series.files]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(list(map(str, series.files)))
    if len({tuple(of_file.get(tag) for tag in _SCALES) for of_file in tags}) > 1:  # ITK takes the type of the first one
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(first, last_line(error)) from error
    for file, of_file in zip(series.files, tags, strict=True):
        _check_pixels(file, of_file)
    if len(series.files) > 1:  # ITK tells of rounding, too, and nothing of slices in one place
        note_down(image, _check_slices(series, tags))
    elif _FRAMES in tags[0]:  # each of which says how it lies
        _check_frames(first, image.GetSize()[2])
    else:
        _check_axes(first, tags[0])
    return image


def _check_pixels(file: Path, tags: Mapping[str, str]) -> None:
    """Refuse a file that holds fewer pixels than it says; GDCM takes whatever is in memory for the others."""
    wanted = math.prod(int(tags.get(tag) or 1) for tag in _EXTENT) // 8
    found = [int.from_bytes(length, "little") for length in _PIXEL_DATA.findall(file.read_bytes())]
    if max(found, default=wanted) < wanted:
        raise ImageError(file, "unreadable", "holds fewer pixels than Rows and Columns say", "export the series again")


def _check_axes(file: Path, tags: Mapping[str, str]) -> None:
    """Refuse a slice that says neither how large its pixels are nor how it lies, for which GDCM takes 1 mm and axial.

    Raises:
        ImageError: It does not say it, or its axes are no two of length 1 at a right angle.
    """
    edges, axes = _numbers(tags, _PIXELS), _numbers(tags, _AXES)
    if not (len(edges) == 2 and (edges > 0).all()):
        remedy = "export the series again, or convert it to NIfTI with the right spacing"
        raise ImageError(file, "header", "does not say how large its pixels are (PixelSpacing)", remedy)
    pair = axes.reshape(2, -1) if len(axes) == 6 else np.full((2, 2), np.nan)
    if not np.abs(pair @ pair.T - np.eye(2)).max() < _MOST_ASKEW:
        what = "does not say how it lies (ImageOrientationPatient is no two axes at a right angle)"
        raise ImageError(file, "header", what, "export the series again, or convert it to NIfTI with the right axes")


def _check_slices(series: Series, tags: Sequence[Mapping[str, str]]) -> list[str]:
    """Refuse slices that make no image, and say whether some seem to be missing."""
    one = f"is one of {len(series.files)} slices"
    for file, of_file in zip(series.files, tags, strict=True):
        _check_axes(file, of_file)
    axes = np.array([_numbers(of_file, _AXES) for of_file in tags])
    if np.ptp(axes, axis=0).max() > TOLERANCE:
        remedy = "the series is a localizer, or holds several images: pass another one, or convert it with dcm2niix"
        raise ImageError(series.files[0], "shape", f"{one} that are not parallel", remedy)
    edges = np.array([_numbers(of_file, _PIXELS) for of_file in tags])
    if np.ptp(edges, axis=0).max() > TOLERANCE:
        remedy = "the series holds several images: pass another one, or export them as series of their own"
        raise ImageError(series.files[0], "shape", f"{one} whose pixels are of different sizes", remedy)
    places = [of_file.get(_PLACE) or _NOWHERE for of_file in tags]
    if _is_uneven(places):
        what = f"{one} that are not evenly spaced, or do not say where they lie"
        remedy = "some are missing, or the series holds several images: export it whole, or convert it with dcm2niix"
        raise ImageError(series.files[0], "shape", what, remedy)
    way = _numbers(tags[-1], _PLACE) - _numbers(tags[0], _PLACE)
    step, length = np.linalg.norm(way) / (len(places) - 1), np.linalg.norm(way)
    if np.linalg.norm(axes[0].reshape(2, 3) @ way) > _MOST_ASKEW * length + _MOST_UNEVEN * step:
        what = f"{one} that lie askew, each a little beside the one before"
        remedy = "resample it to right angles, for instance with 3D Slicer (acquisition geometry regularization)"
        raise ImageError(series.files[0], "geometry", what, remedy)
    said = np.max([_numbers(tags[0], tag)[0] for tag in (_STEP, _THICKNESS)])  # the former may be the gap alone
    is_wide = bool(step > _MISSING * said > 0)
    return [f"has slices {step:.3g} mm apart, {said:.3g} mm by their headers: some may be missing"] * is_wide


def _check_frames(file: Path, n_frames: int) -> None:
    """Refuse frames that do not lie one behind the other, where each says its place."""
    places = [place.decode() for place in _FRAME_PLACE.findall(file.read_bytes())]
    if len(places) > 1 and (len(places) != n_frames or _is_uneven(places)):
        what = f"holds {n_frames} frames that are not evenly spaced and in order"
        remedy = "some are missing, or it holds several images: convert it with dcm2niix"
        raise ImageError(file, "shape", what, remedy)


def _is_uneven(places: Sequence[str]) -> bool:
    steps = np.diff(np.array([place.split("\\") for place in places], float), axis=0)
    step = np.median(steps, axis=0)
    return not np.linalg.norm(steps - step, axis=1).max() < _MOST_UNEVEN * np.linalg.norm(step)


def _numbers(tags: Mapping[str, str], tag: str) -> NDArray[np.floating]:
    try:
        return np.array(tags.get(tag, "").split("\\"), float)
    except ValueError:
        return np.array([np.nan])


def _tags(file: str) -> dict[str, str]:
    check_name(file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(Path(file), last_line(error)) from error
    return {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}


def _unreadable(file: Path, why: str) -> ImageError:
    return ImageError(file, "unreadable", f"cannot be read as DICOM ({why})", "export the series again")
