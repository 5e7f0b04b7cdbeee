"""The same arms trained several times: how far trainings differ by chance, and which differences are larger."""

import math
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.text import counted, markdown_table
from nnunetv2_d2net.study.report.leads import LEVEL, TIE, interval, is_tie, p_value, signed
from nnunetv2_d2net.study.report.results import Benchmark
from nnunetv2_d2net.study.scores.comparison import shared_cases

_SAME = ("dataset", "configuration", "plans", "folds", "cases", "mirroring", "subsets", "modalities", "regions")
_SCORED: dict[str, Callable[[Benchmark], Any]] = {
    "cases": lambda run: run.cases,
    # how large their regions are, which other data of the same names have otherwise
    "references": lambda run: {(s.case, s.region): s.reference_voxels for rows in run.scores.values() for s in rows},
}
REPEATED = "each trained anew"
"""By these words in its title the page is known."""

_NONE = math.nan, math.nan
_PAIRED = "from the same starts"
_ABOUT_PAIRS = (
    "From the same starts: of trainings that began with one stock model, or are that model, the 95 % interval of their "
    "differences by the paired t-test, not corrected for the number of rows."
)
_ABOUT = (
    "95 % intervals and p of Dunnett's test: simultaneous for all rows, with one spread of trainings for all arms. "
    f"Where the whole interval lies within {TIE}, arms tie. "
    "Of the two alone: Welch's 95 % interval, each arm with its own spread, not corrected for the number of rows. "
    "Cases are not resampled: other cases may give another order."
)
_NOT_ALWAYS_NOTED = ("steps_before", "optimizer", "p_complete")  # by earlier versions


def check_repeats(runs: Sequence[Benchmark]) -> None:
    """Refuse benchmarks that are no repetitions of each other.

    Raises:
        UserError: There is one only, settings, cases or schedules differ, or two hold the scores of one training.
    """
    if len(runs) < 2:
        raise UserError("one benchmark is no repetition: name the folders of at least two")
    first = runs[0].folder
    for run in runs[1:]:
        for key in _SAME:
            if run.setup.get(key) != runs[0].setup.get(key):
                raise UserError(f"{run.folder} has other {key} than {first}: only like benchmarks are repetitions")
        if other := [what for what, of in _SCORED.items() if of(run) != of(runs[0])]:
            raise UserError(f"{run.folder} was scored on other {other[0]} than {first}: only like ones are repetitions")
    for run, other in combinations(runs, 2):
        for arm in (arm for arm in run.arms if arm in other.arms):
            _check_trainings(arm, run, other)


def _check_trainings(arm: str, run: Benchmark, other: Benchmark) -> None:
    schedules = [next(entry for entry in b.setup["arms"] if entry["name"] == arm) for b in (run, other)]
    one, two = map(_schedule, schedules)
    unknown = {key for key in _NOT_ALWAYS_NOTED if key not in one or key not in two}
    if any(one.get(key) != two.get(key) for key in (one.keys() | two.keys()) - unknown):
        raise UserError(f"{run.folder} has trained {arm} otherwise than {other.folder}: see both setup.json")
    known = run.checkpoints[arm] and other.checkpoints[arm]
    if run.checkpoints[arm] & other.checkpoints[arm] if known else run.scores[arm] == other.scores[arm]:
        raise UserError(
            f"{arm} is one and the same training in {run.folder} and {other.folder}: give each benchmark an "
            "nnUNet_results of its own"
        )


