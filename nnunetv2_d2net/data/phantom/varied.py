"""One case to learn from for real patients: everything that may differ there is drawn, and widely.

Anatomy and the tumor's growth are those of ``case.simulate_case``. Brightness is drawn tissue by tissue (``levels``),
the scanner blurs, grains and cuts (``scanner``), and what is bright without being glioma is there (``findings``).
"""

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.data.phantom.anatomy import Anatomy, deform_anatomy, draw_head
from nnunetv2_d2net.data.phantom.case import PhantomCase
from nnunetv2_d2net.data.phantom.fields import SPACINGS, Grid, SmoothNoise, sigmoid
from nnunetv2_d2net.data.phantom.findings import draw_findings
from nnunetv2_d2net.data.phantom.glioma import Tumor, draw_varied_glioma, edema_distance, grow_tumor
from nnunetv2_d2net.data.phantom.levels import draw_lesion, draw_normal, draw_tissue
from nnunetv2_d2net.data.phantom.scanner import (
    THICK,
    acquire_image,
    cut_field,
    draw_examination,
    strip_skull,
    surface_depth,
)

Array = NDArray[np.floating]

WITHOUT_TUMOR = 0.1
"""Share of the cases without a tumor."""

PHYSICAL = 0.5
"""Share of the cases whose normal tissue has the brightness that its relaxation times give it."""

CYSTS = 0.3
"""Share of the tumors in which a part of the necrosis looks like CSF."""

FLOW = 0.3
"""Share of the cases in which moving CSF is bright in FLAIR here and there: it has left before it was nulled."""

_SHELL = 5  # mm outside the brain that a mask too wide or a blur may reach


def simulate_varied_case(size: str, seed: np.random.SeedSequence) -> PhantomCase:
    """Simulate one patient; the same size and seed give the same voxels.

    Args:
        size: A key of ``SPACINGS``. The patient stays about the same over sizes.
        seed: The patient.

    Raises:
        UserError: nilearn is not installed.
    """
    rng = np.random.default_rng(seed)
    grid, coarse = Grid(SPACINGS[size]), Grid(SPACINGS["small"])
    head = draw_head(rng)
    head = head._replace(atrophy=rng.uniform(-0.4, 1.2))
    sharpness = rng.uniform(1.5, 3.5)
    glioma = draw_varied_glioma(rng, deform_anatomy(head, coarse), coarse)
    healthy = rng.random() < WITHOUT_TUMOR
    foci = () if healthy else glioma.foci
    around = _sharpened(deform_anatomy(head, coarse, foci, glioma.push), sharpness)
    anatomy = around if grid == coarse else _sharpened(deform_anatomy(head, grid, foci, glioma.push), sharpness)
    tumor = _no_tumor(grid) if healthy else grow_tumor(glioma, anatomy, grid, edema_distance(glioma, around, coarse))
    depth = surface_depth(anatomy.brain, grid.spacing)
    signal = _mix(rng, anatomy, tumor, depth, grid)
    mask = strip_skull(rng, depth, grid)
    seen, labeled = cut_field(rng, mask, tumor.labels)
    images = _acquire(rng, signal, depth > -_SHELL, grid)
    images = np.where(mask & seen, np.maximum(np.rint(images), 1), 0).astype(np.float32)
    labels = tumor.labels * (mask & labeled)
    # The template lies RAS; BraTS, for which models are wanted, LPS, and nnU-Net turns nothing.
    return PhantomCase(np.ascontiguousarray(images[..., ::-1, ::-1]), np.ascontiguousarray(labels[..., ::-1, ::-1]))


def _sharpened(anatomy: Anatomy, sharpness: float) -> Anatomy:
    """Undo more of the blur that averaging people has left in the template, so that there is pure CSF between folds."""
    tissues = anatomy.tissues**sharpness
    return anatomy._replace(tissues=tissues * (anatomy.brain / np.maximum(tissues.sum(axis=0), 1e-6)))


def _no_tumor(grid: Grid) -> Tumor:
    nothing = np.zeros(grid.shape, dtype=np.float32)
    return Tumor(nothing, nothing, nothing, nothing, nothing.astype(np.uint8))


