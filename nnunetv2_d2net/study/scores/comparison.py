"""Arms against each other, paired by case: is a difference in Dice more than chance?"""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import write_text
from nnunetv2_d2net.base.text import reason_of
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import in_order, shares_of, values_of

_MOST_ENUMERATED = 16
_DRAWN, _AT_ONCE = 100_000, 5_000  # choices of signs
_DECIMALS = 9
"""Differences are rounded to these, so that equal ones are ties and equal Dice is no difference."""


class Comparison(NamedTuple):
    """One row of comparison.csv: Dice of an arm minus that of its rival, paired by case.

    Attributes:
        subset: ``mean of N`` for the mean of each case over all N subsets.
        region: ``mean`` for the mean of each case over regions.
        n: Cases that both arms have; all figures are over these.
        mean_difference: Positive where the arm is better.
        ci_low: Of the 95 % interval of the mean difference, as ``ci_high``; NaN for a single case.
        p: Of the two-sided permutation test of the mean difference; 1 if no case differs.
        p_holm: Corrected by Holm's method over the subsets of this region and pair; ``mean of N``
            is one test of its own.
        mean: Dice of the arm, as ``rival_mean`` that of its rival.
        n_left_out: Cases that only one of both has, or, of ``mean of N``, that lack one of the subsets.
        n_better: Cases in which the arm is better; ``n_worse`` likewise.
        rank_difference: Rank-biserial correlation, from -1, worse in all cases, to 1, better in all.
        p_ranks: Of the two-sided Wilcoxon signed-rank test; 1 if no case differs.
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
    mean: float
    rival_mean: float
    n_left_out: int
    n_better: int
    n_worse: int
    rank_difference: float
    p_ranks: float

    def reversed(self) -> "Comparison":
        """Return the same comparison from the rival's side."""
        return self._replace(
            arm=self.rival,
            rival=self.arm,
            mean_difference=-self.mean_difference,
            ci_low=-self.ci_high,
            ci_high=-self.ci_low,
            mean=self.rival_mean,
            rival_mean=self.mean,
            n_better=self.n_worse,
            n_worse=self.n_better,
            rank_difference=-self.rank_difference,
        )


def compare_arms(  # noqa: PLR0913 - settings have defaults
    scores: Sequence[CaseScore],
    rival_scores: Sequence[CaseScore],
    *,
    arm: str,
    rival: str,
    modalities: Sequence[str] = (),
    weights: Mapping[str, float] = MappingProxyType({}),
    resamples: int = 4999,
) -> list[Comparison]:
    """Compare the Dice of two arms, for every subset and region that both have.

    Args:
        scores: Of the arm.
        rival_scores: Of its rival.
        arm: Its name.
        rival: That of its rival.
        modalities: For the order of subsets.
        weights: How often each subset occurs, for the mean over subsets; empty where all count alike.
        resamples: Of the bootstrap.

    Returns:
        By region, the mean over regions last; by subset in the order of the tables, the mean over subsets last.
    """
    ours, theirs = dice_tables(scores), dice_tables(rival_scores)
    rows = []
    for region in (region for region in ours if region in theirs):
        pairs = _pairs(ours[region], theirs[region], modalities, weights)
        differences = {subset: (pair[0] - pair[1]).round(_DECIMALS) for subset, (pair, _) in pairs.items()}
        p = {subset: permutation_p(values) for subset, values in differences.items()}
        single = [subset for subset in p if subset in ours[region]]
        corrected = p | dict(zip(single, holm([p[subset] for subset in single]).tolist(), strict=True))
        for subset, values in differences.items():
            pair, n_left_out = pairs[subset]
            figures = float(values.mean()), *mean_interval(values, resamples=resamples), p[subset], corrected[subset]
            means = *map(float, pair.mean(axis=1)), n_left_out
            names = arm, rival, subset, region, len(values)
            rows.append(Comparison._make([*names, *figures, *means, *_ranks(values)]))
    return rows


def compare_all(
    arms: Mapping[str, Sequence[CaseScore]],
    modalities: Sequence[str] = (),
    weights: Mapping[str, float] = MappingProxyType({}),
) -> list[Comparison]:
    """Compare every pair of arms once, the later one with the earlier one as its rival."""
    return [
        row
        for rival, arm in combinations(arms, 2)
        for row in compare_arms(arms[arm], arms[rival], arm=arm, rival=rival, modalities=modalities, weights=weights)
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
        if header == list(Comparison._fields[:10]):
            raise ValueError("an earlier version has written it, which compared arms in another way")
        if header != list(Comparison._fields):
            raise ValueError("other columns")
        return [_row(cells) for cells in rows]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}): run d2net benchmark again") from error


def _row(cells: Sequence[str]) -> Comparison:
    kinds = Comparison.__annotations__.values()
    return Comparison._make(kind(cell or math.nan) for cell, kind in zip(cells, kinds, strict=True))


