"""Reading the images that a case has, and refusing those that cannot be right."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from numpy.typing import NDArray

from nnunetv2_d2net.base.dataset import assign_channels
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.heads import doubts, match_heads, partly_shown
from nnunetv2_d2net.base.images import Image, ImageError, differences, header_lines, is_constant, read_image

_LOG = logging.getLogger("nnunetv2_d2net")

_MOST_COMPARED = 100_000  # voxels
_ONE_IMAGE = 0.9998  # correlation; two modalities of one patient reach 0.98


class CaseImages(NamedTuple):
    """One case as read.

    Attributes:
        images: ``(M, *spatial)``, zero where a modality is not available.
        properties: nnU-Net's: spacing, and what its reader needs to write a segmentation.
        available: Which modalities there are, M flags, at least one True.
        constant: Names of the files whose voxels are all alike, which count as absent.
        remarks: What is odd about the images, a line for each.
    """

    images: NDArray[np.floating]
    properties: dict[str, Any]
    available: tuple[bool, ...]
    constant: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def read_case(
    files: Sequence[str],
    reader: BaseReaderWriter,
    n_modalities: int,
    allowed: Sequence[bool] | None = None,
    channels: Sequence[int] | None = None,
    *,
    nan_outside_as_zero: bool | None = None,
) -> CaseImages:
    """Read the images of one case, any of which may be absent.

    Args:
        files: Either one file per modality, in their order; or those there are, named with ``_XXXX``.
        reader: nnU-Net's reader of the data set.
        n_modalities: M.
        allowed: M flags; other modalities are not read, as if their files were absent. None allows all.
        channels: Which modality each file holds; None where that follows from number and names of the files.
        nan_outside_as_zero: See :func:`read_image`.

    Raises:
        UserError: A file that cannot be read, holds NaN or infinity, lies elsewhere than the case's other images or
            shows another head; or no modality at all.
    """
    wanted = [True] * n_modalities if allowed is None else allowed
    channels = assign_channels(files, n_modalities) if channels is None else channels
    # a single file is opened in any case: it may hold all modalities
    chosen = [(file, c) for file, c in zip(files, channels, strict=True) if wanted[c] or len(files) == 1]
    read = [
        read_image(file, lambda name: reader.read_images((name,)), nan_outside_as_zero=nan_outside_as_zero)
        for file, _ in chosen
    ]
    images = _by_channel(read, [channel for _, channel in chosen], n_modalities) if read else {}
    images = {channel: image for channel, image in images.items() if wanted[channel]}
    if not images:
        raise UserError(f"{' '.join(files) or 'the case'}: no modality is left: provide the file of at least one")
    constant = {channel: name for channel, (name, image) in images.items() if is_constant(image)}
    if len(constant) == len(images):
        names = ", ".join(constant.values())
        raise UserError(f"{names}: every image is constant, no modality is left: provide a real one")
    for name in constant.values():
        _LOG.warning("%s is constant and counts as absent", name)
    real = [images[channel] for channel in images if channel not in constant]
    remarks = (*header_lines(read), *(check_voxels(real) if len(read) > 1 else ()))
    for line in remarks:
        _LOG.warning("%s", line)
    stacked = np.zeros((n_modalities, *read[0].voxels.shape[1:]), dtype=np.float32)
    available = tuple(channel in images and channel not in constant for channel in range(n_modalities))
    for channel in np.flatnonzero(available).tolist():
        stacked[channel] = images[channel][1]
    return CaseImages(stacked, read[0].properties, available, tuple(constant.values()), remarks)


def _by_channel(
    read: Sequence[Image], channels: Sequence[int], n_modalities: int
) -> dict[int, tuple[str, NDArray[np.floating]]]:
    """Name and voxels of each modality; one file, named as the first, may hold all, such as an RGB photograph."""
    if list(channels) == [0] and len(read[0].voxels) == n_modalities:
        return {c: (f"{read[0].path} channel {c}", image) for c, image in enumerate(read[0].voxels)}
    for image in read:
        _check_place(image, read[0])
    return {channel: (str(image.path), image.voxels[0]) for channel, image in zip(channels, read, strict=True)}


def _check_place(image: Image, reference: Image) -> None:
    """Refuse images of which one is not voxel by voxel on the other."""
    if len(image.voxels) != 1:
        reason = f"holds {len(image.voxels)} channels, not 1"
        raise ImageError(image.path, "shape", reason, "split it into one file per modality")
    if ways := differences(image, reference):
        reason = f"differs from {reference.path} in {', '.join(ways)}"
        raise ImageError(image.path, "geometry", reason, f"register and resample them onto each other{_or(image.path)}")


def _or(path: Path) -> str:
    """What else to do, if the number at the end of a file's name is no modality's."""
    stem, dot, ending = path.name.partition(".")
    return (
        "; or, if the number at the end of their names is the patient's, put that of the modality behind each name, as "
        f"{stem}_0000{dot}{ending} for the first modality"
    )


def check_voxels(images: Sequence[tuple[str, NDArray[np.floating]]], *, in_memory: bool = False) -> list[str]:
    """Say what is odd about the images of a case beside each other: one image twice, other heads, parts of one.

    Args:
        images: File, or name of the modality, and voxels ``(z, y, x)`` of each that is available.
        in_memory: They have no files whose names could be meant otherwise.

    Raises:
        ImageError: One certainly is of another head, as where the number in the names is the patient's.
    """
    remedy = "beyond it tumor may be missed; see that it was not cut"
    parts = [f"{line}: {remedy}" for line in partly_shown(images).values()]
    return _repeated(images) + _check_heads(images, in_memory=in_memory) + parts


def _repeated(images: Sequence[tuple[str, NDArray[np.floating]]]) -> list[str]:
    """Say which images are one image, be it scaled or rounded in one of them."""
    lines = []
    for (one, voxels), (other, others) in itertools.combinations(images, 2):
        step = voxels.size // _MOST_COMPARED + 1
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN where a sample is constant
            likeness = np.corrcoef(voxels.ravel()[::step], others.ravel()[::step])[0, 1]
        if np.array_equal(voxels, others):
            lines.append(f"{one} and {other} hold the same voxels: one modality may have been given as another")
        elif likeness > _ONE_IMAGE:
            lines.append(
                f"{one} and {other} are one image, scaled or rounded: one modality may have been given as another"
            )
    return lines


def _check_heads(images: Sequence[tuple[str, NDArray[np.floating]]], *, in_memory: bool) -> list[str]:
    files, lines = [file for file, _ in images], []
    for n, match in doubts(match_heads([voxels for _, voxels in images])):
        what = f"{match.told(n, files, files[0 if n else 1])} (Dice of their outlines {match.overlap:.2f})"
        if match.differ:
            remedy = f"register them onto each other{'' if in_memory else _or(Path(files[n]))}"
            raise ImageError(files[n], "geometry", what, remedy)
        lines.append(f"{files[n]} {what}: see that they are of one patient")
    return lines
