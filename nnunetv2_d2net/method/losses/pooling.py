"""Pooling to a given size in 2D and 3D.

The windows are fixed, because the sizes of a U-Net's levels divide each other; adaptive ones are much slower, above all
on a GPU.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def average_pool(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Average ``(B, C, *spatial)`` over the cells of a coarser grid ``size``.

    Raises:
        ValueError: The grid does not divide theirs.
    """
    cell = _cell(maps, size)
    return maps if max(cell) == 1 else (F.avg_pool3d if len(size) == 3 else F.avg_pool2d)(maps, cell)


def any_pool(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Whether a cell of the coarser grid ``size`` holds any true voxel of the bool ``(B, C, *spatial)``.

    Raises:
        ValueError: The grid does not divide theirs.
    """
    cell = _cell(mask, size)
    return mask if max(cell) == 1 else (F.max_pool3d if len(size) == 3 else F.max_pool2d)(mask.float(), cell) > 0


def _cell(maps: Tensor, size: Sequence[int]) -> tuple[int, ...]:
    """Size of a cell in voxels of the maps."""
    lengths = list(zip(maps.shape[2:], size, strict=True))
    if any(n % m for n, m in lengths):
        raise ValueError(
            f"maps of {tuple(maps.shape[2:])} cannot be pooled to {tuple(size)}, which does not divide them"
        )
    return tuple(n // m for n, m in lengths)
