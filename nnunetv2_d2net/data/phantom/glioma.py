"""A glioma: one or more ragged cores, an enhancing rim around necrosis, edema that follows the white matter."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom
from skimage.graph import MCP_Geometric

from nnunetv2_d2net.data.phantom.anatomy import Anatomy, Focus
from nnunetv2_d2net.data.phantom.fields import Grid, SmoothNoise, sigmoid

NECROTIC, EDEMA, ENHANCING = 1, 2, 3
_RESISTANCE = (3.5, 1.0, 14.0)
"""Cost for edema to cross 1 mm of gray matter, white matter and CSF."""


class Glioma(NamedTuple):
    """All that was drawn about one patient's tumor; lengths in mm.

    Attributes:
        foci: The cores, the largest first.
        push: Mass effect, as a share of each radius.
        rim: Mean thickness of the enhancing rim; 0 for a tumor that does not enhance.
        gaps: Level of the noise below which the rim is interrupted.
        reach: How far edema spreads along white matter.
        severity: How watery the edema is next to the core, in (0, 1].
        noises: Fields for the outline (coarse, fine), the rim, its gaps, the edema's front and its density.
        ragged: How uneven the outline is, coarsely and finely, as a share of the radius.
        border: Width of the edema's border, about 4.4 times this in mm.
        resistance: Cost for edema to cross 1 mm of gray matter, white matter and CSF.
        fingers: Where edema spreads more easily, and how much: its logarithm's spread.
    """

    foci: tuple[Focus, ...]
    push: float
    rim: float
    gaps: float
    reach: float
    severity: float
    noises: tuple[SmoothNoise, ...]
    ragged: tuple[float, float] = (0.2, 0.1)
    border: float = 1.5
    resistance: tuple[float, float, float] = _RESISTANCE
    fingers: tuple[SmoothNoise, float] | None = None


class Tumor(NamedTuple):
    """The tumor on a grid, each ``(z, y, x)``: fractions of tissue, and labels.

    Attributes:
        necrotic: Necrosis.
        solid: Tumor tissue that takes no contrast agent up.
        enhancing: Tumor tissue that does.
        edema: Share of the remaining tissue replaced by fluid; fades toward the edema's border.
        labels: 0 background, 1 necrotic or not enhancing core, 2 edema, 3 enhancing.
    """

    necrotic: NDArray[np.floating]
    solid: NDArray[np.floating]
    enhancing: NDArray[np.floating]
    edema: NDArray[np.floating]
    labels: NDArray[np.uint8]


def draw_glioma(rng: np.random.Generator, anatomy: Anatomy, grid: Grid) -> Glioma:
    """Draw place, number, size, rim and edema of one patient's tumor in a head before it grew, on any grid."""
    seeds = grid.positions_mm()[:, _plausible_seeds(anatomy)].T
    center = seeds[rng.integers(len(seeds))]
    foci = [_draw_focus(rng, center, float(np.exp(rng.uniform(np.log(11), np.log(25)))))]
    if rng.random() < 0.25:
        gap = np.linalg.norm(seeds - center, axis=1)
        near = seeds[(gap > 1.3 * foci[0].radius + 6) & (gap < 1.3 * foci[0].radius + 40)]
        for _ in range(rng.integers(1, 3) if len(near) else 0):
            foci.append(_draw_focus(rng, near[rng.integers(len(near))], rng.uniform(5, 11)))
    rim = rng.uniform(2.5, 7.5) if rng.random() < 0.82 else 0.0
    return Glioma(
        foci=tuple(foci),
        push=rng.uniform(0.05, 0.3),
        rim=rim,
        gaps=rng.uniform(-2.2, -0.6),
        reach=rng.uniform(8, 27) if rim else rng.uniform(4, 18),
        severity=rng.uniform(0.65, 1.0),
        noises=tuple(SmoothNoise.draw(rng, length) for length in (22, 7, 9, 11, 13, 8)),
    )


def draw_varied_glioma(rng: np.random.Generator, anatomy: Anatomy, grid: Grid) -> Glioma:
    """Draw a tumor as ``draw_glioma`` does, but of more sizes, shapes and patterns, most of them large and lobed."""
    seeds = grid.positions_mm()[:, _plausible_seeds(anatomy, 8)].T
    center, radius = seeds[rng.integers(len(seeds))], float(np.exp(rng.uniform(np.log(10), np.log(30))))
    foci = [_draw_focus(rng, center, radius, 0.3)]
    gap = np.linalg.norm(seeds - center, axis=1)
    for nearest, farthest, share in ((0.7 * radius, 1.4 * radius, 0.6), (1.3 * radius + 6, 1.3 * radius + 40, 0.2)):
        near = seeds[(gap > nearest) & (gap < farthest)]
        for _ in range(rng.integers(1, 4) if len(near) and rng.random() < share else 0):
            foci.append(_draw_focus(rng, near[rng.integers(len(near))], rng.uniform(4, 0.8 * radius), 0.3))
    pattern = rng.random()
    rim = rng.uniform(2, 9) if pattern < 0.72 else rng.uniform(10, 30) if pattern < 0.84 else 0.0
    return Glioma(
        foci=tuple(foci),
        push=rng.uniform(0.05, 0.45),
        rim=rim,
        gaps=rng.uniform(-3, 0.3),
        reach=rng.uniform(6, 29) if rim else rng.uniform(4, 22),
        severity=rng.uniform(0.7, 1.0),
        noises=tuple(SmoothNoise.draw(rng, length) for length in (22, 8, 9, 11, 13, 8)),
        ragged=(rng.uniform(0.15, 0.35), rng.uniform(0.05, 0.2)),
        border=rng.uniform(1.5, 4),
        resistance=(rng.uniform(3, 8), 1.0, 14.0),
        fingers=(SmoothNoise.draw(rng, 9), rng.uniform(0, 0.6)),
    )


