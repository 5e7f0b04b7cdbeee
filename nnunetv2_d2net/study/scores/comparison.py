"""Arms against each other, paired by case: is a difference in Dice more than chance?"""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import MEAN_REGION, subset_order

_DECIMALS = 9
"""Differences are rounded to these, so that equal ones are ties and equal Dice is no difference."""


class Comparison(NamedTuple):
    """One row of comparison.csv: Dice of an arm minus that of its rival, paired by case.

    Attributes:
        arm: Name.
        rival: Name.
        subset: Name; ``mean of N`` for the mean of each case over all N subsets.
        region: Name; ``mean`` for the mean of each case over regions.
        n: Cases that both arms have.
        mean_difference: Positive where the arm is better.
        ci_low: Of the 95 % bootstrap interval of the mean difference; NaN for a single case.
        ci_high: Likewise.
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


def compare_arms(  # noqa: PLR0913 - settings of the bootstrap have defaults
    scores: Sequence[CaseScore],
    rival_scores: Sequence[CaseScore],
    *,
    arm: str,
    rival: str,
    modalities: Sequence[str] = (),
    resamples: int = 4999,
    seed: int = 0,
) -> list[Comparison]:
    """Compare the Dice of two arms, for every subset and region that both have.

    Args:
        scores: Of the arm.
        rival_scores: Of its rival.
        arm: Name.
        rival: Name.
        modalities: For the order of subsets.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        By region, the mean over regions last; by subset, the mean over subsets last.
    """
    ours, theirs = _by_region(scores), _by_region(rival_scores)
    rows = []
    for region in (region for region in ours if region in theirs):
        found = _differences(ours[region], theirs[region], modalities)
        parts = {subset: np.round(list(cases.values()), _DECIMALS) for subset, cases in found.items() if cases}
        p = {subset: wilcoxon_p(values) for subset, values in parts.items()}
        corrected = dict(zip(p, holm(list(p.values())), strict=True))
        complete = set.intersection(*(set(cases) for cases in found.values())) if found else set()
        if len(found) > 1 and complete:
            name = f"mean of {len(found)}"
            means = [fmean(cases[case] for cases in found.values()) for case in sorted(complete)]
            parts[name] = np.round(means, _DECIMALS)
            p[name] = corrected[name] = wilcoxon_p(parts[name])
        for subset, values in parts.items():
            low, high = mean_interval(values, resamples=resamples, seed=seed)
            mean = float(values.mean())
            rows.append(
                Comparison(arm, rival, subset, region, len(values), mean, low, high, p[subset], corrected[subset])
            )
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
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Comparison._fields)
        for row in rows:
            writer.writerow([*row[:5], *("" if math.isnan(value) else f"{value:.6g}" for value in row[5:])])


def read_comparison(path: Path) -> list[Comparison]:
    """Read what :func:`write_comparison` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return [Comparison._make([*row[:4], int(row[4]), *(float(cell or "nan") for cell in row[5:])]) for row in rows]


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


def mean_interval(values: ArrayLike, *, resamples: int = 4999, seed: int = 0) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of a mean, BCa; percentile where BCa is not defined.

    Args:
        values: One per case.
        resamples: How many.
        seed: Same seed, same interval.

    Returns:
        Both ends; NaN for fewer than two values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    for method in ("BCa", "percentile"):
        # newer SciPy calls it rng, and still takes the name that older ones know
        generator: dict[str, Any] = {"random_state": np.random.default_rng(seed)}
        with warnings.catch_warnings():  # of degenerate samples, which the percentiles are there for
            warnings.simplefilter("ignore")
            found = stats.bootstrap((values,), np.mean, n_resamples=resamples, method=method, **generator)
        low, high = found.confidence_interval
        if math.isfinite(low) and math.isfinite(high):
            break
    return float(low), float(high)


def _by_region(scores: Sequence[CaseScore]) -> dict[str, dict[str, dict[str, float]]]:
    """Dice by region, subset and case, with the mean over regions."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    means: dict[str, dict[str, list[float]]] = {}
    for score in scores:
        found.setdefault(score.region, {}).setdefault(score.subset, {})[score.case] = score.dice
        means.setdefault(score.subset, {}).setdefault(score.case, []).append(score.dice)
    if len(found) > 1 and MEAN_REGION not in found:
        found[MEAN_REGION] = {s: {case: fmean(dice) for case, dice in cases.items()} for s, cases in means.items()}
    return found


def _differences(
    ours: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]], modalities: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Differences by subset and case, of what both arms have."""
    shared = ours.keys() & theirs.keys()
    order = [subset for subset in subset_order(modalities) if subset in shared] if modalities else []
    return {
        subset: {
            case: ours[subset][case] - theirs[subset][case]
            for case in sorted(ours[subset].keys() & theirs[subset].keys())
        }
        for subset in [*order, *sorted(shared - set(order))]
    }
