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
    """Isotropic voxels of ``spacing`` mm that fill the field of view.

    Example:
        >>> Grid(3).shape
        (48, 62, 50)
    """

    spacing: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels, (z, y, x)."""
        z, y, x = (extent // self.spacing for extent in FIELD_OF_VIEW)
        return z, y, x

    def axis_mm(self, axis: int) -> NDArray[np.floating]:
        """Positions of the voxel centers along one axis, mm from the corner of the field of view."""
        return (np.arange(self.shape[axis], dtype=np.float32) + 0.5) * self.spacing

    def positions_mm(self) -> NDArray[np.floating]:
        """Position of every voxel center, mm from the corner, ``(3, z, y, x)``."""
        return np.stack(np.meshgrid(*(self.axis_mm(axis) for axis in range(3)), indexing="ij"))


class SmoothNoise(NamedTuple):
    """A random field of zero mean and about unit variance: control points of a cubic B-spline over the field of view.

    It is defined in mm, so a coarse and a fine grid see the same field.
    """

    lattice: NDArray[np.floating]
    length: float

    @classmethod
    def draw(cls, rng: np.random.Generator, length: float) -> "SmoothNoise":
        """Draw a field whose features are about ``length`` mm wide."""
        n_control = [int(np.ceil(extent / length)) + 3 for extent in FIELD_OF_VIEW]
        return cls(rng.standard_normal(n_control, dtype=np.float32), length)

    def on(self, grid: Grid) -> NDArray[np.floating]:
        """Evaluate the field on the voxel centers, ``(z, y, x)``."""
        field = self.lattice
        for axis in range(3):
            weights = _spline_weights(grid.axis_mm(axis) / self.length, field.shape[0])
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
