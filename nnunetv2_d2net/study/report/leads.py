"""One arm against another on the same cases: who is ahead, by how much, and whether chance explains it."""

import math
from typing import NamedTuple

from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.study.report.results import Benchmark
from nnunetv2_d2net.study.scores.comparison import Comparison

LEVEL = 0.05
_MINUS = "\N{MINUS SIGN}"
_MARKS = ((0.001, "***"), (0.01, "**"), (LEVEL, "*"))


class Lead(NamedTuple):
    """What one arm is ahead of its rival.

    Attributes:
        test: Dice of the arm minus that of its rival.
        dice: The arm's mean.
        rival_dice: The rival's mean.
    """

    test: Comparison
    dice: float
    rival_dice: float

    @property
    def outcome(self) -> str:
        """``better``, ``ahead``, ``equal``, ``behind`` or ``worse``; only the first and the last are beyond chance."""
        if round(self.test.mean_difference, 3) == 0:
            return "equal"
        if self.test.p_holm < LEVEL:
            return "better" if self.test.mean_difference > 0 else "worse"
        return "ahead" if self.test.mean_difference > 0 else "behind"

    @property
    def marked(self) -> str:
        """The difference, with stars for p after Holm's correction below 0.05, 0.01 and 0.001."""
        mark = next((mark for level, mark in _MARKS if self.test.p_holm < level), "")
        return signed(self.test.mean_difference) + mark

    @property
    def figures(self) -> str:
        """The difference, its interval, p and the number of cases, in words."""
        *_, n, difference, low, high, p, p_holm = self.test
        ends = "" if math.isnan(low) else f"95 % CI {interval(low, high)}, "
        corrected = "" if p_holm == p else f", {p_value(p_holm)} after Holm's correction"
        return f"difference {signed(difference)}, {ends}{p_value(p)}{corrected}, {counted(n, 'case')}"


def find_lead(benchmark: Benchmark, arm: str, rival: str, subset: str, region: str) -> Lead | None:
    """Look up the comparison of two arms, whichever of them it names first; None if they were not compared there."""
    dice, rival_dice = (benchmark.dice(name, subset, region) for name in (arm, rival))
    if dice is None or rival_dice is None:
        return None
    for row in benchmark.comparisons:
        if (row.subset, row.region) == (subset, region) and {row.arm, row.rival} == {arm, rival}:
            sign = 1 if row.arm == arm else -1
            low, high = sorted((sign * row.ci_low, sign * row.ci_high))
            test = Comparison(arm, rival, subset, region, row.n, sign * row.mean_difference, low, high, *row[-2:])
            return Lead(test, dice, rival_dice)
    return None


def best_rivals(benchmark: Benchmark, arm: str) -> dict[tuple[str, str], Lead]:
    """Compare an arm with the rival that has the best mean, by subset and region."""
    leads = {}
    for region, by_subset in benchmark.summaries["dice"][arm].items():
        for subset in by_subset:
            means = {name: benchmark.dice(name, subset, region) for name in benchmark.arms if name != arm}
            rivals = {name: mean for name, mean in means.items() if mean is not None}
            best = max(rivals, key=lambda name: rivals[name], default=None)
            if best and (lead := find_lead(benchmark, arm, best, subset, region)):
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


def interval(low: float, high: float) -> str:
    """Print both ends of an interval; a dash where there is none."""
    return f"{signed(low)} to {signed(high)}" if math.isfinite(low) else "-"


def p_value(p: float) -> str:
    """Print p.

    Example:
        >>> p_value(0.0301), p_value(0.00002)
        ('p = 0.030', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
