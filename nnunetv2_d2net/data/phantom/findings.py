"""What is bright in a head without being glioma, none of it labeled: vessels, sinuses, membranes, other lesions."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nnunetv2_d2net.data.phantom.anatomy import Anatomy
from nnunetv2_d2net.data.phantom.fields import Grid, SmoothNoise, sigmoid
from nnunetv2_d2net.data.phantom.levels import draw_tissue

Array = NDArray[np.floating]

SHARES = {"hyperintensities": 0.5, "caps": 0.5, "plaques": 0.15, "infarct": 0.12, "metastases": 0.1}
"""In how many cases there is such a finding."""

# Ends of the great sinuses, mm from MNI's origin, (z, y, x): straight, and both transverse; and their radius in mm.
_SINUSES = (
    ((4, -42, 0), (-12, -92, 0), 3.0),
    ((-14, -92, 4), (-28, -66, 56), 4.0),
    ((-14, -92, -4), (-28, -66, -56), 4.0),
)


class Layer(NamedTuple):
    """Something that replaces a fraction of what is there, ``(z, y, x)``, by tissue of a level a sequence, ``(4,)``."""

    fraction: Array
    levels: Array


def draw_findings(
    rng: np.random.Generator, anatomy: Anatomy, depth: Array, grid: Grid, *, often: bool
) -> Iterator[Layer]:
    """Draw other lesions, in the order in which they cover each other.

    Args:
        rng: The patient's.
        anatomy: The head.
        depth: Below the brain's surface, mm.
        grid: Of both.
        often: Each kind of finding is three times as frequent as ``SHARES`` says.
    """
    makers = (_hyperintensities, _caps, _plaques, _infarct, _metastases)
    for maker, share in zip(makers, SHARES.values(), strict=True):
        own = np.random.default_rng(rng.integers(2**63))  # what a finding draws depends on no other
        if own.random() < share * (3 if often else 1):
            yield from maker(own, anatomy, grid)
    yield from _vessels(rng, anatomy, depth, grid)


def _hyperintensities(rng: np.random.Generator, anatomy: Anatomy, grid: Grid) -> Iterator[Layer]:
    """White-matter hyperintensities: spots in the deep white matter."""
    z, _, x = anatomy.mni_mm
    deep = np.exp(-(((z - 22) / 14) ** 2)) * (np.abs(x) > 14)
    spots = sigmoid((SmoothNoise.draw(rng, rng.uniform(4, 8)).on(grid) - rng.uniform(1.2, 2.2)) / 0.12)
    yield Layer(rng.uniform(0.4, 0.9) * spots * deep * anatomy.tissues[1], draw_tissue(rng, "plaque")[0])


def _caps(rng: np.random.Generator, anatomy: Anatomy, grid: Grid) -> Iterator[Layer]:
    """Bright white matter along the ventricles."""
    z, y, x = anatomy.mni_mm
    ventricles = (np.abs(x) < 36) & (y > -60) & (y < 40) & (z > -8) & (z < 34) & (anatomy.tissues[2] > 0.5)
    near = gaussian_filter(ventricles.astype(np.float32), rng.uniform(2, 4) / grid.spacing)
    share = np.clip(near * rng.uniform(0.8, 2.5) * (1 + 0.4 * SmoothNoise.draw(rng, 12).on(grid)), 0, 0.9)
    yield Layer(share * anatomy.tissues[1], draw_tissue(rng, "plaque")[0])


def _plaques(rng: np.random.Generator, anatomy: Anatomy, grid: Grid) -> Iterator[Layer]:
    """Ovoid lesions as in multiple sclerosis: in white matter, most of them near the ventricles."""
    _, y, x = anatomy.mni_mm
    weight = (anatomy.tissues[1] > 0.7) * np.exp(-np.abs(np.abs(x) - 20) / 12) * (np.abs(y + 15) < 70)
    balls = [
        (ball, np.exp(rng.normal(np.log(3), 0.4))) for ball in _places(rng, weight, int(rng.integers(1, 30)), grid)
    ]
    yield Layer(_balls(rng, balls, grid, 0.8) * anatomy.brain, draw_tissue(rng, "plaque")[0])


def _infarct(rng: np.random.Generator, anatomy: Anatomy, grid: Grid) -> Iterator[Layer]:
    """A stroke of cortex and white matter without mass effect, in half of the cases old: a cavity inside gliosis."""
    places = _places(rng, anatomy.tissues[0] > 0.6, 1, grid)
    radius = rng.uniform(6, 20)
    tissue = anatomy.tissues[:2].sum(axis=0)
    yield Layer(_balls(rng, [(places[0], radius)], grid, 0.8) * tissue, draw_tissue(rng, "infarct")[0])
    if rng.random() < 0.5:
        cavity = np.array((rng.uniform(0.05, 0.5), 0.3, 0.3, rng.uniform(1.8, 3.2)))
        yield Layer(_balls(rng, [(places[0], radius * rng.uniform(0.3, 0.7))], grid, 0.8) * tissue, cavity)


def _metastases(rng: np.random.Generator, anatomy: Anatomy, grid: Grid) -> Iterator[Layer]:
    """Small spots that take agent up."""
    places = _places(rng, anatomy.tissues[0] * anatomy.tissues[1] > 0.1, int(rng.integers(1, 5)), grid)
    balls = [(place, rng.uniform(1.5, 4)) for place in places]
    yield Layer(_balls(rng, balls, grid, 0.6) * anatomy.brain, draw_tissue(rng, "metastasis")[0])


def _places(rng: np.random.Generator, weight: NDArray, n: int, grid: Grid) -> Array:
    """Draw positions where a weight is large, mm, ``(n, 3)``; about the same on every grid."""
    total = np.cumsum(weight.ravel().astype(np.float64))
    index = np.searchsorted(total, rng.random(n) * total[-1])
    return (np.stack(np.unravel_index(index, weight.shape), axis=1) + 0.5).astype(np.float32) * grid.spacing


def _balls(rng: np.random.Generator, balls: list[tuple[Array, float]], grid: Grid, softness: float) -> Array:
    """Uneven balls of the given centers and radii, mm, with soft borders; ``(z, y, x)`` in 0 to 1."""
    uneven = np.exp(0.25 * SmoothNoise.draw(rng, 10).on(grid))
    total = np.zeros(grid.shape, dtype=np.float32)
    softness = max(softness, 0.35 * grid.spacing)
    for center, radius in balls:
        stretch = np.exp(rng.normal(0, 0.25, 3)).astype(np.float32)
        low = np.floor((center - 2.5 * radius - 4) / grid.spacing).astype(int).clip(0)
        high = np.ceil((center + 2.5 * radius + 4) / grid.spacing).astype(int)
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = [(grid.axis_mm(axis)[window[axis]] - center[axis]) / stretch[axis] for axis in range(3)]
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        inside = sigmoid((radius * uneven[window] - np.sqrt(z**2 + y**2 + x**2)) / softness)
        total[window] = np.maximum(total[window], inside)
    return total


def _vessels(rng: np.random.Generator, anatomy: Anatomy, depth: Array, grid: Grid) -> Iterator[Layer]:
    """Vessels of two calibers, choroid plexus, great sinuses, and membranes along the surface that take agent up."""
    gray, _, csf = anatomy.tissues
    z, y, x = anatomy.mni_mm
    place = np.clip(0.3 + 2 * csf + 0.5 * gray, 0, 1)
    blood = np.zeros(grid.shape, dtype=np.float32)
    for length, least, most in ((9, 0.6, 1.5), (17, 1.0, 2.6)):
        a, b = (SmoothNoise.draw(rng, length).on(grid) for _ in range(2))  # a vessel runs where both vanish
        radius = rng.uniform(least, most)
        seen = np.hypot(radius, 0.45 * grid.spacing)  # a voxel sees a thin vessel wider and fainter
        blood = np.maximum(blood, np.exp(-(a**2 + b**2) / 2 * (length / seen) ** 2) * (radius / seen) ** 2 * place)
    ventricles = (np.abs(x) < 36) & (y > -48) & (y < 8) & (z > -8) & (z < 28)
    plexus = rng.uniform(0.2, 0.7) * sigmoid((SmoothNoise.draw(rng, 7).on(grid) - 0.7) / 0.2) * ventricles * csf
    yield Layer(np.maximum(blood, plexus), draw_tissue(rng, "blood")[0])
    yield Layer(_sinuses(rng, anatomy, depth) * (depth > -6), draw_tissue(rng, "blood")[0])
    patches = sigmoid((SmoothNoise.draw(rng, rng.uniform(8, 20)).on(grid) - rng.uniform(0.8, 2.8)) / 0.3)
    thickness = rng.uniform(0.6, 1.6)
    yield Layer(patches * np.exp(-(((depth - 0.5) / thickness) ** 2) / 2), draw_tissue(rng, "dura")[0])


def _sinuses(rng: np.random.Generator, anatomy: Anatomy, depth: Array) -> Array:
    """The superior sagittal sinus along the midline's upper surface, the straight and the transverse ones."""
    position = anatomy.mni_mm
    z, y, x = position
    edge = (depth - rng.uniform(-2, 2)) / rng.uniform(2, 3.5)
    upper = sigmoid((z + 10 - 30 * (y > 0)) / 3)
    total = np.exp(-((x / rng.uniform(2, 4)) ** 2 + edge**2) / 2) * upper
    for start, end, radius in _SINUSES:
        a, along = np.array(start, np.float32), np.array(end, np.float32) - np.array(start, np.float32)
        offset = position - a[:, None, None, None]
        share = np.clip(np.einsum("i,izyx->zyx", along / (along @ along), offset), 0, 1)
        away = ((offset - along[:, None, None, None] * share) ** 2).sum(axis=0)
        total = np.maximum(total, np.exp(-away / 2 / (0.7 * radius) ** 2) * rng.uniform(0, 1))
    return total
