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
from nnunetv2_d2net.base.grids import resample_onto, take_grid
from nnunetv2_d2net.base.heads import doubts, match_heads, partly_shown
from nnunetv2_d2net.base.images import (
    ROUNDED,
    Image,
    ImageError,
    differences,
    digest,
    header_lines,
    is_constant,
    label_counts,
    notes_of,
    properties_of,
    read_sitk,
    write_sitk,
)
from nnunetv2_d2net.data.convert.cases import CaseReport, Layout, Problem, SourceCase
from nnunetv2_d2net.data.convert.doubts import label_oddities
from nnunetv2_d2net.data.convert.scheme import LabelScheme

ENDING = ".nii.gz"
_GZIP = b"\x1f\x8b"


class CaseImage(NamedTuple):
    """An image of a case, and the file that it comes from; ``unchanged`` says that the file holds just this.

    ``grid`` is the file whose grid it has, where that is another one.
    """

    image: sitk.Image
    source: Path
    unchanged: bool
    grid: Path | None = None

    @property
    def voxels(self) -> NDArray[Any]:
        """Read-only, ``(z, y, x)``."""
        return sitk.GetArrayViewFromImage(self.image)


class CaseVolumes(NamedTuple):
    """A case in memory, ready to be written: images by modality, the label with the data set's values in 8 bits."""

    images: dict[str, CaseImage]
    label: CaseImage | None
    report: CaseReport


class Leniency(NamedTuple):
    """What is done with images that are refused otherwise; see :func:`~..convert.convert_folder`."""

    resample: bool = False
    nan_outside_as_zero: bool = False
    label_header_from_images: bool = False


STRICT = Leniency()


def label_values(case: SourceCase) -> frozenset[int] | None:
    """Return the values of a case's segmentation; None where there is none, or it cannot be used."""
    if case.label is None:
        return None
    try:
        image = read_volume(case.label, is_label=True)
        return frozenset(label_counts(case.label, sitk.GetArrayViewFromImage(image)))
    except ImageError:
        return None


def convert_case(
    case: SourceCase, layout: Layout, folder: Path | None = None, *, how: Leniency = STRICT, link: bool = False
) -> CaseReport:
    """Read a case and, where there is a folder, write it.

    Args:
        case: Its files.
        layout: Of the source.
        folder: Of the data set, with its subfolders; None only reads.
        how: What to do with images that lie elsewhere, or hold NaN.
        link: Link to images that need no change instead of copying them.

    Raises:
        UserError: It could not be written.
    """
    try:
        volumes = read_case(case, layout.scheme, labels_are_known=layout.labels_are_known, **how._asdict())
    except ImageError as error:
        return CaseReport.of(case, Problem.of(case.name, error))
    if folder is not None:
        _write_case(volumes, folder, layout.modalities, link=link)
    return volumes.report


def read_case(
    case: SourceCase,
    scheme: LabelScheme,
    *,
    resample: bool,
    nan_outside_as_zero: bool = False,
    label_header_from_images: bool = False,
    labels_are_known: bool = True,
) -> CaseVolumes:
    """Read a case and bring it onto one grid: that of its segmentation, or else of its first image.

    Args:
        case: Its files.
        scheme: Its label values.
        resample: Resample images that lie elsewhere, linearly, instead of refusing the case.
        nan_outside_as_zero: Take NaN outside an image's field of view as 0.
        labels_are_known: Whether it is known from more than names what the values mean.
        label_header_from_images: Put a segmentation that lies elsewhere, but has as many voxels, onto the images' grid.

    Raises:
        ImageError: It cannot be converted.
    """
    report = CaseReport.of(case)
    images = _read_images(case, nan_outside_as_zero=nan_outside_as_zero)
    label = case.label and CaseImage(read_volume(case.label, is_label=True), case.label, unchanged=True)
    sources = {one.source: one for one in [*images.values(), *([label] if label else [])]}
    report.notes += header_lines([_located(one) for one in sources.values()])
    label = label and _label_on_grid(label, list(images.values()), report, even_far=label_header_from_images)
    images = _on_one_grid(images, label or next(iter(images.values())), report, resample=resample)
    images = _without_placeholders(images, report)
    report.modalities = list(images)
    report.geometry = _describe_geometry(next(iter(images.values())).image)
    report.digests = {n: digest(one.voxels) for n, one in images.items()}
    if label:
        remedy = "mend it, or name them in a mapping file"
        remedy = remedy if labels_are_known else f"{remedy}, or pass --labels with their year"
        relabeled, report.voxels = relabel(label.source, label.image, scheme.values, remedy)
        same = all(scheme.values[value] == value for value in report.voxels)
        same = same and label.unchanged and label.image.GetPixelID() == sitk.sitkUInt8
        label = label._replace(image=relabeled, unchanged=same)
        voxels = {name: one.voxels for name, one in images.items()}
        for words, remedy in label_oddities(label.voxels, voxels, scheme, are_known=labels_are_known):
            if remedy:
                raise ImageError(label.source, "labels", words, remedy)
            report.notes.append(f"{label.source} {words}")
    _check_heads(images, report)
    report.notes += partly_shown([(str(one.source), one.voxels) for one in images.values()]).values()
    return CaseVolumes(images, label, report)