def permutation_p(differences: ArrayLike) -> float:
    """Return the two-sided p of the paired permutation test of the mean; 1 if all differences are zero.

    If the arms are alike, each difference could as well have the other sign. All choices of signs are gone through
    where at most 16 cases differ; else 100,000 are drawn, always the same ones.

    Source: Fisher, The Design of Experiments, 1935, section 21.

    Example:
        >>> permutation_p([0.1, 0.2, 0.1, 0.3, 0.2, 0, 0, 0])  # 2 of 32 choices put all five on one side
        0.0625
    """
    values = np.asarray(differences, dtype=float)
    observed = abs(values.sum())
    values = np.abs(values[values != 0])
    reached = observed - 1e-9 * values.sum()  # not to count rounding
    if len(values) <= _MOST_ENUMERATED:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= reached))
    rng, hits = np.random.default_rng(0), 0
    for _ in range(_DRAWN // _AT_ONCE):
        bits = np.unpackbits(rng.integers(0, 256, (_AT_ONCE, -(-len(values) // 8)), np.uint8), axis=1)
        sums = 2 * (bits[:, : len(values)] @ values) - values.sum()
        hits += int(np.count_nonzero(np.abs(sums) >= reached))
    return (1 + hits) / (1 + _DRAWN)


def _ranks(differences: NDArray[np.floating]) -> tuple[int, int, float, float]:
    """Count better and worse cases; rank-biserial correlation and p of the Wilcoxon signed-rank test."""
    values = differences[differences != 0]
    if not len(values):
        return 0, 0, 0.0, 1.0
    ranks = stats.rankdata(np.abs(values))
    with warnings.catch_warnings():  # of few cases, for which SciPy says that p is approximate
        warnings.simplefilter("ignore")
        p = float(np.asarray(stats.wilcoxon(values))[1])
    better = values > 0
    return int(better.sum()), int((~better).sum()), float(np.sign(values) @ ranks / ranks.sum()), p


def holm(p: ArrayLike) -> NDArray[np.floating]:
    """Correct p values for their number by Holm's step-down method.

    Source: Holm, Scand J Stat 6(2):65-70, 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def mean_interval(values: ArrayLike, *, resamples: int = 4999) -> tuple[float, float]:
    """Return both ends of a 95 % interval of a mean: whatever Student's t or the bootstrap-t interval covers.

    Student's is right for a few normal values, the bootstrap's follows skewed ones. Both ends are NaN for fewer than
    two values.

    Source: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.
    """
    values = np.asarray(values)
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    student = float(stats.t.ppf(0.975, n - 1))
    drawn = values[np.random.default_rng(0).integers(0, n, (resamples, n))]
    drawn = drawn[np.ptp(drawn, axis=1) > 0]  # t of equal values is infinite
    t = (drawn.mean(axis=1) - mean) / (drawn.std(axis=1, ddof=1) / math.sqrt(n))
    low, high = np.quantile(t, (0.025, 0.975))
    return mean - error * max(student, float(high)), mean + error * max(student, -float(low))


def dice_tables(scores: Sequence[CaseScore]) -> dict[str, pd.DataFrame]:
    """Lay out Dice by case (rows) and subset (columns), for every region and the mean over regions."""
    regions = values_of(scores, "dice").groupby("region", sort=False)
    return {str(region): part.pivot_table("value", "case", "subset", "last") for region, part in regions}


def shared_cases(
    tables: Sequence[pd.DataFrame], subsets: Sequence[str], weights: Mapping[str, float] = MappingProxyType({})
) -> tuple[NDArray[np.floating], int]:
    """Take the cases that all arms have in all of these subsets.

    Args:
        tables: Of each arm, as :func:`dice_tables` returns them.
        subsets: Names.
        weights: How often each occurs; empty where all count alike.

    Returns:
        ``(arms, cases)``: the mean of each case over the subsets, by weight; and how many cases were left out, which
        any arm has in any of the subsets.
    """
    parts = [table.reindex(columns=pd.Index(subsets)) for table in tables]
    shares = shares_of(subsets, weights)
    means = pd.concat([(part * shares).sum(axis=1, skipna=False) for part in parts], axis=1).sort_index()
    n_any = len(set().union(*(part.dropna(how="all").index for part in parts)))
    shared = means.dropna().to_numpy().T
    return shared, n_any - shared.shape[1]


def _pairs(
    ours: pd.DataFrame, theirs: pd.DataFrame, modalities: Sequence[str], weights: Mapping[str, float]
) -> dict[str, tuple[NDArray[np.floating], int]]:
    """What both arms have, by subset; last, over the cases that have all subsets, the mean."""
    shared = in_order(map(str, ours.columns.intersection(theirs.columns)), modalities)
    columns = {subset: [subset] for subset in shared}
    if len(shared) > 1:
        columns[f"mean of {len(shared)}"] = shared
    pairs = {name: shared_cases([ours, theirs], subsets, weights) for name, subsets in columns.items()}
    return {name: pair for name, pair in pairs.items() if pair[0].size}
