"""How much one voxel of one modality gives away: rank-based AUC, and the Dice of the best threshold."""

import csv
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.files import write_text
from nnunetv2_d2net.base.text import markdown_table

REGIONS = {"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,), "edema": (2,)}
"""Voxel labels of what is measured; the first three are the regions of the data set."""

_HEADER = ("region", "modality", "cases", "AUC mean", "AUC min", "AUC max", "best threshold's Dice")


def measure_contrast(images: NDArray[np.floating], labels: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Measure every modality and region of one case, each region against all other brain voxels.

    - AUC: probability that a voxel of the region is brighter than another one, ties counted half; the area under the
      ROC curve (Hanley and McNeil, Radiology 143, 1982). 0.5 says nothing, below 0.5 the region is darker.
    - Dice of the best single threshold, "brighter than" or "darker than", chosen knowing the answer: the ceiling of any
      rule on one voxel's brightness.

    Args:
        images: ``(modality, z, y, x)``, 0 outside the brain.
        labels: ``(z, y, x)``.

    Returns:
        ``(2, modality, region)``: AUC, then the best threshold's Dice, both in [0, 1]; NaN without a voxel of the
        region, the AUC also without another one. Regions in the order of ``REGIONS``.
    """
    brain = (images > 0).any(axis=0)
    inside = [np.isin(labels[brain], members) for members in REGIONS.values()]
    measured = np.empty((2, len(images), len(inside)))
    for modality, image in enumerate(images):
        levels, level_of_voxel = np.unique(image[brain], return_inverse=True)
        total = np.bincount(level_of_voxel, minlength=len(levels))
        for region, positive in enumerate(inside):
            hits = np.bincount(level_of_voxel, weights=positive, minlength=len(levels))
            measured[:, modality, region] = _area_under_curve(total, hits), _best_dice(total, hits)
    return measured


def _area_under_curve(total: NDArray[np.integer], hits: NDArray[np.number]) -> float:
    """AUC from the number of voxels, and of those in the region, at each level of brightness, ascending."""
    n_positive, misses = hits.sum(), total - hits
    if not n_positive or not misses.sum():
        return float("nan")
    below = np.cumsum(misses) - misses / 2  # ties count half
    return float((hits * below).sum() / (n_positive * misses.sum()))


def _best_dice(total: NDArray[np.integer], hits: NDArray[np.number]) -> float:
    """Best Dice over thresholds from the number of voxels, and of those in the region, at each level, ascending."""
    n_positive = hits.sum()
    if not n_positive:
        return float("nan")
    scores = [2 * np.cumsum(h) / (np.cumsum(t) + n_positive) for h, t in ((hits, total), (hits[::-1], total[::-1]))]
    return float(max(score.max() for score in scores))


def write_contrast_table(path: Path, measured: NDArray[np.floating], modalities: Sequence[str]) -> None:
    """Save the cases' mean, smallest and largest AUC, and the mean Dice of the best threshold, as CSV.

    Args:
        path: The file.
        measured: From ``measure_contrast``, ``(case, 2, modality, region)``; NaN where a case lacks a region.
        modalities: Their names.

    Raises:
        UserError: It cannot be written.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(_HEADER)
    for (i, region), (j, modality) in itertools.product(enumerate(REGIONS), enumerate(modalities)):
        auc, dice = (values[~np.isnan(values)] for values in measured[:, :, j, i].T)
        numbers = (auc.mean(), auc.min(), auc.max(), dice.mean()) if len(auc) else (np.nan,) * 4
        writer.writerow([region, modality, len(auc), *(f"{number:.3f}" for number in numbers)])
    write_text(path, table.getvalue())


def format_contrast_table(path: Path) -> str:
    """Lay what ``write_contrast_table`` has saved out as a Markdown table."""
    with path.open(newline="", encoding="utf-8") as file:
        return markdown_table(list(csv.reader(file)))