def _read_images(case: SourceCase, *, nan_outside_as_zero: bool) -> dict[str, CaseImage]:
    files: dict[Path, sitk.Image] = {}
    images = {}
    for name, (path, channel) in case.images.items():
        if path not in files:
            n_volumes = None if channel is None else sum(other.path == path for other in case.images.values())
            files[path] = read_volume(path, n_volumes, nan_outside_as_zero=nan_outside_as_zero)
        image = files[path] if channel is None else files[path][:, :, :, channel]
        for key in files[path].GetMetaDataKeys():
            image.SetMetaData(key, files[path].GetMetaData(key))  # it holds what is odd about the header
        has_zeros_for_nan = any("taken as 0" in note for note in notes_of(image))
        images[name] = CaseImage(image, path, unchanged=channel is None and not has_zeros_for_nan)
    return images


def read_volume(
    path: Path, n_volumes: int | None = None, *, nan_outside_as_zero: bool | None = None, is_label: bool = False
) -> sitk.Image:
    """Read a NIfTI file, and nothing but NIfTI.

    Args:
        path: The file.
        n_volumes: How many volumes it holds along its fourth axis; None for a file of three axes.
        nan_outside_as_zero: Take NaN outside the field of view as 0; None where that is not offered.
        is_label: Leave the range of its values to :func:`.label_counts`.

    Raises:
        ImageError: It cannot be read, has another shape, or holds NaN, infinity, complex or huge numbers.
    """
    image = read_sitk(path, only_nifti=True, nan_outside_as_zero=nan_outside_as_zero, is_label=is_label)
    size, n_values = image.GetSize(), image.GetNumberOfComponentsPerPixel()
    if n_values > 1 or len(size) != (3 if n_volumes is None else 4) or (n_volumes and size[3] != n_volumes):
        shape = f"{size} voxels" + (f" of {n_values} values" if n_values > 1 else "")
        raise ImageError(path, "shape", f"holds {shape}", _shape_remedy(len(size), n_values, n_volumes))
    return image


def _shape_remedy(n_axes: int, n_values: int, n_volumes: int | None) -> str:
    if n_values > 1:
        return "write one value per voxel, for a segmentation whole numbers in the place of colors"
    if n_axes < 3:
        return "stack the slices of a patient into one 3D file; single slices are not converted"
    return (
        f"it should hold {n_volumes} volumes along its fourth axis"
        if n_volumes
        else "split it into one 3D file per modality"
    )


def _label_on_grid(label: CaseImage, images: Sequence[CaseImage], report: CaseReport, *, even_far: bool) -> CaseImage:
    """Give a segmentation the images' place where its header was rounded or, if asked for, lost."""
    first, *others = images
    difference = " and ".join(differences(_located(label), _located(first)))
    if not difference or any(differences(_located(other), _located(first), ROUNDED) for other in others):
        return label
    is_rounded = not differences(_located(label), _located(first), ROUNDED)
    if not is_rounded and not (even_far and label.image.GetSize() == first.image.GetSize()):
        return label
    report.notes.append(f"{label.source} takes the grid of {first.source}: it differed in {difference}")
    return _moved(label, first)


