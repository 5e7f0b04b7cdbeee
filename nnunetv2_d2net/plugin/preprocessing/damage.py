"""Damage in image files about which SimpleITK says nothing: it puts zeros in the place of what it cannot use."""

import gzip
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

_GZIP = b"\x1f\x8b"
"""How every gzip file begins."""


def check_whole(file: str) -> None:
    """Refuse a gzip file that was cut short or damaged.

    Raises:
        EOFError: The file ends too early.
        OSError: It cannot be opened, or its checksum is wrong.
        zlib.error: Its content makes no sense.
    """
    with Path(file).open("rb") as raw:
        if raw.read(len(_GZIP)) != _GZIP:
            return
    with gzip.open(file) as stream:
        while stream.read(2**22):
            pass


def is_finite(file: str) -> bool:
    """Tell whether a NIfTI file is free of NaN and infinity; True for other formats, whose voxels arrive as they are.

    Args:
        file: Any image file that can be read.
    """
    if not file.lower().endswith((".nii", ".nii.gz")):
        return True
    try:
        voxels = cast(Any, nib.load(file)).dataobj
        return voxels.dtype.kind not in "fc" or bool(np.isfinite(voxels.get_unscaled()).all())
    except (ImageFileError, OSError):  # such as a plain file called .nii.gz, which SimpleITK reads
        return True
