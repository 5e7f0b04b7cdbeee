"""One arm against another on the same cases: who is ahead, by how much, and whether chance explains it."""

import math
from typing import NamedTuple

from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.study.report.results import Benchmark
from nnunetv2_d2net.study.scores.comparison import Comparison

LEVEL = 0.05
TIE = 0.02
"""Arms tie where the whole interval of their difference in mean Dice is no farther from 0 than this."""

_MINUS = "\N{MINUS SIGN}"
_MARKS = ((0.001, "***"), (0.01, "**"), (LEVEL, "*"))


class Lead(NamedTuple):
    """What one arm is ahead of its rival, over the cases that both have.

    Attributes:
        test: Dice of the arm minus that of its rival.
        family: Which tests Holm's correction is for.
    """

    test: Comparison
    family: str = "over the subsets"

    @property
    def outcome(self) -> str:
        """``better``, ``ahead``, ``tie``, ``level``, ``behind`` or ``worse``: the first and the last are beyond chance.

        Of a tie it is certain that there is no difference to speak of; level means are equal, perhaps by chance. Where
        fewer than half of the cases differ there is no tie: an interval knows nothing of cases that may, and do not.
        """
        test, difference = self.test, self.test.mean_difference
        tie = is_tie(test.ci_low, test.ci_high) and 2 * (test.n_better + test.n_worse) >= test.n
        level = round(difference, 3) == 0
        if self.test.p_holm < LEVEL and not level:
            return "better" if difference > 0 else "worse"
        if tie or level:
            return "tie" if tie else "level"
        return "ahead" if difference > 0 else "behind"

    @property
    def contrary(self) -> str:
        """What the ranks say, if that is the opposite of what the mean says; else nothing."""
        test = self.test
        if test.rank_difference * test.mean_difference >= 0:
            return ""
        cases = f"better in {test.n_better} of {counted(test.n, 'case')} and worse in {test.n_worse}"
        return f"by ranks it is the other way round, {cases} (Wilcoxon {p_value(test.p_ranks)})"

    @property
    def marked(self) -> str:
        """The difference, with stars for p after Holm's correction below 0.05, 0.01 and 0.001."""
        mark = next((mark for level, mark in _MARKS if self.test.p_holm < level), "")
        return signed(self.test.mean_difference) + mark

    @property
    def figures(self) -> str:
        """The difference, its interval, p and the number of cases, in words."""
        test = self.test
        ends = "" if math.isnan(test.ci_low) else f"95 % CI {interval(test.ci_low, test.ci_high)}, "
        corrected = f", {p_value(test.p_holm)} after Holm's correction {self.family}" if test.p_holm != test.p else ""
        cases = counted(test.n, "case") + (f" ({test.n_left_out} left out)" if test.n_left_out else "")
        return f"difference {signed(test.mean_difference)}, {ends}{p_value(test.p)}{corrected}, {cases}"


def find_lead(benchmark: Benchmark, arm: str, rival: str, subset: str, region: str) -> Lead | None:
    """Look up the comparison of two arms, whichever of them it names first; None if they were not compared there."""
    for row in benchmark.comparisons:
        if (row.subset, row.region) == (subset, region) and {row.arm, row.rival} == {arm, rival}:
            return Lead(row if row.arm == arm else row.reversed())
    return None


def best_rivals(benchmark: Benchmark, arm: str) -> dict[tuple[str, str], Lead]:
    """Compare an arm with the rival that is best on the cases that both have, by subset and region."""
    rivals, best = [name for name in benchmark.arms if name != arm], {}
    for region, by_subset in benchmark.summaries["dice"][arm].items():
        for subset in by_subset:
            leads = (find_lead(benchmark, arm, rival, subset, region) for rival in rivals)
            if known := [lead for lead in leads if lead]:
                best[subset, region] = min(known, key=lambda lead: lead.test.mean_difference)
    return best


def is_tie(low: float, high: float) -> bool:
    """Tell whether an interval holds no difference to speak of; never if it is unknown.

    Example:
        >>> is_tie(-0.01, 0.02), is_tie(0.0, 0.021), is_tie(math.nan, math.nan)
        (True, False, False)
    """
    return -TIE <= low <= high <= TIE


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
