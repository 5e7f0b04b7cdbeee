"""The pictures of one case, small enough to travel inside a page."""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

_MARGIN = 3
_QUALITY = 70
_LARGEST_SIDE = 16000
"""In pixels; WebP ends at 16383."""


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
    values = np.nan_to_num(part.astype(np.float32))
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


def _extent(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    inside = np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))
    if not inside.size:
        return 0, mask.shape[axis]
    margin = 0 if axis == 0 else _MARGIN
    return max(0, int(inside[0]) - margin), min(mask.shape[axis], int(inside[-1]) + 1 + margin)
