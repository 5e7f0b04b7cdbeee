"""Every subset x region: Dice of every case, and the table of means."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk


class Score(NamedTuple):
    """Dice of one case, subset and region, in [0, 1]."""

    case: str
    subset: str
    region: str
    dice: float


def regions_of(dataset_json: dict) -> dict[str, tuple[int, ...]]:
    """Return the foreground regions or labels of a data set and the label values that they hold.

    Example:
        >>> regions_of({"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}})
        {'whole': (1, 2), 'core': (2,)}
    """
    labels = {name: value for name, value in dataset_json["labels"].items() if name not in ("background", "ignore")}
    return {name: tuple(value) if isinstance(value, list) else (value,) for name, value in labels.items()}


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Compute the Dice coefficient of two masks as BraTS does: 1 if both are empty, 0 if one of them is.

    Args:
        prediction: Bool, any shape.
        reference: Bool, the same shape.
    """
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else 1.0


def score_subsets(predictions: Path, references: Path, dataset_json: dict) -> list[Score]:
    """Score the folders that :class:`nnunetv2_d2net.plugin.prediction.all_subsets.AllSubsetsPredictor` has written.

    Voxels with the ignore label in the reference are left out.

    Args:
        predictions: One folder per subset with one segmentation per case.
        references: Segmentations of the same names.
        dataset_json: Content of dataset.json.

    Returns:
        A score for every case, subset and region, smallest subsets first.
    """
    regions, ending = regions_of(dataset_json), dataset_json["file_ending"]
    ignore = dataset_json["labels"].get("ignore")
    scores = []
    for subset in sorted((d for d in predictions.iterdir() if d.is_dir()), key=lambda d: (d.name.count("+"), d.name)):
        for path in sorted(p for p in subset.glob(f"*{ending}") if not p.name.startswith(".")):
            reference, prediction = (
                sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (references / path.name, path)
            )
            counted = np.ones(reference.shape, bool) if ignore is None else reference != ignore
            for region, values in regions.items():
                masks = (np.isin(labels[counted], values) for labels in (prediction, reference))
                scores.append(Score(path.name.removesuffix(ending), subset.name, region, dice(*masks)))
    return scores


def mean_by_subset(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Average the cases: Dice by subset and region."""
    values: dict[str, dict[str, list[float]]] = {}
    for score in scores:
        values.setdefault(score.subset, {}).setdefault(score.region, []).append(score.dice)
    return {subset: {region: fmean(dice) for region, dice in regions.items()} for subset, regions in values.items()}


def mean_table(scores: Sequence[Score]) -> list[list[str]]:
    """Average the cases: a header, a row per subset, and the mean over subsets.

    Returns:
        Rows of cells; the first column names the subset, the others hold Dice with three decimals.
    """
    by_subset = mean_by_subset(scores)
    means = [list(regions.values()) for regions in by_subset.values()]
    rows = [
        *zip(by_subset, means, strict=True),
        (f"mean of {len(means)}", [fmean(c) for c in zip(*means, strict=True)]),
    ]
    return [
        ["available", *next(iter(by_subset.values())), "mean"],
        *([name, *(f"{value:.3f}" for value in [*values, fmean(values)])] for name, values in rows),
    ]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay the rows out as a Markdown table, aligned so that it also reads well in a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]) + "\n"


def write_tables(scores: Sequence[Score], folder: Path) -> str:
    """Write ``dice_per_case.csv``, ``dice.csv`` and ``dice.md`` into the folder; return the Markdown."""
    rows = mean_table(scores)
    for name, table in (("dice_per_case.csv", [Score._fields, *scores]), ("dice.csv", rows)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(table)
    text = markdown_table(rows)
    (folder / "dice.md").write_text(text)
    return text
