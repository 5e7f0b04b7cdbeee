"""Volumes as radiologists look at them, small enough to travel inside a page.

Slices are axial, the patient's right on the left of the picture.
"""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image, features

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import is_placed, read_sitk

_MEDICAL = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_AXIAL = 0
_PLANES = (("axial", "RLAP"), ("coronal", "RLSI"), ("sagittal", "APSI"))
"""Across each axis of a volume, and what lies left, right, on top and at the bottom: R(ight), L(eft), A(nterior),
P(osterior), S(uperior) or I(nferior)."""

_MARGIN = 3
_QUALITY = 70
_LARGEST_SIDE = 16000
"""In pixels; WebP ends at 16383."""

_CONTINUES = 0x80


def read_volume(path: Path) -> tuple[NDArray[np.generic], dict[str, Any]]:
    """Read an image and turn its axes to the nearest ones of the patient; voxels are not resampled.

    A single slice keeps its plane, whichever it is.

    Returns:
        Voxels ``(C, slices, rows, columns)``, and for the page's script the ``spacing`` of rows and columns in mm (1
        where the file has none), the slices' ``thickness`` in mm, their ``plane``, "" for a picture that lies nowhere
        in a patient, and what lies at the left, right, top and bottom ``sides``, None where the file does not tell.

    Raises:
        UserError: It cannot be read, or has neither two nor three axes.
    """
    image = read_sitk(path)
    if image.GetDimension() not in (2, 3):
        raise UserError(f"{path} has {image.GetDimension()} axes, not 2 or 3")
    if image.GetDimension() == 2:
        return _channels(image)[:, None], _placing((1.0, *image.GetSpacing()[::-1]))
    placed = path.name.endswith(_MEDICAL) and is_placed(image)
    if placed:
        image = sitk.DICOMOrient(image, "LPS")
    array, spacing = _channels(image), image.GetSpacing()[::-1]
    plane = _single_plane(array.shape[1:])
    if plane != _AXIAL:
        array = np.moveaxis(array, plane + 1, 1)[:, :, ::-1]  # superior up
        spacing = (spacing[plane], *(mm for axis, mm in enumerate(spacing) if axis != plane))
    return array, _placing(spacing, *(_PLANES[plane] if placed else ()))


class Window(NamedTuple):
    """Which part of a volume is shown.

    Attributes:
        slices: Indices.
        rows: From, to.
        columns: From, to.
        start: Position in ``slices`` to begin with.
    """

    slices: list[int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    start: int

    def cut(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the part of a volume ``(slices, rows, columns)``."""
        return volume[self.slices, slice(*self.rows), slice(*self.columns)]


def choose_window(images: Sequence[NDArray[np.generic]], reference: NDArray[np.bool_], step: int = 1) -> Window:
    """Leave out the air around a patient, and all but every ``step``-th slice.

    Args:
        images: Modalities, ``(slices, rows, columns)``.
        reference: Where there is anything to find; the slice with most of it is kept and shown first.
        step: 1 keeps all slices.
    """
    filled = reference.copy()
    for image in images:
        filled |= image != image.flat[0]  # air, whatever its value is
    slices, rows, columns = (_extent(filled, axis) for axis in range(3))
    largest = int(np.argmax(reference.sum((1, 2)))) if reference.any() else (slices[0] + slices[1]) // 2
    kept = [index for index in range(*slices) if (index - largest) % step == 0]
    return Window(kept, rows, columns, kept.index(largest))


def encode_picture(part: NDArray[np.generic]) -> str:
    """Write the slices of one modality as tiles of a gray picture, a data URI.

    Args:
        part: ``(slices, rows, columns)``; black is the 0.5th percentile of what is not air, white the 99.5th.
    """
    values = part.astype(np.float32)
    inside = values[values != values.flat[0]]
    low, high = np.percentile(inside, (0.5, 99.5)) if inside.size else (0.0, 1.0)
    gray = (np.clip((values - low) / max(float(high - low), 1e-12), 0, 1) * 255).round().astype(np.uint8)
    gray[values == values.flat[0]] = 0  # also where normalized voxels are darker than air
    n, height, width = gray.shape
    n_columns = tile_columns(n, height, width)
    n_rows = math.ceil(n / n_columns)
    sheet = np.zeros((n_rows * n_columns, height, width), np.uint8)
    sheet[:n] = gray
    tiled = sheet.reshape(n_rows, n_columns, height, width).swapaxes(1, 2).reshape(n_rows * height, -1)
    kind = "webp" if features.check("webp") and max(tiled.shape) <= _LARGEST_SIDE else "jpeg"
    file = io.BytesIO()
    Image.fromarray(tiled).save(file, kind, quality=_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def tile_columns(n: int, height: int, width: int) -> int:
    """Return how many tiles lie side by side in a sheet that is about square.

    Example:
        >>> tile_columns(40, 100, 100)
        7
    """
    return max(1, min(n, math.ceil(math.sqrt(n * height / width))))


def encode_runs(labels: NDArray[np.generic], n_labels: int) -> bytes:
    """Write a label map as runs of equal labels, each ``length * n_labels + label``, 7 bits a byte, low ones first.

    Args:
        labels: In [0, n_labels), any shape; runs go through it in C order.
        n_labels: How many labels there are.

    Example:
        >>> encode_runs(np.array([0, 0, 0, 1]), 2).hex()
        '0603'
    """
    flat = labels.reshape(-1)
    if not flat.size:
        return b""
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    out = bytearray()
    for number in (lengths * n_labels + flat[starts].astype(np.int64)).tolist():
        while number >= _CONTINUES:
            out.append(number % _CONTINUES | _CONTINUES)
            number //= _CONTINUES  # noqa: PLW2901
        out.append(number)
    return bytes(out)


def _channels(image: sitk.Image) -> NDArray[np.generic]:
    array = sitk.GetArrayFromImage(image)
    return array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)


def _placing(spacing: Sequence[float], plane: str = "", sides: str = "") -> dict[str, Any]:
    thickness, *in_plane = spacing
    pixel = [round(mm, 4) for mm in in_plane]
    return {"spacing": pixel, "thickness": round(thickness, 3), "plane": plane, "sides": list(sides) or None}


def _single_plane(shape: tuple[int, ...]) -> int:
    """Return the axis across a volume's slices: the one of length 1, if there is just one; else the axial one."""
    single = [axis for axis, n in enumerate(shape) if n == 1]
    return single[0] if len(single) == 1 else _AXIAL


def _extent(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    inside = np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))
    if not inside.size:
        return 0, mask.shape[axis]
    margin = 0 if axis == 0 else _MARGIN
    return max(0, int(inside[0]) - margin), min(mask.shape[axis], int(inside[-1]) + 1 + margin)
