"""What an examination does to an image: thick slices, correlated noise, shading, a mask that errs, a cut field."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from nnunetv2_d2net.data.phantom.fields import Grid, SmoothNoise
from nnunetv2_d2net.data.phantom.mri import add_rician_noise

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

SLICES = (3.0, 6.0)
"""Thickness of thick slices, mm."""

THICK = (0.75, 0.55, 0.4, 0.65)
"""Share of the images that have thick slices, in the order of ``mri.MODALITIES``."""

CUT = 0.15
"""Share of the cases in which a part of the head was not acquired, in one sequence or in all."""

_GAUSSIAN = 2.355  # full width at half maximum over standard deviation


class Examination(NamedTuple):
    """How one sequence is acquired.

    Attributes:
        blur: Standard deviation of the slice profile along z, y, x, mm.
        grain: That of what makes neighboring noise alike, mm.
        noise: Standard deviation over the signal of white matter.
        shading: Spread of the logarithm of the coil's sensitivity.
        gain: Value of white matter.
    """

    blur: Array
    grain: Array
    noise: float
    shading: float
    gain: float


def draw_examination(rng: np.random.Generator, thick: float) -> Examination:
    """Draw one sequence's blur, noise, shading and gain; ``thick`` is the probability of thick slices."""
    blur, grain = rng.uniform(0.3, 0.9, 3), rng.uniform(0.4, 1.3, 3)
    axis, thickness = rng.integers(3), rng.uniform(*SLICES)
    if rng.random() < thick:
        blur[axis] = thickness / _GAUSSIAN
        grain[axis] = max(grain[axis], 0.35 * thickness)
    noise = np.exp(rng.uniform(np.log(0.015), np.log(0.07)))
    return Examination(blur, grain, noise, rng.uniform(0.02, 0.13), np.exp(rng.uniform(np.log(200), np.log(1200))))


def surface_depth(brain: Mask, spacing: int) -> Array:
    """Depth of every voxel below the mask's surface, mm, negative outside."""
    inside, outside = (np.asarray(distance_transform_edt(mask)) for mask in (brain, ~brain))
    depth = inside - outside
    return ((depth - np.sign(depth) / 2) * spacing).astype(np.float32)


def strip_skull(rng: np.random.Generator, depth: Array, grid: Grid) -> Mask:
    """Draw the brain mask of a program: too wide or too narrow as a whole, and here and there by millimeters."""
    wide, narrow = (SmoothNoise.draw(rng, length).on(grid) for length in (22, 22))
    errors = rng.uniform(0, 5, 2) * (rng.random(2) < 0.7)
    error = errors[0] * np.clip(wide - 0.8, 0, 1.2) - errors[1] * np.clip(narrow - 0.8, 0, 1.2)
    return depth + error + rng.normal(0, 0.8) > 0


def cut_field(rng: np.random.Generator, brain: Mask, labels: NDArray[np.uint8]) -> tuple[Mask, Mask]:
    """Draw what was acquired: ``(4, z, y, x)`` for the images, ``(z, y, x)`` for the labels; mostly everything.

    At least half of the tumor stays.
    """
    seen, labeled = np.ones((4, *brain.shape), dtype=bool), np.ones(brain.shape, dtype=bool)
    wanted, single, axis, upper = rng.random() < CUT, rng.random() < 0.3, int(rng.integers(3)), rng.random() < 0.5
    share, which = rng.uniform(0.08, 0.45), int(rng.integers(4))
    if wanted:
        inside = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
        length = round(share * len(inside))
        slices = slice(inside[-1] - length + 1, None) if upper else slice(0, inside[0] + length)
        window = (slice(None),) * axis + (slices,)
        if 2 * np.count_nonzero(labels[window]) <= np.count_nonzero(labels):
            (seen[which] if single else labeled)[window] = False
    return seen & labeled, labeled


def acquire_image(
    signal: Array, domain: Mask, examination: Examination, sensitivity: Array, noise: Array, spacing: int
) -> Array:
    """Make an image of a signal.

    Args:
        signal: ``(z, y, x)``, 1 is white matter.
        domain: Where there is signal; nothing outside takes part in the blur.
        examination: How it is acquired.
        sensitivity: Two fields, shared by the sequences and this one's own, ``(2, z, y, x)``.
        noise: Standard normal, ``(2, z, y, x)``.
        spacing: Edge of the voxels, mm.
    """
    weight = _blur(domain.astype(np.float32), examination.blur / spacing)
    image = _blur(signal * domain, examination.blur / spacing) / np.maximum(weight, 1e-3)
    image *= np.exp(examination.shading * (sensitivity[0] + 0.7 * sensitivity[1]))
    grains = [_blur(part, examination.grain / spacing) for part in noise]
    grains = np.stack([part / part.std() for part in grains])
    return add_rician_noise(image, examination.noise, grains) * examination.gain


def _blur(volume: Array, widths: Array) -> Array:
    for axis, width in enumerate(widths):
        volume = gaussian_filter1d(volume, width, axis=axis, mode="nearest")
    return volume
