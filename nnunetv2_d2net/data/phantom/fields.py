"""The voxel grids of the phantom, and smooth random fields that mean the same at every resolution."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

FIELD_OF_VIEW = (144, 186, 150)
"""Extent of every image, mm, axes (z, y, x); whole voxels in each of the sizes."""

SPACINGS = {"small": 3, "medium": 2, "large": 1}
"""Isotropic voxel edge of each size, mm."""


class Grid(NamedTuple):
    """A block of isotropic voxels that fills the field of view."""

    shape: tuple[int, int, int]
    spacing: int

    def axis_mm(self, axis: int) -> NDArray[np.floating]:
        """Positions of the voxel centers along one axis, mm from the corner of the field of view."""
        return (np.arange(self.shape[axis], dtype=np.float32) + 0.5) * self.spacing

    def positions_mm(self) -> NDArray[np.floating]:
        """Position of every voxel center, mm from the corner, ``(3, z, y, x)``."""
        return np.stack(np.meshgrid(*(self.axis_mm(axis) for axis in range(3)), indexing="ij"))


class SmoothNoise(NamedTuple):
    """Control points of a cubic B-spline over the field of view.

    The field is defined in mm, so a coarse and a fine grid see the same field.
    """

    lattice: NDArray[np.floating]
    length: float


def make_grid(spacing: int) -> Grid:
    """Cover the field of view with voxels of ``spacing`` mm.

    Example:
        >>> make_grid(3).shape
        (48, 62, 50)
    """
    z, y, x = (extent // spacing for extent in FIELD_OF_VIEW)
    return Grid((z, y, x), spacing)


def draw_noise(rng: np.random.Generator, length: float) -> SmoothNoise:
    """Draw a field of zero mean and unit variance whose features are about ``length`` mm wide."""
    n_control = [int(np.ceil(extent / length)) + 3 for extent in FIELD_OF_VIEW]
    return SmoothNoise(rng.standard_normal(n_control, dtype=np.float32), length)


def evaluate_noise(noise: SmoothNoise, grid: Grid) -> NDArray[np.floating]:
    """Evaluate a field on the voxel centers.

    Args:
        noise: The control points.
        grid: Where to evaluate.

    Returns:
        ``(z, y, x)``, about unit variance.
    """
    field = noise.lattice
    for axis in range(3):
        weights = _spline_weights(grid.axis_mm(axis) / noise.length, field.shape[0])
        # Each pass consumes the first axis and appends the interpolated one; three passes restore the order.
        field = (weights @ field.reshape(field.shape[0], -1)).reshape(-1, *field.shape[1:])
        field = np.ascontiguousarray(np.moveaxis(field, 0, -1))
    return field


def _spline_weights(positions: NDArray[np.floating], n_control: int) -> csr_matrix:
    """Uniform cubic B-spline weights, scaled to unit variance, four per row: no sum depends on a BLAS."""
    cell = np.floor(positions).astype(int)
    t = positions - cell
    basis = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis /= np.sqrt((basis**2).sum(axis=1, keepdims=True))
    rows = np.repeat(np.arange(len(positions)), 4)
    columns = (cell[:, None] + np.arange(4)).ravel()
    return csr_matrix((basis.ravel().astype(np.float32), (rows, columns)), shape=(len(positions), n_control))


def sigmoid(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Logistic function; the argument is clipped so that float32 does not overflow."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))
