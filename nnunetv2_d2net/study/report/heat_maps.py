"""Tables of subset x region whose cells are colored: the values of each arm, and its lead over the best rival."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nnunetv2_d2net.study.report.benchmark_folder import Benchmark
from nnunetv2_d2net.study.report.colors import difference_color, difference_stops, ink, value_color, value_stops
from nnunetv2_d2net.study.report.contest import Contest, find_contest, signed
from nnunetv2_d2net.study.scores.tables import METRICS, Summaries, Summary


class Cell(NamedTuple):
    """A colored cell.

    Attributes:
        text: The figure, "-" where there is none.
        background: Color.
        ink: Color of the text.
        tip: What it says on a closer look.
    """

    text: str
    background: str = ""
    ink: str = ""
    tip: str = ""


class Row(NamedTuple):
    """One subset.

    Attributes:
        name: Of the subset.
        available: Which modalities it has; empty for a mean over subsets, or a name not made of modalities.
        cells: One per region.
    """

    name: str
    available: list[bool]
    cells: list[Cell]


class HeatMap(NamedTuple):
    """One table.

    Attributes:
        arm: Name.
        regions: Names of the columns.
        rows: Subsets, their mean last.
    """

    arm: str
    regions: list[str]
    rows: list[Row]


class Group(NamedTuple):
    """Tables with one scale.

    Attributes:
        name: Of the metric, or of the arm.
        title: For people.
        low: Left end of the legend.
        high: Right end.
        stops: Colors of the legend, from left to right.
        better: Which end is better, in words.
        maps: The tables.
    """

    name: str
    title: str
    low: str
    high: str
    stops: list[str]
    better: str
    maps: list[HeatMap]


def value_groups(benchmark: Benchmark) -> list[Group]:
    """Make a table of each metric and arm; arms share a metric's scale."""
    return [_value_group(benchmark, metric) for metric in METRICS]


def lead_groups(benchmark: Benchmark) -> list[Group]:
    """Make a table for each arm: Dice minus that of the rival with the best mean in the same cell."""
    if len(benchmark.arms) < 2:
        return []
    return [_lead_group(benchmark, arm) for arm in benchmark.arms]


def lead_contests(benchmark: Benchmark, arm: str) -> dict[tuple[str, str], Contest]:
    """Compare an arm with its best rival, by subset and region."""
    dice = benchmark.summaries["dice"]
    found = {}
    for region, by_subset in dice[arm].items():
        for subset, part in by_subset.items():
            means = {a: dice[a][region][subset].mean for a in benchmark.arms if subset in dice[a].get(region, {})}
            rivals = {a: mean for a, mean in means.items() if a != arm}
            if not rivals:
                continue
            best = max(rivals, key=lambda rival: rivals[rival])
            pair = (part.mean, rivals[best])
            contest = find_contest(benchmark.comparisons, (arm, best), subset, region, pair)
            if contest:
                found[subset, region] = contest
    return found


def row_names(summaries: Summaries) -> list[str]:
    """Return the subsets, then their mean."""
    return list(dict.fromkeys(subset for by_subset in summaries.values() for subset in by_subset))


def availability(subset: str, modalities: Sequence[str]) -> list[bool]:
    """Tell which modalities a subset has; empty if its name is not made of them."""
    parts = set(subset.split("+"))
    return [name in parts for name in modalities] if parts <= set(modalities) else []


def _value_group(benchmark: Benchmark, metric: str) -> Group:
    by_arm, how = benchmark.summaries[metric], METRICS[metric]
    low, high = _scale([p.mean for s in by_arm.values() for by in s.values() for p in by.values()], metric)
    stops = value_stops()
    maps = []
    for arm, summaries in by_arm.items():
        rows = [
            Row(
                subset,
                availability(subset, benchmark.modalities),
                [_value_cell(region, subset, by.get(subset), metric, (low, high)) for region, by in summaries.items()],
            )
            for subset in row_names(summaries)
        ]
        maps.append(HeatMap(arm, list(summaries), rows))
    better = "bright is better: higher" if how.higher_is_better else "bright is better: lower"
    stops = stops if how.higher_is_better else stops[::-1]
    return Group(metric, how.title, f"{low:g}", f"{high:g}", stops, better, maps)


def _scale(values: Sequence[float], metric: str) -> tuple[float, float]:
    """Round outward to what reads well: tenths of a share, millimeters of a distance."""
    unit = 10 if METRICS[metric].higher_is_better else 1
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = math.floor(min(finite) * unit) / unit, math.ceil(max(finite) * unit) / unit
    return low, high if high > low else low + 1 / unit


def _value_cell(region: str, subset: str, part: Summary | None, metric: str, scale: tuple[float, float]) -> Cell:
    if part is None or math.isnan(part.mean):
        return Cell("-")
    how = METRICS[metric]
    share = (part.mean - scale[0]) / (scale[1] - scale[0])
    color = value_color(share if how.higher_is_better else 1 - share)
    sd = "" if math.isnan(part.sd) else f" ± {part.sd:.{how.digits}f} (standard deviation)"
    of = "subsets" if subset.startswith("mean of ") else "cases"
    text = f"{part.mean:.{how.digits}f}"
    empty = [f"{n} with {what} empty" for n, what in ((part.both_empty, "both"), (part.one_empty, "one")) if n]
    tip = f"{subset}, {region}: {how.title} {text}{sd}, {part.n} {of}"
    return Cell(text, color, ink(color), ", ".join([tip, *empty]))


def _lead_group(benchmark: Benchmark, arm: str) -> Group:
    found = lead_contests(benchmark, arm)
    largest = max((abs(contest.difference) for contest in found.values()), default=0.0)
    end = max(math.ceil(largest * 50) / 50, 0.02)
    return Group(
        arm,
        f"{arm} minus the best of the others",
        signed(-end),
        signed(end),
        difference_stops(),
        f"purple: {arm} is better, orange: the other is",
        [_lead_map(benchmark, arm, found, end)],
    )


def _lead_map(benchmark: Benchmark, arm: str, found: Mapping[tuple[str, str], Contest], end: float) -> HeatMap:
    summaries = benchmark.summaries["dice"][arm]
    rows = [
        Row(
            subset,
            availability(subset, benchmark.modalities),
            [_lead_cell(found.get((subset, region)), end) for region in summaries],
        )
        for subset in row_names(summaries)
    ]
    return HeatMap(arm, list(summaries), rows)


def _lead_cell(contest: Contest | None, end: float) -> Cell:
    if contest is None:
        return Cell("-")
    color = difference_color(contest.difference / end)
    means = f"{contest.arm} {contest.dice:.3f}, best rival {contest.rival} {contest.rival_dice:.3f}"
    tip = f"{contest.subset}, {contest.region}: {means}; {contest.figures()}"
    return Cell(f"{signed(contest.difference)}{contest.mark}", color, ink(color), tip)
