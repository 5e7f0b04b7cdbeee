"""The NIfTI files below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError

_ENDINGS = (".nii.gz", ".nii")
_JUNK = "__MACOSX"


def nifti_files(source: Path) -> list[Path]:
    """List the NIfTI files below a folder, links followed, sorted.

    What macOS leaves behind (``._name``, ``__MACOSX``) and other hidden files and folders are passed over.

    Raises:
        UserError: The folder is not there, cannot be read, or holds no such file.
    """
    if not source.is_dir():
        raise UserError(f"{source} is no folder: pass the folder that holds the cases")
    paths = sorted(path for path in _walk(source) if nifti_stem(path.name) is not None)
    if not paths:
        raise UserError(f"{source} holds no file that ends in .nii or .nii.gz: pass the folder that holds the cases")
    return paths


def nifti_stem(name: str) -> str | None:
    """Return a file's name without its NIfTI ending, in upper or lower case; None for other and hidden files.

    Example:
        >>> nifti_stem("a_FLAIR.NII.GZ"), nifti_stem("._a.nii")
        ('a_FLAIR', None)
    """
    ending = next((e for e in _ENDINGS if name.lower().endswith(e)), None)
    return None if ending is None or name.startswith(".") else name[: -len(ending)]


def _walk(source: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): change its permissions") from error

    visited = set()
    for folder, subfolders, names in os.walk(source, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link back to a folder above it
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name != _JUNK]
        yield from (Path(folder, name) for name in names)
