"""Reading the images that a case has, and refusing those that cannot be right."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from numpy.typing import NDArray

from nnunetv2_d2net.base.case_files import assign_channels
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.damage import check_whole, is_finite

_TOLERANCE = 1e-3
"""Largest difference, in mm or as a cosine, between the geometries of one case's images."""


class CaseImages(NamedTuple):
    """One case as read.

    Attributes:
        images: ``(M, *spatial)``, zero where a modality is not available.
        properties: nnU-Net's: spacing, and what its reader needs to write a segmentation.
        available: Which modalities there are, M flags, at least one True.
        constant: Names of the files whose voxels are all alike, which count as absent.
    """

    images: NDArray[np.floating]
    properties: dict[str, Any]
    available: tuple[bool, ...]
    constant: tuple[str, ...]


def read_case(
    files: Sequence[str], reader: BaseReaderWriter, n_modalities: int, allowed: Sequence[bool] | None = None
) -> CaseImages:
    """Read the images of one case, any of which may be absent.

    Args:
        files: Either one file per modality, in their order; or those there are, named with ``_XXXX``.
        reader: nnU-Net's reader of the data set.
        n_modalities: M.
        allowed: M flags; other modalities are not read, as if their files were absent. None allows all.

    Raises:
        UserError: A file that cannot be read, holds NaN or infinity or lies elsewhere than the case's other images;
            or no modality at all.
    """
    wanted = [True] * n_modalities if allowed is None else allowed
    channels = assign_channels(files, n_modalities)
    # a single file is opened in any case: it may hold all modalities
    chosen = [(file, c) for file, c in zip(files, channels, strict=True) if wanted[c] or len(files) == 1]
    read = [_Read(file, *_read_image(file, reader)) for file, _ in chosen]
    images = _by_channel(read, [channel for _, channel in chosen], n_modalities) if read else {}
    images = {channel: image for channel, image in images.items() if wanted[channel]}
    if not images:
        raise UserError(f"{' '.join(files) or 'the case'}: no modality is left: provide the file of at least one")
    constant = [name for name, image in images.values() if _is_constant(name, image)]
    stacked = np.zeros((n_modalities, *read[0].image.shape[1:]), dtype=np.float32)
    for channel, (name, image) in images.items():
        if name not in constant:
            stacked[channel] = image
    available = tuple(c in images and images[c][0] not in constant for c in range(n_modalities))
    if not any(available):
        raise UserError(f"{', '.join(constant)}: every image is constant, no modality is left: provide a real one")
    return CaseImages(stacked, read[0].properties, available, tuple(constant))


class _Read(NamedTuple):
    file: str
    image: NDArray[np.floating]
    properties: dict[str, Any]


def _by_channel(
    read: Sequence[_Read], channels: Sequence[int], n_modalities: int
) -> dict[int, tuple[str, NDArray[np.floating]]]:
    """Name and voxels of each modality; one file may hold all of them, such as an RGB photograph."""
    if len(read) == 1 and len(read[0].image) == n_modalities:
        return {c: (f"{read[0].file} channel {c}", image) for c, image in enumerate(read[0].image)}
    for one in read:
        _check_geometry(one, read[0])
    return {channel: (one.file, one.image[0]) for channel, one in zip(channels, read, strict=True)}


def _is_constant(name: str, image: NDArray[np.floating]) -> bool:
    if not np.isfinite(image).all():
        raise UserError(_not_finite(name))
    return bool(image.min() == image.max())


def _not_finite(name: str) -> str:
    return f"{name} holds NaN or infinite voxels: repair it, or remove it to predict without it"


def _read_image(file: str, reader: BaseReaderWriter) -> tuple[NDArray[np.floating], dict[str, Any]]:
    if not Path(file).is_file():
        raise UserError(f"{file} is not there: name a file that exists, or leave it out")
    try:
        check_whole(file)
        image, properties = reader.read_images((file,))
    except Exception as error:  # readers raise what they like
        raise UserError(f"{file} cannot be read ({last_line(error)}): it may be cut short, copy it again") from error
    if not is_finite(file):
        raise UserError(_not_finite(file))
    return image, properties


def last_line(error: Exception) -> str:
    """Say what an exception says in one line; ITK's messages have many, the reason is in the last."""
    return next((line.strip() for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)


def _check_geometry(one: _Read, reference: _Read) -> None:
    """Refuse images of which one is not voxel by voxel on the other."""
    if len(one.image) != 1:
        raise UserError(f"{one.file} holds {len(one.image)} channels, not 1: split it into one file per modality")
    files, remedy = f"{one.file} and {reference.file}", "register and resample them onto each other"
    if one.image.shape != reference.image.shape:
        sizes = " and ".join(str(read.image.shape[1:]) for read in (one, reference))
        raise UserError(f"{files} differ in shape, {sizes} voxels: {remedy}")
    expected = _numbers(reference.properties)
    for what, value in _numbers(one.properties).items():
        if value.shape != expected[what].shape or np.abs(value - expected[what]).max(initial=0) > _TOLERANCE:
            raise UserError(f"{files} differ in {what}: {remedy}")


def _numbers(properties: dict[str, Any], prefix: str = "") -> dict[str, NDArray[np.floating]]:
    """Every array of numbers that a reader keeps about an image's place in space, by name."""
    numbers: dict[str, NDArray[np.floating]] = {}
    for name, value in properties.items():
        if isinstance(value, dict):
            numbers |= _numbers(value, f"{name} ")
        elif isinstance(value, (tuple, list, np.ndarray)):
            numbers[_WORDS.get(name, prefix + name)] = np.asarray(value, dtype=float)
    return numbers


_WORDS = {name: name for name in ("spacing", "origin", "direction")} | {"original_affine": "affine matrix"}