def _mix(rng: np.random.Generator, anatomy: Anatomy, tumor: Tumor, depth: Array, grid: Grid) -> Array:
    """Signal of every voxel in each sequence, white matter is 1, ``(4, z, y, x)``."""
    normal = draw_normal(rng, physical=rng.random() < PHYSICAL)
    signal = _healthy_signal(rng, normal, anatomy, depth, grid)
    clear = 1 - np.clip(tumor.edema + tumor.necrotic + tumor.solid + tumor.enhancing, 0, 1)
    for layer in draw_findings(rng, anatomy, depth, grid, often=not tumor.labels.any()):
        signal += (layer.fraction * clear).astype(np.float32) * (_spread(layer.levels) - signal)
    signal *= _texture(rng, grid, rng.uniform(0.02, 0.08))
    levels = draw_lesion(rng)
    necrosis = levels["core"].copy()
    if rng.random() < CYSTS:
        necrosis[: rng.integers(1, len(necrosis) + 1)] = normal["csf"] * rng.uniform(0.9, 1.3, 4)
    lesion = ((tumor.edema, levels["edema"]), (tumor.necrotic, necrosis))
    lesion += ((tumor.solid, levels["core"]), (tumor.enhancing, levels["enhancing"]))
    signal *= np.clip(1 - sum(fraction for fraction, _ in lesion), 0, None)
    for fraction, tissue in lesion:
        signal += fraction * _sub_tissues(rng, tissue, grid) * _texture(rng, grid, rng.uniform(0.03, 0.18))
    return signal


def _healthy_signal(
    rng: np.random.Generator, normal: dict[str, Array], anatomy: Anatomy, depth: Array, grid: Grid
) -> Array:
    """Signal of a head without findings, and around it of CSF and membranes, which a mask too wide shows."""
    signal = np.zeros((4, *grid.shape), dtype=np.float32)
    for name, fraction in zip(("gray", "white", "csf"), anatomy.tissues, strict=True):
        # gray matter differs most: cortex from deep nuclei, here from there
        variation = _texture(rng, grid, rng.uniform(0.03, 0.12)) if name == "gray" else 1
        signal += fraction * _spread(normal[name]) * variation
    if rng.random() < FLOW:
        moving = sigmoid((SmoothNoise.draw(rng, 25).on(grid) - rng.uniform(0.4, 1.4)) / 0.3)
        signal[0] += anatomy.tissues[2] * moving * rng.uniform(0.2, 1)
    outside = np.where(depth > -2, _spread(normal["csf"]), _spread(draw_tissue(rng, "dura")[0]))
    return np.where(anatomy.brain, signal, outside)


def _sub_tissues(rng: np.random.Generator, levels: Array, grid: Grid) -> Array:
    """Level of a lesion in every voxel: its sub-tissues, ``(n, 4)``, each where its random field is the highest."""
    if len(levels) == 1:
        return _spread(levels[0])
    sharpness, length = rng.uniform(1, 6), rng.uniform(9, 26)
    weights = np.exp(sharpness * np.stack([SmoothNoise.draw(rng, length).on(grid) for _ in levels]))
    return np.einsum("ks,kzyx->szyx", levels.astype(np.float32), weights / weights.sum(axis=0))


def _texture(rng: np.random.Generator, grid: Grid, strength: float) -> Array:
    """Variation inside a tissue: a factor, ``(4, z, y, x)``, partly the same in all sequences, of either sign."""
    fields = np.stack([SmoothNoise.draw(rng, length).on(grid) for length in (20, 8, 4)])
    mixture = rng.normal(0, 1 / np.sqrt(3), (4, 3)).astype(np.float32)
    return np.exp(strength * np.einsum("sk,kzyx->szyx", mixture, fields))


def _acquire(rng: np.random.Generator, signal: Array, domain: NDArray[np.bool_], grid: Grid) -> Array:
    """Images of all sequences; the noise is drawn last, the only thing whose extent depends on the grid."""
    examinations = [draw_examination(rng, thick) for thick in THICK]
    shared, *own = (SmoothNoise.draw(rng, length).on(grid) for length in (70, 45, 45, 45, 45))
    images = []
    for part, examination, shading in zip(signal, examinations, own, strict=True):
        noise = rng.standard_normal((2, *grid.shape), dtype=np.float32)
        images.append(acquire_image(part, domain, examination, np.stack((shared, shading)), noise, grid.spacing))
    return np.stack(images)


def _spread(levels: Array) -> Array:
    return levels.astype(np.float32)[:, None, None, None]
