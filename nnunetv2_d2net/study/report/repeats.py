"""The same arms trained several times: how far trainings differ by chance, and which differences are larger."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.study.report.leads import interval, p_value, signed
from nnunetv2_d2net.study.report.results import Benchmark, mean_name

_SAME = ("dataset", "configuration", "plans", "folds", "cases", "mirroring", "modalities", "regions")
TIE = 0.02
"""A difference in mean Dice that is no more than this is called a tie, whatever its p."""


class Difference(NamedTuple):
    """An arm against the control: means of trainings, not of cases.

    Attributes:
        arm: Name.
        difference: Mean Dice of the arm's trainings minus that of the control's.
        ci_low: Of the simultaneous 95 % interval; NaN if no arm was trained twice.
        ci_high: Likewise.
        p: Of Dunnett's test, two-sided, corrected for the number of arms; NaN likewise.
    """

    arm: str
    difference: float
    ci_low: float
    ci_high: float
    p: float


def check_repeats(runs: Sequence[Benchmark]) -> None:
    """Refuse benchmarks that are no repetitions of each other.

    Raises:
        UserError: There is one only, settings, cases or schedules differ, or two hold the scores of one training.
    """
    if len(runs) < 2:
        raise UserError("one benchmark is no repetition: name the folders of at least two")
    for run in runs[1:]:
        _check_alike(run, runs[0])
    for run, other in combinations(runs, 2):
        for arm in (arm for arm in run.arms if arm in other.arms):
            _check_trainings(arm, run, other)


def _check_alike(run: Benchmark, first: Benchmark) -> None:
    for key in _SAME:
        if run.setup.get(key) != first.setup.get(key):
            raise UserError(f"{run.folder} has other {key} than {first.folder}: only like benchmarks are repetitions")
    if run.cases != first.cases:
        raise UserError(f"{run.folder} was scored on other cases than {first.folder}: only like ones are repetitions")


def _check_trainings(arm: str, run: Benchmark, other: Benchmark) -> None:
    schedules = [next(entry for entry in b.setup["arms"] if entry["name"] == arm) for b in (run, other)]
    if schedules[0] != schedules[1]:
        raise UserError(f"{run.folder} has trained {arm} otherwise than {other.folder}: see both setup.json")
    if run.scores[arm] == other.scores[arm] or run.checkpoints[arm] & other.checkpoints[arm]:
        raise UserError(
            f"{arm} is one and the same training in {run.folder} and {other.folder}: give each benchmark an "
            "nnUNet_results of its own"
        )


def dice_of_trainings(runs: Sequence[Benchmark], *, complete: bool) -> dict[str, dict[str, list[float]]]:
    """Collect mean Dice by arm and region, a value for each training.

    Args:
        runs: The benchmarks; each may have other arms.
        complete: With all modalities; else averaged over all subsets.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for arm in run.arms:
            for region, by_subset in run.summaries["dice"][arm].items():
                part = by_subset.get(run.dataset.complete if complete else mean_name(by_subset))
                if part:
                    values.setdefault(arm, {}).setdefault(region, []).append(part.mean)
    return values


def differences(values: Mapping[str, Sequence[float]], control: str) -> list[Difference]:
    """Compare every arm with the control by Dunnett's test, which takes the spread of trainings as equal for all arms.

    Source: Dunnett, J Am Stat Assoc 50(272):1096-1121, 1955.

    Args:
        values: Mean Dice of each training, by arm.
        control: Name of the arm that the others are compared with.
    """
    rivals = [arm for arm in values if arm != control]
    means = [fmean(values[arm]) - fmean(values[control]) for arm in rivals]
    unknown = [Difference(arm, mean, math.nan, math.nan, math.nan) for arm, mean in zip(rivals, means, strict=True)]
    if not rivals or not any(len(found) > 1 and np.ptp(found) > 0 for found in values.values()):
        return unknown
    # newer SciPy calls it rng, and still takes the name that older ones know
    generator: dict[str, Any] = {"random_state": np.random.default_rng(0)}
    with warnings.catch_warnings():  # of arms with a single training, which add nothing to the spread
        warnings.simplefilter("ignore", RuntimeWarning)
        tested = stats.dunnett(
            *(np.array(values[arm]) for arm in rivals), control=np.array(values[control]), **generator
        )
        ends = tested.confidence_interval(0.95)
    rows = zip(rivals, means, ends.low, ends.high, tested.pvalue, strict=True)
    return [Difference(arm, mean, float(low), float(high), float(p)) for arm, mean, low, high, p in rows]


def repeats_page(runs: Sequence[Benchmark], control: str | None = None) -> str:
    """Lay out means and spreads of trainings, and differences to the control, as Markdown.

    Args:
        runs: The benchmarks.
        control: The arm that all others are compared with; None for the first benchmark's arm in focus.

    Raises:
        UserError: They are no repetitions of each other, or none has the control.
    """
    check_repeats(runs)
    control = control or runs[0].focus
    arms = list(dict.fromkeys(arm for run in runs for arm in run.arms))
    if control not in arms:
        raise UserError(f"no benchmark has {control}: choose --against among {', '.join(arms)}")
    parts = [
        f"# {runs[0].setup.get('dataset')}: {len(runs)} benchmarks, each trained anew",
        "Dice, mean ± standard deviation over trainings (of each, the mean over cases).",
    ]
    for title, complete in (("With all modalities", True), ("Mean of the subsets", False)):
        found = dice_of_trainings(runs, complete=complete)
        if not found:  # no case has all modalities
            continue
        parts += [f"## {title}", _means(found)]
        overall = runs[0].overall_region
        compared = differences({arm: regions[overall] for arm, regions in found.items()}, control)
        if compared:
            parts += [f"Against {control}, {overall}:", _compared(compared)]
    parts.append(
        "95 % intervals and p of Dunnett's test: simultaneous for all rows, with one spread of trainings for all arms. "
        f"A difference up to {TIE} is a tie. Cases are not resampled: other cases may give another order."
    )
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _means(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    regions = list(next(iter(found.values())))
    rows = [
        [arm, str(max(map(len, by_region.values()))), *(_spread(by_region.get(region, ())) for region in regions)]
        for arm, by_region in found.items()
    ]
    return markdown_table([["arm", "trainings", *regions], *rows])


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _compared(rows: Sequence[Difference]) -> str:
    cells = [["arm", "difference", "95 % interval", "p", ""]]
    for row in rows:
        p = p_value(row.p) if math.isfinite(row.p) else "-"
        cells.append([row.arm, signed(row.difference), interval(row.ci_low, row.ci_high), p, _word(row)])
    return markdown_table(cells)


def _word(part: Difference) -> str:
    if abs(part.difference) <= TIE:
        return "tie"
    if not part.p < 0.05:  # NaN included
        return "may be chance"
    return "better" if part.difference > 0 else "worse"
