"""Reading one case: its images on one grid, its labels as whole numbers; or the reason why not."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from nnunetv2_d2net.data.convert.cases import SourceCase, Volume
from nnunetv2_d2net.data.convert.relabel import relabel
from nnunetv2_d2net.data.convert.report import CaseProblemError, CaseReport
from nnunetv2_d2net.data.convert.scheme import LabelScheme
from nnunetv2_d2net.plugin.preprocessing.damage import check_whole, is_finite
from nnunetv2_d2net.plugin.preprocessing.reading import last_line

_TOLERANCE = 1e-3
"""Largest difference, in mm or as a cosine, between the geometries of one case; prediction allows the same."""


class ReadImage(NamedTuple):
    """An image on the grid of its case.

    Attributes:
        image: The voxels.
        source: Where it comes from.
        unchanged: The file itself holds just this.
    """

    image: sitk.Image
    source: Path
    unchanged: bool


class LoadedCase(NamedTuple):
    """A case in memory, ready to be written.

    Attributes:
        images: By modality.
        label: With the values of the data set, 8 bits; None without segmentation.
        report: The same in words.
    """

    images: dict[str, ReadImage]
    label: ReadImage | None
    report: CaseReport


def load_case(case: SourceCase, scheme: LabelScheme, *, resample: bool) -> LoadedCase:
    """Read a case and bring it onto one grid: that of its segmentation, or else of its first image.

    Args:
        case: As found.
        scheme: Its label values.
        resample: Resample images that lie elsewhere, linearly, instead of refusing the case.

    Raises:
        CaseProblemError: It cannot be converted.
    """
    report = CaseReport(case.name, case.split, notes=list(case.notes))
    read = _read_images(case)
    label = None if case.label is None else read_volume(case.name, Volume(case.label))
    reference = (case.label, label) if label is not None else next(iter(read.values()))[:2]
    images = _on_one_grid(case.name, read, reference, report, resample=resample)
    images = _without_constant(case.name, images, report)
    report.modalities = list(images)
    report.geometry = _describe_geometry(next(iter(images.values())).image)
    report.digests = {name: _digest(one.image) for name, one in images.items()}
    if label is None or case.label is None:
        return LoadedCase(images, None, report)
    relabeled = relabel(case.name, case.label, label, scheme)
    report.counts = relabeled.counts
    return LoadedCase(images, ReadImage(relabeled.image, case.label, relabeled.unchanged), report)


def _read_images(case: SourceCase) -> dict[str, tuple[Path, sitk.Image, bool]]:
    """Read path, voxels and whether the file holds nothing else, by modality."""
    files: dict[Path, sitk.Image] = {}
    read = {}
    for name, volume in case.images.items():
        if volume.path not in files:
            n_volumes = sum(other.path == volume.path for other in case.images.values())
            files[volume.path] = read_volume(case.name, volume, n_volumes)
        image = files[volume.path]
        if volume.channel is not None:
            image = image[:, :, :, volume.channel]
        read[name] = (volume.path, image, volume.channel is None)
    return read


def read_volume(case: str, volume: Volume, n_volumes: int = 1) -> sitk.Image:
    """Read a NIfTI file, and nothing but NIfTI.

    Args:
        case: Name of its case.
        volume: The file; with a channel, it holds several volumes and all are read.
        n_volumes: How many.

    Raises:
        CaseProblemError: It cannot be read, has another shape, or holds NaN or infinity.
    """
    path = volume.path
    try:
        check_whole(str(path))
        image = sitk.ReadImage(str(path), imageIO="NiftiImageIO")
    except Exception as error:  # ITK raises what it likes
        line = f"{path} cannot be read ({last_line(error)}): it may be cut short, copy it again"
        raise CaseProblemError(case, "unreadable", line) from error
    expected = 3 if volume.channel is None else 4
    found = (image.GetDimension(), image.GetNumberOfComponentsPerPixel())
    if found != (expected, 1) or (expected == 4 and image.GetSize()[3] != n_volumes):
        what = f"{image.GetSize()} voxels" + (f" of {found[1]} values" if found[1] > 1 else "")
        remedy = "split it into one 3D file per modality" if expected == 3 else f"it should hold {n_volumes} volumes"
        raise CaseProblemError(case, "shape", f"{path} holds {what}: {remedy}")
    if not is_finite(str(path)) or not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
        line = f"{path} holds NaN or infinite voxels: repair it, or remove it to go without"
        raise CaseProblemError(case, "NaN", line)
    return image


def _on_one_grid(
    case: str,
    read: dict[str, tuple[Path, sitk.Image, bool]],
    reference: tuple[Path | None, sitk.Image],
    report: CaseReport,
    *,
    resample: bool,
) -> dict[str, ReadImage]:
    path, grid = reference
    images, elsewhere = {}, []
    for name, (source, image, unchanged) in read.items():
        difference = _difference(image, grid)
        if difference:
            elsewhere.append(f"{source} differs from {path} in {difference}")
            if resample:
                image = _resample(case, source, image, grid)  # noqa: PLW2901
                report.notes.append(f"{source} was resampled onto {path}: it differed in {difference}")
        images[name] = ReadImage(image, source, unchanged and not difference)
    if elsewhere and not resample:
        line = f"{'; '.join(elsewhere)}: register them, or pass --resample if their headers are right"
        raise CaseProblemError(case, "geometry", line)
    return images


def _difference(image: sitk.Image, grid: sitk.Image) -> str:
    if image.GetSize() != grid.GetSize():
        return f"size, {image.GetSize()} and {grid.GetSize()} voxels"
    pairs = {
        "spacing": (image.GetSpacing(), grid.GetSpacing()),
        "orientation": (image.GetDirection(), grid.GetDirection()),
        "origin": (image.GetOrigin(), grid.GetOrigin()),
    }
    return next((what for what, (a, b) in pairs.items() if np.abs(np.subtract(a, b)).max() > _TOLERANCE), "")


def _resample(case: str, source: Path, image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    moved = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0, image.GetPixelID())
    if _is_constant(moved) and not _is_constant(image):
        line = f"{source} does not overlap the case's other images: its header is wrong, or it is of somebody else"
        raise CaseProblemError(case, "geometry", line)
    return moved


def _without_constant(case: str, images: dict[str, ReadImage], report: CaseReport) -> dict[str, ReadImage]:
    """Leave out placeholders, which count as absent everywhere else, too."""
    constant = [name for name, one in images.items() if _is_constant(one.image)]
    report.notes += [f"{images[n].source} is constant in {n}, a placeholder: it counts as absent" for n in constant]
    kept = {name: one for name, one in images.items() if name not in constant}
    if not kept:
        files = ", ".join(dict.fromkeys(str(one.source) for one in images.values()))
        raise CaseProblemError(case, "no image", f"{files}: every image is constant: provide a real one")
    return kept


def _is_constant(image: sitk.Image) -> bool:
    voxels = sitk.GetArrayViewFromImage(image)
    return bool(voxels.min() == voxels.max())


def _digest(image: sitk.Image) -> str:
    voxels = np.ascontiguousarray(sitk.GetArrayViewFromImage(image), dtype=np.float32)
    return hashlib.blake2b(voxels.tobytes(), digest_size=16).hexdigest()


def _describe_geometry(image: sitk.Image) -> dict[str, str]:
    direction = image.GetDirection()
    return {
        "size": " x ".join(map(str, image.GetSize())),
        "spacing": " x ".join(f"{value:.3g}" for value in image.GetSpacing()) + " mm",
        "orientation": sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(direction),
    }
