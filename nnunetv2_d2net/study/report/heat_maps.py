"""Tables of subset x region whose cells are colored: the values of each arm, and its lead over the best rival."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib as mpl

from nnunetv2_d2net.study.report.leads import best_rivals, signed
from nnunetv2_d2net.study.report.results import Benchmark
from nnunetv2_d2net.study.scores.tables import METRICS, Summaries, Summary


class Cell(NamedTuple):
    """A colored cell.

    Attributes:
        text: The figure, "-" where there is none.
        background: Color.
        tip: What it says on a closer look.
    """

    text: str
    background: str = ""
    tip: str = ""

    @property
    def ink(self) -> str:
        """Color of the text."""
        return ink(self.background)


class HeatMap(NamedTuple):
    """One table.

    Attributes:
        arm: Name.
        regions: Names of the columns.
        rows: Cells by subset, their mean last.
    """

    arm: str
    regions: list[str]
    rows: dict[str, list[Cell]]


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


def availability(subset: str, modalities: Sequence[str]) -> list[bool]:
    """Tell which modalities a subset has; empty if its name is not made of them."""
    parts = set(subset.split("+"))
    return [name in parts for name in modalities] if parts <= set(modalities) else []


def value_color(share: float) -> str:
    """Return a color between dark blue, for 0, and yellow, for 1, which the color-blind can read.

    Example:
        >>> ink(value_color(0)), ink(value_color(1))
        ('#fff', '#000')
    """
    return _color("cividis", share)


def difference_color(share: float) -> str:
    """Return a color between orange, for -1, near white, for 0, and purple, for 1."""
    return _color("PuOr", (share + 1) / 2)


def ink(background: str) -> str:
    """Return black or white, whichever has more contrast.

    Example:
        >>> ink("#00224e"), ink("#fee838")
        ('#fff', '#000')
    """
    light = luminance(background)
    return "#fff" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000"


def luminance(color: str) -> float:
    """Return relative luminance, in [0, 1], as WCAG defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _color(scale: str, share: float) -> str:
    # an integer would be a place in the scale's table
    red, green, blue, _ = mpl.colormaps[scale](float(min(max(share, 0), 1)), bytes=True)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _heat_map(arm: str, summaries: Summaries, cell: Callable[[str, str, Summary | None], Cell]) -> HeatMap:
    """Lay out one table, of cells that are made from subset, region and what was measured there."""
    subsets = dict.fromkeys(subset for by_subset in summaries.values() for subset in by_subset)
    rows = {s: [cell(s, region, by_subset.get(s)) for region, by_subset in summaries.items()] for s in subsets}
    return HeatMap(arm, list(summaries), rows)


def value_group(benchmark: Benchmark, metric: str) -> Group:
    """Make a table of each arm; they share the metric's scale."""
    by_arm, how = benchmark.summaries[metric], METRICS[metric]
    low, high = _scale([p.mean for s in by_arm.values() for by in s.values() for p in by.values()], metric)

    def cell(subset: str, region: str, part: Summary | None) -> Cell:
        if part is None or math.isnan(part.mean):
            return Cell("-")
        share = (part.mean - low) / (high - low)
        return _value_cell(f"{subset}, {region}", part, metric, share if how.higher_is_better else 1 - share)

    stops = [value_color(step / 8) for step in range(9)]
    better = f"bright is better: {'higher' if how.higher_is_better else 'lower'}"
    maps = [_heat_map(arm, summaries, cell) for arm, summaries in by_arm.items()]
    stops = stops if how.higher_is_better else stops[::-1]
    return Group(metric, how.title, f"{low:g}", f"{high:g}", stops, better, maps)


def _scale(values: Sequence[float], metric: str) -> tuple[float, float]:
    """Round outward to what reads well: tenths of a share, millimeters of a distance."""
    unit = 10 if METRICS[metric].higher_is_better else 1
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = math.floor(min(finite) * unit) / unit, math.ceil(max(finite) * unit) / unit
    return low, high if high > low else low + 1 / unit


def _value_cell(place: str, part: Summary, metric: str, share: float) -> Cell:
    how = METRICS[metric]
    text, sd = f"{part.mean:.{how.digits}f}", f"{part.sd:.{how.digits}f}"
    spread = "" if math.isnan(part.sd) else f" ± {sd} (standard deviation)"
    of = "subsets" if place.startswith("mean of ") else "cases"
    empty = [f"{n} with {what} empty" for n, what in ((part.both_empty, "both"), (part.one_empty, "one")) if n]
    tip = ", ".join([f"{place}: {how.title} {text}{spread}, {part.n} {of}", *empty])
    return Cell(text, value_color(share), tip)


def lead_group(benchmark: Benchmark, arm: str) -> Group:
    """Make a table of an arm's Dice minus that of the rival with the best mean in the same cell."""
    leads = best_rivals(benchmark, arm)
    largest = max((abs(lead.test.mean_difference) for lead in leads.values()), default=0.0)
    end = max(math.ceil(largest * 50) / 50, 0.02)

    def cell(subset: str, region: str, _: Summary | None) -> Cell:
        lead = leads.get((subset, region))
        if lead is None:
            return Cell("-")
        means = f"{arm} {lead.test.mean:.3f}, best rival {lead.test.rival} {lead.test.rival_mean:.3f}"
        tip = "; ".join(filter(None, (f"{subset}, {region}: {means}", lead.figures, lead.contrary)))
        return Cell(lead.marked, difference_color(lead.test.mean_difference / end), tip)

    return Group(
        arm,
        f"{arm} minus the best of the others",
        signed(-end),
        signed(end),
        [difference_color(step / 4 - 1) for step in range(9)],
        f"purple: {arm} is better, orange: the other is",
        [_heat_map(arm, benchmark.summaries["dice"][arm], cell)],
    )
