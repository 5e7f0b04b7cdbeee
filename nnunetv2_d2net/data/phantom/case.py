"""One case: a head, its tumor, harmless bright spots, and the four images a scanner makes of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from nnunetv2_d2net.data.phantom import mri
from nnunetv2_d2net.data.phantom.anatomy import Anatomy, deform_anatomy, draw_head
from nnunetv2_d2net.data.phantom.fields import SPACINGS, Grid, SmoothNoise, sigmoid
from nnunetv2_d2net.data.phantom.glioma import Tumor, draw_glioma, edema_distance, grow_tumor

_VESSEL_RADIUS = 1.1
_VESSEL_LENGTH = 13


class PhantomCase(NamedTuple):
    """One simulated patient; as in BraTS's files, the axes (z, y, x) run to the top, the back and the patient's left.

    Attributes:
        images: ``(4, z, y, x)`` in the order of ``mri.MODALITIES``: whole numbers from 1 inside the brain, 0 outside.
        labels: ``(z, y, x)``: 0 background, 1 necrotic or not enhancing core, 2 edema, 3 enhancing tumor.
    """

    images: NDArray[np.floating]
    labels: NDArray[np.uint8]


def simulate_case(size: str, seed: np.random.SeedSequence) -> PhantomCase:
    """Simulate one patient; the same size and seed give the same voxels.

    Args:
        size: A key of ``SPACINGS``. The patient stays the same over sizes, only voxels and noise change.
        seed: The patient.

    Raises:
        UserError: nilearn is not installed.
    """
    rng = np.random.default_rng(seed)
    grid, coarse = Grid(SPACINGS[size]), Grid(SPACINGS["small"])
    head = draw_head(rng)
    glioma = draw_glioma(rng, deform_anatomy(head, coarse), coarse)
    distance = edema_distance(glioma, deform_anatomy(head, coarse, glioma.foci, glioma.push), coarse)
    anatomy = deform_anatomy(head, grid, glioma.foci, glioma.push)
    tumor = grow_tumor(glioma, anatomy, grid, distance)
    fractions = _mix_tissues(anatomy, tumor, *_draw_confounders(rng, anatomy, grid))
    images = _scan(rng, fractions[:, anatomy.brain], anatomy.brain, grid)
    # The template lies RAS; BraTS, for which models are wanted, LPS, and nnU-Net turns nothing.
    turned = np.s_[..., ::-1, ::-1]
    return PhantomCase(np.ascontiguousarray(images[turned]), np.ascontiguousarray(tumor.labels[turned]))


def _draw_confounders(
    rng: np.random.Generator, anatomy: Anatomy, grid: Grid
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Draw harmless findings that look like tumor to one voxel.

    Returns:
        Fraction of blood (pial vessels, choroid plexus) and of hyperintense white matter, each ``(z, y, x)``.
    """
    a, b = (SmoothNoise.draw(rng, _VESSEL_LENGTH).on(grid) for _ in range(2))  # a vessel runs where both vanish
    level = rng.uniform(1.3, 2.2) if rng.random() < 0.6 else 9.0  # of the field of spots; the high one leaves none
    plexus, spot = (SmoothNoise.draw(rng, length).on(grid) for length in (7, 6))

    gray, white, csf = anatomy.tissues
    z, y, x = anatomy.mni_mm
    seen_radius = np.hypot(_VESSEL_RADIUS, 0.45 * grid.spacing)  # a voxel sees a thin vessel wider and fainter
    tube = np.exp(-(a**2 + b**2) / 2 * (_VESSEL_LENGTH / seen_radius) ** 2)
    vessels = tube * (_VESSEL_RADIUS / seen_radius) ** 2 * np.clip(0.1 + 2 * csf + 0.5 * gray, 0, 1)
    ventricles = (np.abs(x) < 36) & (y > -48) & (y < 8) & (z > -8) & (z < 28)
    choroid = 0.4 * sigmoid((plexus - 0.7) / 0.2) * ventricles * csf
    deep = np.exp(-(((z - 22) / 14) ** 2)) * (np.abs(x) > 14)
    spots = sigmoid((spot - level) / 0.12) * deep
    return np.maximum(vessels, choroid), 0.75 * spots * white


def _mix_tissues(
    anatomy: Anatomy, tumor: Tumor, blood: NDArray[np.floating], spots: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Fractions of every tissue of ``mri.TISSUES``, ``(tissue, z, y, x)``, summing to 1 inside the brain."""
    core = tumor.necrotic + tumor.solid + tumor.enhancing
    edema = np.maximum(tumor.edema, spots * (1 - core))
    healthy = np.clip(1 - core - edema, 0, None)
    blood = blood * healthy
    gray, white, csf = anatomy.tissues * (healthy - blood)
    return np.stack([gray, white, csf, edema, tumor.necrotic, tumor.solid, tumor.enhancing, blood])


def _scan(
    rng: np.random.Generator, fractions: NDArray[np.floating], brain: NDArray[np.bool_], grid: Grid
) -> NDArray[np.floating]:
    """Draw one examination, and make the images of the mixed tissues.

    Args:
        rng: The noise is drawn last, the only thing whose extent depends on the grid.
        fractions: ``(tissue, voxel)``, brain voxels only.
        brain: ``(z, y, x)``.
        grid: Output grid.

    Returns:
        ``(modality, z, y, x)``, whole numbers as a scanner stores them, exactly 0 outside the brain.
    """
    tissues, sequences = mri.draw_tissues(rng), mri.draw_sequences(rng)
    n = len(sequences)
    long_relaxation, short_relaxation, long_uptake, short_uptake = (
        SmoothNoise.draw(rng, length).on(grid)[brain] for length in (9, 4, 8, 4)
    )
    textures = (0.7 * long_relaxation + 0.7 * short_relaxation, 0.8 * long_uptake + 0.6 * short_uptake)
    shared_shading, *shadings = (SmoothNoise.draw(rng, 70).on(grid)[brain] for _ in range(n + 1))
    blurs = rng.uniform(0.3, 1.1, n) / grid.spacing
    noise_levels = 1 / rng.uniform(18, 36, n)
    gains = np.exp(rng.uniform(np.log(300), np.log(1200), n))
    noise = rng.standard_normal((n, 2, fractions.shape[1]), dtype=np.float32)
    white = fractions[1] > 0.8
    images = np.zeros((n, *brain.shape), dtype=np.float32)
    for index, sequence in enumerate(sequences):
        signal = mri.acquire(fractions, tissues, sequence, textures)
        reference = signal[white].mean()
        signal = _blur_slices(signal, brain, blurs[index])
        signal *= np.exp(0.08 * shared_shading + 0.05 * shadings[index])
        signal = mri.add_rician_noise(signal, reference * noise_levels[index], noise[index])
        images[index][brain] = np.maximum(np.rint(signal * (gains[index] / reference)), 1)
    return images


def _blur_slices(signal: NDArray[np.floating], brain: NDArray[np.bool_], width: float) -> NDArray[np.floating]:
    """Average along z as a slice profile does, over brain only: outside there is nothing to average with."""
    volume = np.zeros(brain.shape, dtype=np.float32)
    volume[brain] = signal
    weight = gaussian_filter1d(brain.astype(np.float32), width, axis=0)
    return gaussian_filter1d(volume, width, axis=0)[brain] / weight[brain]
