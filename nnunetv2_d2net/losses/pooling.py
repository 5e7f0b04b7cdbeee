"""Pooling to a given size in 2D and 3D."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def average_pool(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Average ``(B, C, *spatial)`` over the cells of a coarser grid ``size``."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    pool = F.adaptive_avg_pool3d if len(size) == 3 else F.adaptive_avg_pool2d
    return pool(maps, tuple(size))  # pyright: ignore[reportArgumentType]


def any_pool(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Whether a cell of the coarser grid ``size`` holds any true voxel of the bool ``(B, C, *spatial)``."""
    pool = F.adaptive_max_pool3d if len(size) == 3 else F.adaptive_max_pool2d
    return pool(mask.float(), tuple(size)) > 0  # pyright: ignore[reportArgumentType, reportOperatorIssue]
