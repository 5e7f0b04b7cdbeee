"""DICOM: which series files belong to, and a series as one image."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from nnunetv2_d2net.base.images import ImageError
from nnunetv2_d2net.base.text import counted, last_line

_MAGIC, _MAGIC_AT = b"DICM", 128
_FIRST_TAGS = {b"\2\0\0\0", *(bytes((8, 0, element, 0)) for element in (0, 1, 5, 8, 18, 22, 24))}
"""Tags that a file without preamble begins with (PS3.10, 7.1; old exports leave it out), low byte first."""
_UID, _DESCRIPTION, _PROTOCOL = "0020|000e", "0008|103e", "0018|1030"
_PLACE, _NOWHERE = "0020|0032", r"nan\nan\nan"
_MOST_UNEVEN = 0.1
"""Share of the distance of slices by which one may lie elsewhere than evenly."""


class Series(NamedTuple):
    """The files of one SeriesInstanceUID in one folder.

    Attributes:
        uid: SeriesInstanceUID.
        description: SeriesDescription, or else ProtocolName; may be empty.
        files: In the order of the slices.
    """

    uid: str
    description: str
    files: tuple[Path, ...]

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
    """List the series that any of the files belong to, folder by folder; files that are no DICOM belong to none."""
    found = []
    for folder in sorted({path.parent for path in files if is_dicom(path)}):
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
            names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
            tags = _tags(names[0])
            description = tags.get(_DESCRIPTION) or tags.get(_PROTOCOL, "")
            found.append(Series(uid, description, tuple(map(Path, names))))
    return found


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
        ImageError: A file cannot be read, or slices are missing, lie on each other or do not say where.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # noqa: FBT003  # what ITK warns of is looked at
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(list(map(str, series.files)))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(series.files[0], last_line(error)) from error
    if len(series.files) > 1 and _is_uneven(series):  # ITK tells of rounding, too, and nothing of slices in one place
        what = f"is one of {len(series.files)} slices that are not evenly spaced, or do not say where they lie"
        remedy = "some are missing, or the series holds several images: export it whole, or convert it with dcm2niix"
        raise ImageError(series.files[0], "shape", what, remedy)
    return image


def _is_uneven(series: Series) -> bool:
    places = np.array([(_tags(str(file)).get(_PLACE) or _NOWHERE).split("\\") for file in series.files], float)
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    return not np.abs(steps - np.median(steps)).max() < _MOST_UNEVEN * np.median(steps)


def _tags(file: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(Path(file), last_line(error)) from error
    return {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}


def _unreadable(file: Path, why: str) -> ImageError:
    return ImageError(file, "unreadable", f"cannot be read as DICOM ({why})", "export the series again")
