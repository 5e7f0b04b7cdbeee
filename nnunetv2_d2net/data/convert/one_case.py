"""One case: its images read onto one grid, its labels with the data set's numbers, both written whole or not at all."""

import gzip
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.base.images import (
    Image,
    ImageError,
    differences,
    digest,
    is_constant,
    label_counts,
    properties_of,
    read_sitk,
    write_sitk,
)
from nnunetv2_d2net.data.convert.cases import CaseReport, Layout, Problem, SourceCase
from nnunetv2_d2net.data.convert.scheme import LabelScheme

ENDING = ".nii.gz"
_GZIP = b"\x1f\x8b"


class CaseImage(NamedTuple):
    """An image of a case, and the file that it comes from; ``unchanged`` says that the file holds just this."""

    image: sitk.Image
    source: Path
    unchanged: bool

    @property
    def voxels(self) -> NDArray[Any]:
        """Read-only, ``(z, y, x)``."""
        return sitk.GetArrayViewFromImage(self.image)


class CaseVolumes(NamedTuple):
    """A case in memory, ready to be written: images by modality, the label with the data set's values in 8 bits."""

    images: dict[str, CaseImage]
    label: CaseImage | None
    report: CaseReport


def convert_case(
    case: SourceCase, layout: Layout, folder: Path | None = None, *, resample: bool = False, link: bool = False
) -> CaseReport:
    """Read a case and, where there is a folder, write it.

    Args:
        case: Its files.
        layout: Of the source.
        folder: Of the data set, with its subfolders; None only reads.
        resample: Resample images onto the grid of the case.
        link: Link to images that need no change instead of copying them.

    Raises:
        UserError: It could not be written.
    """
    try:
        volumes = read_case(case, layout.scheme, resample=resample)
    except ImageError as error:
        return CaseReport.of(case, Problem.of(case.name, error))
    if folder is not None:
        _write_case(volumes, folder, layout.modalities, link=link)
    return volumes.report


def read_case(case: SourceCase, scheme: LabelScheme, *, resample: bool) -> CaseVolumes:
    """Read a case and bring it onto one grid: that of its segmentation, or else of its first image.

    Args:
        case: Its files.
        scheme: Its label values.
        resample: Resample images that lie elsewhere, linearly, instead of refusing the case.

    Raises:
        ImageError: It cannot be converted.
    """
    report = CaseReport.of(case)
    images = _read_images(case)
    label = case.label and CaseImage(read_volume(case.label), case.label, unchanged=True)
    images = _on_one_grid(images, label or next(iter(images.values())), report, resample=resample)
    images = _without_placeholders(images, report)
    report.modalities = list(images)
    report.geometry = _describe_geometry(next(iter(images.values())).image)
    report.digests = {n: digest(one.voxels) for n, one in images.items()}
    if label:
        remedy = "mend it, or name them in a mapping file"
        relabeled, report.voxels = relabel(label.source, label.image, scheme.values, remedy)
        same = all(scheme.values[value] == value for value in report.voxels)
        label = CaseImage(relabeled, label.source, same and label.image.GetPixelID() == sitk.sitkUInt8)
    return CaseVolumes(images, label, report)


def _read_images(case: SourceCase) -> dict[str, CaseImage]:
    files: dict[Path, sitk.Image] = {}
    images = {}
    for name, (path, channel) in case.images.items():
        if path not in files:
            n_volumes = None if channel is None else sum(other.path == path for other in case.images.values())
            files[path] = read_volume(path, n_volumes)
        image = files[path] if channel is None else files[path][:, :, :, channel]
        images[name] = CaseImage(image, path, unchanged=channel is None)
    return images


def read_volume(path: Path, n_volumes: int | None = None) -> sitk.Image:
    """Read a NIfTI file, and nothing but NIfTI.

    Args:
        path: The file.
        n_volumes: How many volumes it holds along its fourth axis; None for a file of three axes.

    Raises:
        ImageError: It cannot be read, has another shape, or holds NaN or infinity.
    """
    image = read_sitk(path, only_nifti=True)
    size, n_values = image.GetSize(), image.GetNumberOfComponentsPerPixel()
    if n_values > 1 or len(size) != (3 if n_volumes is None else 4) or (n_volumes and size[3] != n_volumes):
        shape = f"{size} voxels" + (f" of {n_values} values" if n_values > 1 else "")
        remedy = f"it should hold {n_volumes} volumes" if n_volumes else "split it into one 3D file per modality"
        raise ImageError(path, "shape", f"holds {shape}", remedy)
    return image


def _on_one_grid(
    images: Mapping[str, CaseImage], grid: CaseImage, report: CaseReport, *, resample: bool
) -> dict[str, CaseImage]:
    aligned, elsewhere = {}, {}
    for name, one in images.items():
        difference = " and ".join(differences(_located(one), _located(grid)))
        aligned[name] = one
        if difference and resample:
            aligned[name] = _resample(one, grid.image)
            report.notes.append(f"{one.source} was resampled onto {grid.source}: it differed in {difference}")
        elif difference:
            elsewhere[one.source] = f"differs from {grid.source} in {difference}"
    if elsewhere:
        raise _images_error("geometry", elsewhere, "register them, or pass --resample if their headers are right")
    return aligned


