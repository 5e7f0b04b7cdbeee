"""Pooling to a given size in 2D and 3D."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def average_pool(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Average ``(B, C, *spatial)`` over the cells of a coarser grid ``size``."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    if (cell := _cell(maps, size)) is not None:
        return (F.avg_pool3d if len(size) == 3 else F.avg_pool2d)(maps, cell)
    pool = F.adaptive_avg_pool3d if len(size) == 3 else F.adaptive_avg_pool2d
    return pool(maps, tuple(size))  # pyright: ignore[reportArgumentType]


def any_pool(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Whether a cell of the coarser grid ``size`` holds any true voxel of the bool ``(B, C, *spatial)``."""
    if tuple(mask.shape[2:]) == tuple(size):
        return mask
    if (cell := _cell(mask, size)) is not None:
        return (F.max_pool3d if len(size) == 3 else F.max_pool2d)(mask.float(), cell) > 0
    pool = F.adaptive_max_pool3d if len(size) == 3 else F.adaptive_max_pool2d
    return pool(mask.float(), tuple(size)) > 0  # pyright: ignore[reportArgumentType, reportOperatorIssue]


def _cell(maps: Tensor, size: Sequence[int]) -> tuple[int, ...] | None:
    """Size of a cell where all are alike: fixed windows are much faster than adaptive ones, above all on a GPU."""
    lengths = list(zip(maps.shape[2:], size, strict=True))
    return tuple(n // m for n, m in lengths) if all(n % m == 0 for n, m in lengths) else None