def _draw_focus(rng: np.random.Generator, center: NDArray[np.floating], radius: float, spread: float = 0.2) -> Focus:
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    stretch = np.exp(rng.normal(0, spread, 3))
    shape = (axes * (stretch / np.cbrt(stretch.prod()))) @ axes.T
    return Focus(center, radius, shape.astype(np.float32))


def _plausible_seeds(anatomy: Anatomy, midline: float = 12) -> NDArray[np.bool_]:
    """White matter of the hemispheres; hindbrain and midline are left out."""
    z, y, x = anatomy.mni_mm
    cerebrum = (z > -5) | ((z > -30) & (y > -35) & (np.abs(x) > 25))
    return (anatomy.tissues[1] > 0.6) & cerebrum & (np.abs(x) > midline)


def edema_distance(glioma: Glioma, anatomy: Anatomy, grid: Grid) -> NDArray[np.floating]:
    """Find the least resistance between the core and every voxel; a coarse grid keeps the search short.

    Returns:
        ``(z, y, x)``, in mm of white matter; 0 in the core, infinite outside the brain.
    """
    cost = np.einsum("k,kzyx->zyx", np.array(glioma.resistance), anatomy.tissues) * grid.spacing
    if glioma.fingers:
        noise, strength = glioma.fingers
        cost *= np.exp(strength * noise.on(grid))
    cost[~anatomy.brain] = -1  # the search never enters negative costs
    depth = np.where(anatomy.brain, _core_depth(glioma, anatomy, grid), -np.inf)
    core = depth > min(0.0, depth.max() - 0.1)  # where it is too small for any voxel, or in CSF: what comes nearest
    distance, _ = MCP_Geometric(cost).find_costs(np.argwhere(core))
    return np.where(core, 0, distance).astype(np.float32)


def grow_tumor(glioma: Glioma, anatomy: Anatomy, grid: Grid, distance: NDArray[np.floating]) -> Tumor:
    """Turn the drawn tumor into tissue fractions and labels.

    Args:
        glioma: What was drawn.
        anatomy: The head with the mass effect, on ``grid``.
        grid: Output grid.
        distance: From ``edema_distance``, on a grid at least as coarse.
    """
    _, _, rim, gaps, front, density = (noise.on(grid) for noise in glioma.noises)
    depth = _core_depth(glioma, anatomy, grid)
    softness = max(0.35 * grid.spacing, 0.5)
    core = sigmoid(depth / softness) * anatomy.brain
    thickness = glioma.rim * np.exp(0.4 * rim)
    inside = sigmoid((depth - thickness) / softness)
    uptake = sigmoid((gaps - glioma.gaps) / 0.25) if glioma.rim else np.zeros_like(core)

    magnification = np.array(grid.shape) / distance.shape
    far = np.asarray(zoom(np.minimum(distance, 200), magnification, order=1, grid_mode=True, mode="nearest"))
    reach = glioma.reach * np.exp(0.3 * front)
    gray, _, csf = anatomy.tissues
    level = reach - far - 3 * gray - 15 * csf
    outside = (1 - core) * anatomy.brain
    spread = sigmoid(level / glioma.border) * outside
    fluid = glioma.severity * np.clip(0.6 + level / 11 + 0.22 * density, 0.35, 1)

    shell = core * (1 - inside)
    enhancing = shell * uptake
    return Tumor(
        necrotic=core * inside if glioma.rim else np.zeros_like(core),
        solid=shell * (1 - uptake) if glioma.rim else core,
        enhancing=enhancing,
        edema=spread * fluid * (1 - csf),
        labels=_label(core, enhancing, spread, anatomy.brain),
    )


def _core_depth(glioma: Glioma, anatomy: Anatomy, grid: Grid) -> NDArray[np.floating]:
    """Depth below the core's surface, about in mm, negative outside, ``(z, y, x)``."""
    coarse, fine = (noise.on(grid) for noise in glioma.noises[:2])
    position = grid.positions_mm()
    depth = np.full(grid.shape, -np.inf, dtype=np.float32)
    for focus in glioma.foci:
        offset = np.einsum("ij,jzyx->izyx", focus.shape, position - focus.center[:, None, None, None])
        ragged = focus.radius * (1 + glioma.ragged[0] * coarse + glioma.ragged[1] * fine)
        depth = np.maximum(depth, ragged - np.sqrt((offset**2).sum(axis=0)))
    return depth - 5 * anatomy.tissues[2]


def _label(
    core: NDArray[np.floating], enhancing: NDArray[np.floating], spread: NDArray[np.floating], brain: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    labels = np.zeros(core.shape, dtype=np.uint8)
    labels[core + spread > 0.5] = EDEMA
    labels[core > 0.5] = NECROTIC
    labels[(core > 0.5) & (enhancing > 0.5 * core)] = ENHANCING
    return labels * brain