def _located(one: CaseImage) -> Image:
    return Image(one.source, one.voxels[None], properties_of(one.image))


def _resample(one: CaseImage, grid: sitk.Image) -> CaseImage:
    image = sitk.Resample(one.image, grid, sitk.Transform(), sitk.sitkLinear, 0.0, one.image.GetPixelID())
    resampled = CaseImage(image, one.source, unchanged=False)
    if is_constant(resampled.voxels) and not is_constant(one.voxels):
        reason, remedy = "does not overlap the case's other images", "its header is wrong, or it is of somebody else"
        raise ImageError(one.source, "geometry", reason, remedy)
    return resampled


def _without_placeholders(images: Mapping[str, CaseImage], report: CaseReport) -> dict[str, CaseImage]:
    """Leave out images without content, which count as absent everywhere else, too."""
    constant = {name: one.source for name, one in images.items() if is_constant(one.voxels)}
    if len(constant) == len(images):
        raise _images_error("no image", dict.fromkeys(constant.values(), "is constant"), "provide a real image")
    what = "a placeholder: it counts as absent"
    report.notes += [f"{path} is constant in {name}, {what}" for name, path in constant.items()]
    return {name: one for name, one in images.items() if name not in constant}


def _images_error(kind: str, reasons: Mapping[Path, str], remedy: str) -> ImageError:
    """Say in one line what is wrong with several images."""
    (first, reason), *others = reasons.items()
    return ImageError(first, kind, "; ".join([reason, *(f"{path} {other}" for path, other in others)]), remedy)


def _describe_geometry(image: sitk.Image) -> dict[str, str]:
    return {
        "size": " x ".join(map(str, image.GetSize())),
        "spacing": " x ".join(f"{value:.3g}" for value in image.GetSpacing()) + " mm",
        "orientation": sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(image.GetDirection()),
    }


def relabel(path: Path, label: sitk.Image, values: Mapping[int, int], remedy: str) -> tuple[sitk.Image, dict[int, int]]:
    """Give labels other values.

    Args:
        path: Where the labels come from.
        label: Any number type, whole numbers.
        values: The new value of each value.
        remedy: What to do about a value that has none.

    Returns:
        The image, in 8 bits where the new values allow it, and the voxels of each old value.

    Raises:
        ImageError: A value that is no whole number, or that has no new one.
    """
    voxels = sitk.GetArrayViewFromImage(label)
    counts = label_counts(path, voxels)
    unknown = ", ".join(f"{value} ({n} voxels)" for value, n in counts.items() if value not in values)
    if unknown:
        known = ", ".join(map(str, sorted(values)))
        raise ImageError(path, "labels", f"holds unknown label values {unknown}, known are {known}", remedy)
    targets = np.array([values[value] for value in counts])
    small = targets.min() >= 0 and targets.max() <= 255
    table = targets.astype(np.uint8 if small else np.int32)
    image = sitk.GetImageFromArray(table[np.searchsorted(list(counts), np.rint(voxels))])
    image.CopyInformation(label)
    return image, counts


def _write_case(volumes: CaseVolumes, folder: Path, modalities: Sequence[str], *, link: bool) -> None:
    """Write images and segmentation; what the folder held of this case is replaced."""
    name, split = volumes.report.case, volumes.report.split
    remove_case(folder, name, modalities)
    channels = [modalities.index(modality) for modality in volumes.images]
    label = [volumes.label] if volumes.label else []
    targets = case_targets(folder, name, split, channels, label=bool(label))
    for one, target in zip([*volumes.images.values(), *label], targets, strict=True):
        _write(one, target, link=link)


def case_targets(folder: Path, name: str, split: str, channels: Sequence[int], *, label: bool) -> list[Path]:
    """List the files that a case has in the data set."""
    paths = [folder / f"images{split}" / f"{name}_{channel:04d}{ENDING}" for channel in channels]
    return [*paths, folder / f"labels{split}" / f"{name}{ENDING}"] if label else paths


def remove_case(folder: Path, name: str, modalities: Sequence[str]) -> None:
    """Remove what the data set holds of a case."""
    for split in ("Tr", "Ts"):
        for path in case_targets(folder, name, split, range(len(modalities)), label=True):
            path.unlink(missing_ok=True)


def _write(one: CaseImage, target: Path, *, link: bool) -> None:
    if not one.unchanged:
        write_sitk(one.image, target)
        return
    with written_whole(target) as unfinished, one.source.open("rb") as source:
        if source.read(len(_GZIP)) != _GZIP:
            source.seek(0)
            _compress(source, unfinished)
        elif link:
            unfinished.symlink_to(one.source.resolve())
        else:
            shutil.copyfile(one.source, unfinished)


def _compress(source: BinaryIO, target: Path) -> None:
    """Compress a plain file as it is, header and voxels bit by bit."""
    # neither name nor time inside: the same image gives the same bytes
    with target.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        shutil.copyfileobj(source, packed, 2**22)
