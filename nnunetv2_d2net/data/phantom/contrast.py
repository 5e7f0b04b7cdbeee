"""How much one voxel of one modality gives away: rank-based AUC, and the Dice of the best threshold."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REGIONS = {"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,), "edema": (2,)}
"""Voxel labels of what is measured; the first three are the regions of the data set."""

COLUMNS = ("region", "modality", "cases", "AUC mean", "AUC min", "AUC max", "best threshold's Dice")
"""Header of the table."""


def area_under_curve(values: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive voxel is brighter than a negative one, ties counted half.

    This is the area under the ROC curve (Hanley and McNeil, Radiology 143, 1982): 0.5 says nothing, below 0.5 darker.

    Args:
        values: Intensities, ``(voxel,)``.
        positive: Which are inside the region, ``(voxel,)``.

    Returns:
        In [0, 1]; NaN without a positive or without a negative voxel.

    Example:
        >>> area_under_curve(np.array([1.0, 2.0, 3.0]), np.array([False, True, True]))
        1.0
    """
    total, order = _count_levels(values)
    return _area(total, _count_hits(order, positive, total))


def _count_levels(values: NDArray[np.floating]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """How many voxels have each distinct value, ascending, and which of these levels each voxel has."""
    levels, order = np.unique(values, return_inverse=True)
    return np.bincount(order, minlength=len(levels)), order


def _count_hits(order: NDArray[np.integer], positive: NDArray[np.bool_], total: NDArray[np.integer]) -> NDArray:
    return np.bincount(order, weights=positive, minlength=len(total))


def _area(total: NDArray[np.integer], hits: NDArray[np.floating]) -> float:
    """AUC from the number of voxels, and of positive ones, at each level, ascending."""
    n_positive, misses = hits.sum(), total - hits
    if not n_positive or not misses.sum():
        return float("nan")
    below = np.cumsum(misses) - misses / 2  # ties count half
    return float((hits * below).sum() / (n_positive * misses.sum()))


def best_threshold_dice(values: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Dice of the best single threshold, chosen knowing the answer: the ceiling of any rule on one voxel's brightness.

    Args:
        values: Intensities, ``(voxel,)``.
        positive: Which are inside the region, ``(voxel,)``.

    Returns:
        In [0, 1], the better of "brighter than" and "darker than"; NaN without a positive voxel.
    """
    total, order = _count_levels(values)
    return _best_dice(total, _count_hits(order, positive, total))


def _best_dice(total: NDArray[np.integer], hits: NDArray[np.floating]) -> float:
    """Best Dice over thresholds from the number of voxels, and of positive ones, at each level, ascending."""
    n_positive = hits.sum()
    if not n_positive:
        return float("nan")
    scores = [2 * np.cumsum(h) / (np.cumsum(t) + n_positive) for h, t in ((hits, total), (hits[::-1], total[::-1]))]
    return float(max(score.max() for score in scores))


def measure_contrast(images: NDArray[np.floating], labels: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Measure every modality and region of one case, each region against all other brain voxels.

    Args:
        images: ``(modality, z, y, x)``, 0 outside the brain.
        labels: ``(z, y, x)``.

    Returns:
        ``(2, modality, region)``: AUC, then the best threshold's Dice; regions in the order of ``REGIONS``.
    """
    brain = (images > 0).any(axis=0)
    inside = [np.isin(labels[brain], members) for members in REGIONS.values()]
    measured = np.empty((2, len(images), len(inside)))
    for modality, image in enumerate(images):
        total, order = _count_levels(image[brain])
        for region, positive in enumerate(inside):
            hits = _count_hits(order, positive, total)
            measured[0, modality, region] = _area(total, hits)
            measured[1, modality, region] = _best_dice(total, hits)
    return measured


def write_contrast_table(path: Path, measured: NDArray[np.floating], modalities: Sequence[str]) -> None:
    """Save the cases' mean, smallest and largest AUC, and the mean Dice of the best threshold, as CSV.

    Args:
        path: The file.
        measured: From ``measure_contrast``, ``(case, 2, modality, region)``; NaN where a case lacks a region.
        modalities: Their names.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for region_index, region in enumerate(REGIONS):
            for modality_index, modality in enumerate(modalities):
                auc, dice = measured[:, :, modality_index, region_index].T
                auc, dice = auc[~np.isnan(auc)], dice[~np.isnan(dice)]
                numbers = (auc.mean(), auc.min(), auc.max(), dice.mean()) if len(auc) else (np.nan,) * 4
                writer.writerow([region, modality, len(auc), *(f"{number:.3f}" for number in numbers)])


def format_contrast_table(path: Path) -> str:
    """Lay the CSV out as a Markdown table.

    Args:
        path: From ``write_contrast_table``.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines) + "\n"
