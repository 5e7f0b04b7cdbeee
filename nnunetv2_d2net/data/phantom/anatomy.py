"""Brain anatomy: the MNI152 tissue maps, deformed anew for every case.

The maps are the ICBM 2009a nonlinear symmetric templates that nilearn installs with itself (Fonov, Evans, Botteron,
Almli, McKinstry, Collins, NeuroImage 54, 2011, and the Brain Development Cooperative Group). CSF is what the brain
mask holds beside gray and white matter.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import ImageError, read_image
from nnunetv2_d2net.data.phantom.fields import Grid, SmoothNoise, draw_noise, evaluate_noise

_CORNER = np.array((12, 24, 23), dtype=np.float32)
"""Template index (1 mm) of the corner of the field of view, axes (z, y, x): cuts the lowest brain stem off."""

MNI_ORIGIN = np.array((72, 134, 98), dtype=np.float32)
"""Template index of the MNI152 origin, the anterior commissure, axes (z, y, x)."""

_CENTER = np.array((84, 117, 98), dtype=np.float32)
_FOLD_STRENGTH = (0.5, 0.5, 0.9)


class Head(NamedTuple):
    """What makes one head differ from the template."""

    linear: NDArray[np.floating]
    shifts: tuple[tuple[float, tuple[SmoothNoise, ...]], ...]
    folds: tuple[SmoothNoise, ...]
    atrophy: float


class Anatomy(NamedTuple):
    """Tissue of one head on a grid.

    Attributes:
        tissues: Fractions of gray matter, white matter and CSF, ``(3, z, y, x)``, summing to 1 inside the brain.
        brain: Brain mask, ``(z, y, x)``.
        mni_mm: Where each voxel lies in the template, mm from the MNI152 origin, ``(3, z, y, x)``.
    """

    tissues: NDArray[np.floating]
    brain: NDArray[np.bool_]
    mni_mm: NDArray[np.floating]


class Displacement(NamedTuple):
    """Tissue pushed away from a growing focus: ``center`` and ``radius`` in mm, ``push`` as a share of the radius."""

    center: NDArray[np.floating]
    radius: float
    push: float


def draw_head(rng: np.random.Generator) -> Head:
    """Draw rotation, scale, flip, smooth deformation, cortical folding and atrophy of one head."""
    angles = rng.normal(0, np.deg2rad(4), 3)
    scale = rng.normal(1.055, 0.02) * np.exp(rng.normal(0, 0.02, 3))
    scale[2] *= rng.choice((-1, 1))
    wide = tuple(draw_noise(rng, 45) for _ in range(3))
    fine = tuple(draw_noise(rng, 14) for _ in range(3))
    folds = tuple(draw_noise(rng, 7) for _ in range(3))
    linear = (_rotation(angles) * scale).astype(np.float32)
    return Head(linear, ((3.5, wide), (1.3, fine)), folds, float(rng.normal(0.1, 0.45)))


def deform_anatomy(head: Head, grid: Grid, displacements: tuple[Displacement, ...] = ()) -> Anatomy:
    """Sample the template on a grid as one head sees it, with the mass effect of its tumor.

    Args:
        head: The drawn head.
        grid: Output grid; tissue fractions are averages over its voxels.
        displacements: One for each tumor focus.

    Raises:
        UserError: nilearn is not installed.
    """
    atlas = load_atlas(grid.spacing)
    position = _source_positions(head, grid, displacements)
    gray, white, brain = (map_coordinates(tissue, position, order=1, mode="constant") for tissue in atlas)
    mask = brain > 0.55
    logits = np.log(np.stack([gray, white, np.clip(1 - gray - white, 0, None)]) + 1e-3)
    logits[2] += head.atrophy
    for index, (strength, fold) in enumerate(zip(_FOLD_STRENGTH, head.folds, strict=True)):
        logits[index] += strength * evaluate_noise(fold, grid)
    fractions = np.exp(logits)
    fractions *= mask / fractions.sum(axis=0)
    return Anatomy(fractions, mask, position - MNI_ORIGIN[:, None, None, None])


def _source_positions(head: Head, grid: Grid, displacements: tuple[Displacement, ...]) -> NDArray[np.floating]:
    """Template index that each voxel shows, ``(3, z, y, x)``: mass effect first, then the head's own shape."""
    position = grid.positions_mm()
    for center, radius, push in displacements:
        offset = position - center[:, None, None, None]
        squared = (offset**2).sum(axis=0) / radius**2
        position -= offset * (push * np.exp((1 - squared) / 2))
    centered = position + (_CORNER - 0.5 - _CENTER)[:, None, None, None]
    source = np.einsum("ij,jzyx->izyx", head.linear, centered) + _CENTER[:, None, None, None]
    for amplitude, noises in head.shifts:
        for axis, noise in enumerate(noises):
            source[axis] += amplitude * evaluate_noise(noise, grid)
    return source


def mni_affine(spacing: int) -> NDArray[np.floating]:
    """Affine of the images: voxel index (x, y, z) to mm right, anterior, superior of the MNI152 origin."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (_CORNER - 0.5 + 0.5 * spacing - MNI_ORIGIN)[::-1]
    return affine


@lru_cache(maxsize=3)
def load_atlas(spacing: int) -> tuple[NDArray[np.floating], ...]:
    """Read the template, made as crisp as one subject, then averaged to the voxel size.

    Args:
        spacing: Edge of the voxels the maps will be sampled with, mm.

    Returns:
        Gray matter, white matter and brain mask as fractions, each ``(z, y, x)`` at 1 mm.

    Raises:
        UserError: nilearn is not installed.
    """
    t1, gray, white = (_read_map(name) for name in ("t1", "gm", "wm"))
    csf = np.clip(1 - gray - white, 0, None)
    # Averaging 152 subjects blurred the borders; raising the probabilities to a power undoes part of it.
    sharp = np.stack([gray, white, csf]) ** 2
    sharp /= sharp.sum(axis=0)
    brain = (t1 > 0).astype(np.float32)
    # The mask's own edge is ragged at 1 mm; 2 mm more make it a smooth surface.
    widths = 0.35 * spacing + np.array((0, 0, 2))
    return tuple(gaussian_filter(volume, width) for volume, width in zip((*sharp[:2], brain), widths, strict=True))


def _read_map(name: str) -> NDArray[np.floating]:
    package = find_spec("nilearn")  # its location only: importing it takes seconds
    if package is None or package.origin is None:
        raise UserError("the phantom's anatomy comes with nilearn: pip install nilearn")
    folder = Path(package.origin).parent / "datasets" / "data"
    path = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    try:
        return read_image(path).voxels[0].astype(np.float32) / 255
    except ImageError as error:
        raise UserError(f"{path} {error.reason}: reinstall nilearn, pip install --force-reinstall nilearn") from error


def _rotation(angles: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rotation by three angles (radians) about the axes z, y, x in turn."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (other for other in range(3) if other != axis)
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ step
    return rotation
