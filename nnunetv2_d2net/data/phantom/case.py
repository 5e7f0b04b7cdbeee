"""One case: a head, its tumor, harmless bright spots, and the four images a scanner makes of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from nnunetv2_d2net.data.phantom import mri
from nnunetv2_d2net.data.phantom.anatomy import Anatomy, deform_anatomy, draw_head
from nnunetv2_d2net.data.phantom.fields import (
    SPACINGS,
    Grid,
    SmoothNoise,
    draw_noise,
    evaluate_noise,
    make_grid,
    sigmoid,
)
from nnunetv2_d2net.data.phantom.glioma import Glioma, Tumor, draw_glioma, edema_distance, grow_tumor

_VESSEL_RADIUS = 1.1
_VESSEL_LENGTH = 13
_COARSE = make_grid(SPACINGS["small"])


class PhantomCase(NamedTuple):
    """One simulated patient.

    Attributes:
        images: ``(4, z, y, x)`` in the order of ``mri.MODALITIES``: whole numbers from 1 inside the brain, 0 outside.
        labels: ``(z, y, x)``: 0 background, 1 necrotic or not enhancing core, 2 edema, 3 enhancing tumor.
        spacing: Voxel edges (z, y, x), mm.
        glioma: What was drawn about the tumor.
    """

    images: NDArray[np.floating]
    labels: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    glioma: Glioma


class Confounders(NamedTuple):
    """Harmless findings that look like tumor to one voxel.

    Attributes:
        vessels: Two fields; a vessel runs where both vanish.
        choroid: Field of the choroid plexus.
        spots: Field of white-matter hyperintensities.
        spot_level: Level of that field above which a spot lies; high values leave none.
    """

    vessels: tuple[SmoothNoise, SmoothNoise]
    choroid: SmoothNoise
    spots: SmoothNoise
    spot_level: float


class Scanner(NamedTuple):
    """One examination: tissue values, protocol, texture, coil shading, and per image slice blur and noise level."""

    tissues: tuple[mri.Tissue, ...]
    sequences: tuple[mri.Sequence, ...]
    textures: tuple[SmoothNoise, ...]
    shading: tuple[SmoothNoise, ...]
    blurs: NDArray[np.floating]
    noise_levels: NDArray[np.floating]
    gains: NDArray[np.floating]


def simulate_case(size: str, seed: np.random.SeedSequence) -> PhantomCase:
    """Simulate one patient; the same size and seed give the same voxels.

    Args:
        size: A key of ``SPACINGS``. The patient stays the same over sizes, only voxels and noise change.
        seed: The patient.

    Raises:
        UserError: nilearn is not installed.
    """
    rng = np.random.default_rng(seed)
    grid = make_grid(SPACINGS[size])
    head = draw_head(rng)
    glioma = draw_glioma(rng, deform_anatomy(head, _COARSE), _COARSE)
    confounders, scanner = _draw_confounders(rng), _draw_scanner(rng)
    push = glioma.displacements()
    distance = edema_distance(glioma, deform_anatomy(head, _COARSE, push), _COARSE)
    anatomy = deform_anatomy(head, grid, push)
    tumor = grow_tumor(glioma, anatomy, grid, distance)
    noise = rng.standard_normal((len(mri.MODALITIES), 2, int(anatomy.brain.sum())), dtype=np.float32)
    fractions = _mix_tissues(anatomy, tumor, confounders, grid)[:, anatomy.brain]
    images = _scan(fractions, anatomy.brain, scanner, grid, noise)
    return PhantomCase(images, tumor.labels, (grid.spacing, grid.spacing, grid.spacing), glioma)


def _draw_confounders(rng: np.random.Generator) -> Confounders:
    first, second = draw_noise(rng, _VESSEL_LENGTH), draw_noise(rng, _VESSEL_LENGTH)
    level = rng.uniform(1.3, 2.2) if rng.random() < 0.6 else 9.0
    return Confounders((first, second), draw_noise(rng, 7), draw_noise(rng, 6), level)


def _draw_scanner(rng: np.random.Generator) -> Scanner:
    n = len(mri.MODALITIES)
    return Scanner(
        tissues=mri.draw_tissues(rng),
        sequences=mri.draw_sequences(rng),
        textures=tuple(draw_noise(rng, length) for length in (9, 4, 8, 4)),
        shading=tuple(draw_noise(rng, 70) for _ in range(n + 1)),
        blurs=rng.uniform(0.3, 1.1, n),
        noise_levels=1 / rng.uniform(18, 36, n),
        gains=np.exp(rng.uniform(np.log(300), np.log(1200), n)),
    )


def _mix_tissues(anatomy: Anatomy, tumor: Tumor, confounders: Confounders, grid: Grid) -> NDArray[np.floating]:
    """Fractions of every tissue of ``mri.TISSUES``, ``(tissue, z, y, x)``, summing to 1 inside the brain."""
    blood, spots = _confounding_fractions(anatomy, confounders, grid)
    core = tumor.necrotic + tumor.solid + tumor.enhancing
    edema = np.maximum(tumor.edema, spots * (1 - core))
    healthy = np.clip(1 - core - edema, 0, None)
    blood = blood * healthy
    gray, white, csf = anatomy.tissues * (healthy - blood)
    return np.stack([gray, white, csf, edema, tumor.necrotic, tumor.solid, tumor.enhancing, blood])


def _confounding_fractions(
    anatomy: Anatomy, confounders: Confounders, grid: Grid
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Fraction of blood (pial vessels, choroid plexus) and of hyperintense white matter, each ``(z, y, x)``."""
    gray, white, csf = anatomy.tissues
    z, y, x = anatomy.mni_mm
    a, b = (evaluate_noise(noise, grid) for noise in confounders.vessels)
    seen_radius = np.hypot(_VESSEL_RADIUS, 0.45 * grid.spacing)  # a voxel sees a thin vessel wider and fainter
    tube = np.exp(-(a**2 + b**2) / 2 * (_VESSEL_LENGTH / seen_radius) ** 2)
    vessels = tube * (_VESSEL_RADIUS / seen_radius) ** 2 * np.clip(0.1 + 2 * csf + 0.5 * gray, 0, 1)
    ventricles = (np.abs(x) < 36) & (y > -48) & (y < 8) & (z > -8) & (z < 28)
    choroid = 0.4 * sigmoid((evaluate_noise(confounders.choroid, grid) - 0.7) / 0.2) * ventricles * csf
    deep = np.exp(-(((z - 22) / 14) ** 2)) * (np.abs(x) > 14)
    spots = sigmoid((evaluate_noise(confounders.spots, grid) - confounders.spot_level) / 0.12) * deep
    return np.maximum(vessels, choroid), 0.75 * spots * white