def _moved(one: CaseImage, grid: CaseImage) -> CaseImage:
    """Put an image onto a grid of the same size, its voxels as they are."""
    return CaseImage(take_grid(one.image, grid.image), one.source, unchanged=False, grid=grid.grid or grid.source)


def _on_one_grid(
    images: Mapping[str, CaseImage], grid: CaseImage, report: CaseReport, *, resample: bool
) -> dict[str, CaseImage]:
    aligned, elsewhere = {}, {}
    for name, one in images.items():
        difference = " and ".join(differences(_located(one), _located(grid)))
        aligned[name] = one
        if difference and not differences(_located(one), _located(grid), ROUNDED):
            aligned[name] = _moved(one, grid)
            report.notes.append(f"{one.source} takes the grid of {grid.source}: it differed in {difference}")
        elif difference and resample:
            aligned[name] = _resample(one, grid)
            report.notes.append(f"{one.source} was resampled onto {grid.source}: it differed in {difference}")
        elif difference:
            notes = [f"; it {note}" for note in notes_of(one.image) if " was read" in note]
            elsewhere[one.source] = f"differs from {grid.source} in {difference}{''.join(notes)}"
    if elsewhere:
        remedy = "register them, or pass --resample if their headers are right"
        if len(elsewhere) == len(images) and grid.image.GetSize() == next(iter(images.values())).image.GetSize():
            remedy += ", or --label_header_from_images if only that of the segmentation is wrong"
        raise _images_error("geometry", elsewhere, remedy)
    return aligned


def _located(one: CaseImage) -> Image:
    return Image(one.source, one.voxels[None], properties_of(one.image), tuple(notes_of(one.image)))


def _resample(one: CaseImage, grid: CaseImage) -> CaseImage:
    image = resample_onto(one.image, grid.image, one.source)
    return CaseImage(image, one.source, unchanged=False, grid=grid.grid or grid.source)


def _without_placeholders(images: Mapping[str, CaseImage], report: CaseReport) -> dict[str, CaseImage]:
    """Leave out images without content, which count as absent everywhere else, too."""
    constant = {name: one.source for name, one in images.items() if is_constant(one.voxels)}
    if len(constant) == len(images):
        raise _images_error("no image", dict.fromkeys(constant.values(), "is constant"), "provide a real image")
    what = "a placeholder: it counts as absent"
    report.notes += [f"{path} is constant in {name}, {what}" for name, path in constant.items()]
    kept = {name: one for name, one in images.items() if name not in constant}
    masks = [name for name, one in kept.items() if _has_two_values(one.voxels)]
    report.notes += [f"{kept[name].source} has only two values in {name}, as a mask has" for name in masks]
    return kept


def _has_two_values(voxels: NDArray[Any]) -> bool:
    return bool(((voxels == voxels.min()) | (voxels == voxels.max())).all())


def _images_error(kind: str, reasons: Mapping[Path, str], remedy: str) -> ImageError:
    """Say in one line what is wrong with several images."""
    (first, reason), *others = reasons.items()
    return ImageError(first, kind, "; ".join([reason, *(f"{path} {other}" for path, other in others)]), remedy)


def _check_heads(images: Mapping[str, CaseImage], report: CaseReport) -> None:
    """Refuse an image of somebody else, or one that was not registered."""
    files = [one.source for one in images.values()]
    for n, match in doubts(match_heads([one.voxels for one in images.values()])):
        what = match.told(n, [str(file) for file in files], "the other images of its case")
        what += f" (outlines overlap by {match.overlap:.0%})"
        if match.differ:
            raise ImageError(files[n], "geometry", what, "register them, or put the patient's own image there")
        report.notes.append(f"{files[n]} {what}")


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
        write_sitk(one.image, target, place_of=one.grid or one.source)
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