def _schedule(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return how an arm trained, without where its start lies."""
    return {**arm, "start": arm.get("start", {}).get("epochs")}


def shared_starts(runs: Sequence[Benchmark]) -> list[str]:
    """Say which trainings start from one and the same stock model, a line for each arm in which several do."""
    starts: dict[str, list[str]] = {}
    for arm in (arm for run in runs for arm in run.setup["arms"]):
        if digest := arm.get("start", {}).get("sha256"):
            starts.setdefault(arm["name"], []).append(digest)
    return [
        f"{len(digests)} trainings of {arm} start from {counted(len(set(digests)), 'stock model')}: "
        "how far trainings of that differ is not in their spread."
        for arm, digests in starts.items()
        if len(set(digests)) < len(digests)
    ]


def dice_of_trainings(
    runs: Sequence[Benchmark], *, complete: bool
) -> tuple[dict[str, dict[str, dict[int, float]]], int]:
    """Collect mean Dice by arm and region, a value for each training, over the cases that all trainings share.

    Args:
        runs: The benchmarks; each may have other arms.
        complete: With all modalities; else averaged over all subsets.

    Returns:
        The values, by position of the benchmark; and how many cases were left out, because they lack a subset in one
        of the trainings.
    """
    values: dict[str, dict[str, dict[int, float]]] = {}
    subsets, n_left_out = [runs[0].dataset.complete] if complete else runs[0].subsets, 0
    for region in next(iter(runs[0].tables.values())):
        trainings = [(i, arm) for i, run in enumerate(runs) for arm in run.arms if region in run.tables[arm]]
        tables = [runs[i].tables[arm][region] for i, arm in trainings]
        shared, left_out = shared_cases(tables, subsets, runs[0].weights)
        n_left_out = max(n_left_out, left_out)
        for (i, arm), dice in zip(trainings, shared if shared.size else (), strict=False):
            values.setdefault(arm, {}).setdefault(region, {})[i] = float(dice.mean())
    return values, n_left_out


def _start(run: Benchmark, arm: str) -> Hashable:
    """Name the stock model that an arm starts from; itself, if from none.

    Only the benchmark that trains a companion notes its start's digest; a stock model that is an arm has its own.
    """
    start = next(entry for entry in run.setup["arms"] if entry["name"] == arm).get("start", {})
    name, noted = start.get("from", arm), start.get("sha256")
    digests = frozenset(run.checkpoints.get(name) or ([noted] if noted else ()))
    return digests or (run.folder, name)  # of that name each benchmark has its own


def from_the_same_starts(
    runs: Sequence[Benchmark], values: Mapping[str, Mapping[int, float]], control: str
) -> dict[str, tuple[float, float]]:
    """Compare arms with the control training by training, where both began with one stock model, or one is that model.

    How much the stock models differ is then no part of the difference.

    Args:
        runs: The benchmarks.
        values: Mean Dice by arm and position of the benchmark.
        control: Name of the arm that the others are compared with.

    Returns:
        The 95 % interval of the mean difference by Student's paired t-test, by arm; only of those with at least two
        pairs of different starts that do not differ all alike.
    """
    intervals = {}
    for arm in values.keys() - {control}:
        starts = {i: _start(runs[i], arm) for i in values[arm].keys() & values[control].keys()}
        pairs = [i for i, start in sorted(starts.items()) if start == _start(runs[i], control)]
        gains = np.array([values[arm][i] - values[control][i] for i in pairs])
        if len({starts[i] for i in pairs}) > 1 and np.ptp(gains) > 0:
            intervals[arm] = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    return intervals


def differences(values: Mapping[str, Sequence[float]], control: str) -> pd.DataFrame:
    """Compare every arm with the control: by Dunnett's test, with one spread for all, and by Welch's.

    Sources: Dunnett, J Am Stat Assoc 50(272):1096-1121, 1955; Welch, Biometrika 34(1-2):28-35, 1947.

    Args:
        values: Mean Dice of each training, by arm.
        control: Name of the arm that the others are compared with.

    Returns:
        A row per arm: ``difference``, mean of the arm's trainings minus that of the control's; ``ci_low`` and
        ``ci_high`` of the simultaneous 95 % interval, and ``p``, two-sided, corrected for the number of arms, NaN if
        no arm was trained twice; ``own_low`` and ``own_high`` of the 95 % interval of the two arms alone, NaN unless
        both were.
    """
    rivals = {arm: np.array(dice) for arm, dice in values.items() if arm != control}
    means = {arm: fmean(dice) - fmean(values[control]) for arm, dice in rivals.items()}
    table = pd.DataFrame({"difference": means, "ci_low": math.nan, "ci_high": math.nan, "p": math.nan})
    own = [_of_two(dice, np.array(values[control])) for dice in rivals.values()]
    table[["own_low", "own_high"]] = np.array(own).reshape(-1, 2)
    if not rivals or not any(len(dice) > 1 and np.ptp(dice) > 0 for dice in values.values()):
        return table
    with warnings.catch_warnings():  # of arms with a single training, which add nothing to the spread
        warnings.simplefilter("ignore", RuntimeWarning)
        tested = stats.dunnett(*rivals.values(), control=np.array(values[control]), rng=np.random.default_rng(0))
        ends = tested.confidence_interval(0.95)
    return table.assign(ci_low=ends.low, ci_high=ends.high, p=tested.pvalue)


def _of_two(dice: NDArray[np.float64], of_control: NDArray[np.float64]) -> tuple[float, float]:
    """Return Welch's 95 % interval of a difference of means; NaN where a spread is not known, or there is none."""
    if min(len(dice), len(of_control)) < 2 or not (np.ptp(dice) > 0 or np.ptp(of_control) > 0):
        return _NONE
    return stats.ttest_ind(dice, of_control, equal_var=False).confidence_interval(0.95)


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
        f"# {runs[0].setup.get('dataset')}: {len(runs)} benchmarks, {REPEATED}",
        "Dice, mean ± standard deviation over trainings (of each, the mean over cases).",
    ]
    for title, complete in (("With all modalities", True), ("Mean of the subsets", False)):
        found, n_left_out = dice_of_trainings(runs, complete=complete)
        if not found:  # no case has all modalities
            if n_left_out:
                parts += [f"## {title}", "No case has all of them in every training."]
            continue
        parts += [f"## {title}", _means(found)]
        if n_left_out:
            parts.append(f"Left out for want of a subset in one of the trainings: {counted(n_left_out, 'case')}.")
        overall = runs[0].overall_region
        by_run = {arm: regions[overall] for arm, regions in found.items()}
        compared = differences({arm: list(dice.values()) for arm, dice in by_run.items()}, control)
        if len(compared):
            table = _compared(compared, from_the_same_starts(runs, by_run, control))
            parts += [f"Against {control}, {overall}:", table]
    parts += shared_starts(runs)
    if any(_PAIRED in part for part in parts):
        parts.append(_ABOUT_PAIRS)
    parts.append(_ABOUT)
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _means(found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> str:
    regions = list(next(iter(found.values())))
    rows = [["arm", "trainings", *regions]]
    for arm, by_region in found.items():
        spreads = [_spread([*by_region.get(region, {}).values()]) for region in regions]
        rows.append([arm, str(max(map(len, by_region.values()))), *spreads])
    return markdown_table(rows)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _compared(table: pd.DataFrame, paired: Mapping[str, tuple[float, float]]) -> str:
    last = [_PAIRED] if paired else []
    rows = [["arm", "difference", "95 % interval", "p", "", "of the two alone", *last]]
    for arm, difference, low, high, p, *own in table.itertuples():
        known, judged = p_value(p) if math.isfinite(p) else "-", _judgment(difference, low, high, p)
        of_pairs = [interval(*paired.get(str(arm), _NONE))] if paired else []
        rows.append([arm, signed(difference), interval(low, high), known, judged, interval(*own), *of_pairs])
    return markdown_table(rows)


def _judgment(difference: float, low: float, high: float, p: float) -> str:
    tie = is_tie(low, high)
    if not p < LEVEL:  # NaN included
        return "tie" if tie else "may be chance"
    return ("better" if difference > 0 else "worse") + (f", by less than {TIE}" if tie else "")
