"""Writing one case into nnU-Net's folders, each file whole or not at all."""

import errno
import gzip
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from nnunetv2_d2net.data.convert.read_case import LoadedCase, ReadImage
from nnunetv2_d2net.plugin.preprocessing.damage import check_whole

ENDING = ".nii.gz"
UNFINISHED = ".unfinished"
"""Folder below the data set's for files that are not whole yet."""

_GZIP = b"\x1f\x8b"


def write_case(loaded: LoadedCase, folder: Path, modalities: Sequence[str], *, link: bool) -> None:
    """Write images and segmentation; what the folder held of this case is replaced.

    Args:
        loaded: The case.
        folder: Of the data set, with its subfolders.
        modalities: In the order of the channels.
        link: Link to images that need no change instead of copying them.

    Raises:
        OSError: The disk is full or not writable.
    """
    name, split = loaded.report.case, loaded.report.split
    remove_case(folder, name, modalities)
    for channel, modality in enumerate(modalities):
        if modality in loaded.images:
            target = folder / f"images{split}" / f"{name}_{channel:04d}{ENDING}"
            _write(loaded.images[modality], target, folder / UNFINISHED, link=link)
    if loaded.label is not None:
        _write(loaded.label, folder / f"labels{split}" / f"{name}{ENDING}", folder / UNFINISHED, link=link)


def case_targets(folder: Path, name: str, split: str, channels: Sequence[int], *, label: bool) -> list[Path]:
    """List the files that a case has in the data set."""
    paths = [folder / f"images{split}" / f"{name}_{channel:04d}{ENDING}" for channel in channels]
    return [*paths, folder / f"labels{split}" / f"{name}{ENDING}"] if label else paths


def remove_case(folder: Path, name: str, modalities: Sequence[str]) -> None:
    """Remove what the data set holds of a case."""
    for split in ("Tr", "Ts"):
        for path in case_targets(folder, name, split, range(len(modalities)), label=True):
            path.unlink(missing_ok=True)


def _write(one: ReadImage, target: Path, unfinished: Path, *, link: bool) -> None:
    temporary = unfinished / f"{os.getpid()}_{target.name}"
    temporary.unlink(missing_ok=True)
    try:
        if not one.unchanged:
            write_image(one.image, temporary)
        elif not _is_gzip(one.source):
            _compress(one.source, temporary)
        elif link:
            temporary.symlink_to(one.source.resolve())
        else:
            shutil.copyfile(one.source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_image(image: sitk.Image, path: Path) -> None:
    """Write a compressed NIfTI file and read it back: on a full disk ITK cuts files short and says nothing.

    Raises:
        OSError: The disk is full or not writable.
    """
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        check_whole(str(path))
    except (RuntimeError, EOFError) as error:
        raise OSError(errno.EIO, "a file could not be written whole, is the disk full?") from error


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _compress(source: Path, target: Path) -> None:
    """Compress a plain file as it is, header and voxels bit by bit."""
    with (
        source.open("rb") as plain,
        target.open("wb") as raw,
        # neither name nor time inside: the same image gives the same bytes
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
    ):
        shutil.copyfileobj(plain, packed, 2**22)