def _scan(
    fractions: NDArray[np.floating], brain: NDArray[np.bool_], scanner: Scanner, grid: Grid, noise: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Images of the mixed tissues.

    Args:
        fractions: ``(tissue, voxel)``, brain voxels only.
        brain: ``(z, y, x)``.
        scanner: The drawn examination.
        grid: Output grid.
        noise: Standard normal numbers, ``(modality, 2, voxel)``.

    Returns:
        ``(modality, z, y, x)``, whole numbers as a scanner stores them, exactly 0 outside the brain.
    """
    long_relaxation, short_relaxation, long_uptake, short_uptake = (
        evaluate_noise(texture, grid)[brain] for texture in scanner.textures
    )
    textures = (0.7 * long_relaxation + 0.7 * short_relaxation, 0.8 * long_uptake + 0.6 * short_uptake)
    shared, *own = (evaluate_noise(shading, grid)[brain] for shading in scanner.shading)
    white = fractions[1] > 0.8
    images = np.zeros((len(own), *brain.shape), dtype=np.float32)
    for index, sequence in enumerate(scanner.sequences):
        signal = mri.acquire(fractions, scanner.tissues, sequence, textures)
        reference = signal[white].mean()
        signal = _blur_slices(signal, brain, scanner.blurs[index] / grid.spacing)
        signal *= np.exp(0.08 * shared + 0.05 * own[index])
        signal = mri.add_rician_noise(signal, reference * scanner.noise_levels[index], noise[index])
        images[index][brain] = np.maximum(np.rint(signal * (scanner.gains[index] / reference)), 1)
    return images


def _blur_slices(signal: NDArray[np.floating], brain: NDArray[np.bool_], width: float) -> NDArray[np.floating]:
    """Average along z as a slice profile does, over brain only: outside there is nothing to average with."""
    volume = np.zeros(brain.shape, dtype=np.float32)
    volume[brain] = signal
    weight = gaussian_filter1d(brain.astype(np.float32), width, axis=0)
    return gaussian_filter1d(volume, width, axis=0)[brain] / weight[brain]
