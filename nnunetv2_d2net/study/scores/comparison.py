"""Arms against each other, paired by case: is a difference in Dice more than chance?"""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import write_text
from nnunetv2_d2net.base.text import reason_of
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import in_order, values_of

_DECIMALS = 9
"""Differences are rounded to these, so that equal ones are ties and equal Dice is no difference."""


class Comparison(NamedTuple):
    """One row of comparison.csv: Dice of an arm minus that of its rival, paired by case.

    Attributes:
        subset: ``mean of N`` for the mean of each case over all N subsets.
        region: ``mean`` for the mean of each case over regions.
        n: Cases that both arms have.
        mean_difference: Positive where the arm is better.
        ci_low: Of the 95 % bootstrap interval of the mean difference, as ``ci_high``; NaN for a single case.
        p: Of the two-sided Wilcoxon signed-rank test; 1 if no case differs.
        p_holm: Corrected by Holm's method over the subsets of this region and pair; ``mean of N``
            is one test of its own.
    """

    arm: str
    rival: str
    subset: str
    region: str
    n: int
    mean_difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float


def compare_arms(
    scores: Sequence[CaseScore],
    rival_scores: Sequence[CaseScore],
    *,
    arm: str,
    rival: str,
    modalities: Sequence[str] = (),
    resamples: int = 4999,
) -> list[Comparison]:
    """Compare the Dice of two arms, for every subset and region that both have.

    Returns:
        By region, the mean over regions last; by subset in the order of the tables, the mean over subsets last.
    """
    ours, theirs = _dice_by_region(scores), _dice_by_region(rival_scores)
    rows = []
    for region in (region for region in ours if region in theirs):
        differences = _differences(ours[region], theirs[region], modalities)
        p = {subset: wilcoxon_p(values) for subset, values in differences.items()}
        single = [subset for subset in p if subset in ours[region]]
        corrected = p | dict(zip(single, holm([p[subset] for subset in single]).tolist(), strict=True))
        for subset, values in differences.items():
            figures = float(values.mean()), *mean_interval(values, resamples=resamples), p[subset], corrected[subset]
            rows.append(Comparison(arm, rival, subset, region, len(values), *figures))
    return rows


def compare_all(arms: Mapping[str, Sequence[CaseScore]], modalities: Sequence[str] = ()) -> list[Comparison]:
    """Compare every pair of arms once, the later one with the earlier one as its rival."""
    return [
        row
        for rival, arm in combinations(arms, 2)
        for row in compare_arms(arms[arm], arms[rival], arm=arm, rival=rival, modalities=modalities)
    ]


def write_comparison(rows: Sequence[Comparison], path: Path) -> None:
    """Write comparison.csv; what is not a number stays empty."""
    table = pd.DataFrame(rows, columns=list(Comparison._fields))
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def read_comparison(path: Path) -> list[Comparison]:
    """Read what :func:`write_comparison` wrote.

    Raises:
        UserError: It cannot be read, or is another file.
    """
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if header != list(Comparison._fields):
            raise ValueError("other columns")
        return [Comparison._make([*row[:4], int(row[4]), *(float(cell or "nan") for cell in row[5:])]) for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}): run d2net benchmark again") from error


def wilcoxon_p(differences: ArrayLike) -> float:
    """Return the two-sided p of the Wilcoxon signed-rank test; 1 if all differences are zero."""
    values = np.asarray(differences, dtype=float)
    if not values.any():
        return 1.0
    with warnings.catch_warnings():  # of few cases, for which SciPy says that p is approximate
        warnings.simplefilter("ignore")
        return float(np.asarray(stats.wilcoxon(values))[1])


def holm(p: ArrayLike) -> NDArray[np.floating]:
    """Correct p values for their number by Holm's step-down method.

    Source: Holm, Scand J Stat 6(2):65-70, 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def mean_interval(values: ArrayLike, *, resamples: int = 4999) -> tuple[float, float]:
    """Return both ends of a 95 % bootstrap interval of a mean, BCa; percentile where BCa is not defined.

    They are NaN for fewer than two values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    for method in ("BCa", "percentile"):
        # newer SciPy calls it rng, and still takes the name that older ones know
        generator: dict[str, Any] = {"random_state": np.random.default_rng(0)}
        with warnings.catch_warnings():  # of degenerate samples, which the percentiles are there for
            warnings.simplefilter("ignore")
            found = stats.bootstrap((values,), np.mean, n_resamples=resamples, method=method, **generator)
        low, high = found.confidence_interval
        if math.isfinite(low) and math.isfinite(high):
            break
    return float(low), float(high)


def _dice_by_region(scores: Sequence[CaseScore]) -> dict[str, pd.DataFrame]:
    """Dice by case (rows) and subset (columns), for every region and the mean over regions."""
    regions = values_of(scores, "dice").groupby("region", sort=False)
    return {str(region): part.pivot_table("value", "case", "subset", "last") for region, part in regions}


def _differences(
    ours: pd.DataFrame, theirs: pd.DataFrame, modalities: Sequence[str]
) -> dict[str, NDArray[np.floating]]:
    """Differences of the cases that both arms have, by subset; last, over the cases that have all subsets, the mean."""
    shared = in_order(ours.columns.intersection(theirs.columns), modalities)
    table = ours.sub(theirs).sort_index().reindex(columns=shared)
    if len(shared) > 1:
        table[f"mean of {len(shared)}"] = table.mean(axis=1, skipna=False)
    cases = {subset: table[subset].dropna().to_numpy().round(_DECIMALS) for subset in table}
    return {str(subset): values for subset, values in cases.items() if len(values)}
