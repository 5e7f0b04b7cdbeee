"""One arm against another on the same cases: who is ahead, by how much, and whether chance explains it."""

import math
from typing import NamedTuple

from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.study.report.results import Benchmark

LEVEL = 0.05
_MINUS = "\N{MINUS SIGN}"
_MARKS = ((0.001, "***"), (0.01, "**"), (LEVEL, "*"))


class Lead(NamedTuple):
    """Dice of one arm minus that of its rival.

    Attributes:
        arm: Name.
        rival: Name.
        subset: Name, or ``mean of N``.
        region: Name.
        dice: The arm's mean.
        rival_dice: The rival's mean.
        difference: Mean of the differences by case; positive where the arm is better.
        ci_low: Of its 95 % interval; NaN for a single case.
        ci_high: Likewise.
        p: Of Wilcoxon's signed-rank test.
        p_holm: Corrected over the subsets.
        n: Cases.
    """

    arm: str
    rival: str
    subset: str
    region: str
    dice: float
    rival_dice: float
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    n: int

    @property
    def outcome(self) -> str:
        """``better``, ``ahead``, ``equal``, ``behind`` or ``worse``; only the first and the last are beyond chance."""
        if round(self.difference, 3) == 0:
            return "equal"
        if self.p_holm < LEVEL:
            return "better" if self.difference > 0 else "worse"
        return "ahead" if self.difference > 0 else "behind"

    @property
    def marked(self) -> str:
        """The difference, with stars for p after Holm's correction below 0.05, 0.01 and 0.001."""
        return signed(self.difference) + next((mark for level, mark in _MARKS if self.p_holm < level), "")

    def figures(self) -> str:
        """State the difference, its interval, p and the number of cases."""
        interval = "" if math.isnan(self.ci_low) else f"95 % CI {signed(self.ci_low)} to {signed(self.ci_high)}, "
        corrected = "" if self.p_holm == self.p else f", {p_value(self.p_holm)} after Holm's correction"
        return (
            f"difference {signed(self.difference)}, {interval}{p_value(self.p)}{corrected}, {counted(self.n, 'case')}"
        )


def find_lead(benchmark: Benchmark, arms: tuple[str, str], subset: str, region: str) -> Lead | None:
    """Look up the comparison of two arms, whichever of them it names first.

    Args:
        benchmark: Holds it.
        arms: The arm and its rival.
        subset: Name, or ``mean of N``.
        region: Name.

    Returns:
        None if they were not compared there.
    """
    dice, rival_dice = (benchmark.dice(arm, subset, region) for arm in arms)
    if dice is None or rival_dice is None:
        return None
    for row in benchmark.comparisons:
        if (row.subset, row.region) == (subset, region) and {row.arm, row.rival} == set(arms):
            sign = 1 if row.arm == arms[0] else -1
            low, high = sorted((sign * row.ci_low, sign * row.ci_high))
            figures = sign * row.mean_difference, low, high, row.p, row.p_holm, row.n
            return Lead(*arms, subset, region, dice, rival_dice, *figures)
    return None


def best_rivals(benchmark: Benchmark, arm: str) -> dict[tuple[str, str], Lead]:
    """Compare an arm with the rival that has the best mean, by subset and region."""
    leads = {}
    for region, by_subset in benchmark.summaries["dice"][arm].items():
        for subset in by_subset:
            means = {a: mean for a in benchmark.arms if (mean := benchmark.dice(a, subset, region)) is not None}
            rivals = [rival for rival in means if rival != arm]
            best = max(rivals, key=lambda rival: means[rival], default=None)
            if best and (lead := find_lead(benchmark, (arm, best), subset, region)):
                leads[subset, region] = lead
    return leads


def signed(value: float) -> str:
    """Print a difference with its sign; one that rounds to zero has none.

    Example:
        >>> signed(0.0123), signed(-0.0123) == _MINUS + "0.012", signed(-0.0001)
        ('+0.012', True, '0.000')
    """
    text = f"{abs(value):.3f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else _MINUS}{text}"


def p_value(p: float) -> str:
    """Print p.

    Example:
        >>> p_value(0.0301), p_value(0.00002)
        ('p = 0.030', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(low: float, high: float) -> str:
    """Print both ends of an interval; a dash where there is none."""
    return f"{signed(low)} to {signed(high)}" if math.isfinite(low) else "-"
