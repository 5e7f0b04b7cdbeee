"""Brain anatomy: the MNI152 tissue maps, deformed anew for every case.

The maps are the ICBM 2009a nonlinear symmetric templates that nilearn installs with itself (Fonov, Evans, Botteron,
Almli, McKinstry, Collins, NeuroImage 54, 2011, and the Brain Development Cooperative Group). CSF is what the brain
mask holds beside gray and white matter.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import ImageError, read_image
from nnunetv2_d2net.data.phantom.fields import FIELD_OF_VIEW, Grid, SmoothNoise

# Template index (1 mm), axes (z, y, x): of the corner of the field of view, which cuts the lowest brain stem off, of
# the MNI152 origin, the anterior commissure, and of the point that heads are turned and scaled about.
_CORNER = np.array((12, 24, 23), dtype=np.float32)
_MNI_ORIGIN = np.array((72, 134, 98), dtype=np.float32)
_CENTER = np.array((84, 117, 98), dtype=np.float32)

_FOLD_STRENGTH = (0.5, 0.5, 0.9)


class Head(NamedTuple):
    """What makes one head differ from the template: amplitudes of the shifts in mm, one field for each axis."""

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


class Focus(NamedTuple):
    """One core of a tumor: center and mean radius in mm, and the matrix that maps offsets to an ellipsoid's radius."""

    center: NDArray[np.floating]
    radius: float
    shape: NDArray[np.floating]


def draw_head(rng: np.random.Generator) -> Head:
    """Draw rotation, scale, flip, smooth deformation, cortical folding and atrophy of one head."""
    angles = rng.normal(0, np.deg2rad(4), 3)
    scale = rng.normal(1.055, 0.02) * np.exp(rng.normal(0, 0.02, 3))
    scale[2] *= rng.choice((-1, 1))
    wide, fine, folds = (tuple(SmoothNoise.draw(rng, length) for _ in range(3)) for length in (45, 14, 7))
    # about z, y and x in turn; the sign keeps the voxels that a seed has always given
    rotation = Rotation.from_euler("XYZ", angles * (1, -1, 1)).as_matrix()
    return Head((rotation * scale).astype(np.float32), ((3.5, wide), (1.3, fine)), folds, float(rng.normal(0.1, 0.45)))


def deform_anatomy(head: Head, grid: Grid, foci: Sequence[Focus] = (), push: float = 0.0) -> Anatomy:
    """Sample the template on a grid as one head sees it, with the mass effect of its tumor.

    Args:
        head: The drawn head.
        grid: Output grid; tissue fractions are averages over its voxels.
        foci: What pushes tissue away.
        push: How far, as a share of each focus's radius.

    Raises:
        UserError: nilearn is not installed.
    """
    position = _source_positions(head, grid, foci, push)
    maps = _load_atlas(grid.spacing)
    gray, white, brain = (map_coordinates(tissue, position, order=1, mode="constant") for tissue in maps)
    mask = brain > 0.55
    logits = np.log(np.stack([gray, white, np.clip(1 - gray - white, 0, None)]) + 1e-3)
    logits[2] += head.atrophy
    for index, (strength, fold) in enumerate(zip(_FOLD_STRENGTH, head.folds, strict=True)):
        logits[index] += strength * fold.on(grid)
    fractions = np.exp(logits)
    fractions *= mask / fractions.sum(axis=0)
    return Anatomy(fractions, mask, position - _MNI_ORIGIN[:, None, None, None])


def _source_positions(head: Head, grid: Grid, foci: Sequence[Focus], push: float) -> NDArray[np.floating]:
    """Template index that each voxel shows, ``(3, z, y, x)``: mass effect first, then the head's own shape."""
    position = grid.positions_mm()
    for focus in foci:
        offset = position - focus.center[:, None, None, None]
        squared = (offset**2).sum(axis=0) / focus.radius**2
        position -= offset * (push * np.exp((1 - squared) / 2))
    centered = position + (_CORNER - 0.5 - _CENTER)[:, None, None, None]
    source = np.einsum("ij,jzyx->izyx", head.linear, centered) + _CENTER[:, None, None, None]
    for amplitude, noises in head.shifts:
        for axis, noise in enumerate(noises):
            source[axis] += amplitude * noise.on(grid)
    return source


def mni_affine(spacing: int) -> NDArray[np.floating]:
    """Affine of the images, which lie as BraTS's do: voxel index (to the patient's left, back and top) to MNI's mm."""
    z, y, x = _CORNER - 0.5 - _MNI_ORIGIN + (0, *FIELD_OF_VIEW[1:])
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[:3, 3] = np.array((x, y, z)) + affine.diagonal()[:3] / 2  # half a voxel inside the corner
    return affine


@lru_cache(maxsize=3)
def _load_atlas(spacing: int) -> tuple[NDArray[np.floating], ...]:
    """Read gray matter, white matter and brain mask, fractions at 1 mm, smoothed for voxels of another size."""
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
    path = nilearn_folder() / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    try:
        return read_image(path).voxels[0].astype(np.float32) / 255
    except ImageError as error:
        raise UserError(f"{path} {error.reason}: reinstall nilearn, pip install --force-reinstall nilearn") from error


def nilearn_folder() -> Path:
    """Return where nilearn is installed.

    Raises:
        UserError: It is not.
    """
    package = find_spec("nilearn")  # its location only: importing it takes seconds
    if package is None or package.origin is None:
        raise UserError("the phantom's anatomy comes with nilearn: pip install nilearn")
    return Path(package.origin).parent
