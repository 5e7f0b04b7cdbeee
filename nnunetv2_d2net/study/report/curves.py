"""Mean Dice by the number of missing modalities, drawn as SVG."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from nnunetv2_d2net.study.report.benchmark_folder import Benchmark
from nnunetv2_d2net.study.report.heat_maps import availability
from nnunetv2_d2net.study.scores.tables import Summary

WIDTH, HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 10, 40


class Curve(NamedTuple):
    """One arm in one region.

    Attributes:
        arm: Name.
        values: Mean Dice by the number of missing modalities.
        points: Where they are drawn, with the value as text.
        path: Of the line, in SVG's words.
    """

    arm: str
    values: dict[int, float]
    points: list[tuple[float, float, str]]
    path: str


class Tick(NamedTuple):
    """A mark on an axis: where, and what it says."""

    at: float
    text: str


class Chart(NamedTuple):
    """One region: a curve for each arm, and the marks on both axes."""

    region: str
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def charts(benchmark: Benchmark) -> list[Chart]:
    """Draw every region on the same scales; none if no subset is made of the modalities."""
    by_arm = {
        arm: {region: by_number_missing(by, benchmark.modalities) for region, by in summaries.items()}
        for arm, summaries in benchmark.summaries["dice"].items()
    }
    values = [value for regions in by_arm.values() for by in regions.values() for value in by.values()]
    if not values:
        return []
    low, high = min(int(min(values) * 10) / 10, 0.9), 1.0
    last = max(len(benchmark.modalities) - 1, 1)
    regions = dict.fromkeys(region for found in by_arm.values() for region in found)
    return [
        Chart(
            region,
            [_curve(arm, found[region], low, high, last) for arm, found in by_arm.items() if region in found],
            [Tick(_x(number, last), str(number)) for number in range(last + 1)],
            [Tick(_y(step / 10, low, high), f"{step / 10:.1f}") for step in range(round(low * 10), 11)],
        )
        for region in regions
    ]


def by_number_missing(by_subset: dict[str, Summary], modalities: Sequence[str]) -> dict[int, float]:
    """Average the subsets that lack the same number of modalities.

    Args:
        by_subset: Of one region.
        modalities: M names.

    Returns:
        Mean of the subsets' means by number, from 0.
    """
    found: dict[int, list[float]] = {}
    for subset, part in by_subset.items():
        available = availability(subset, modalities)
        if available:
            found.setdefault(available.count(False), []).append(part.mean)
    return {number: fmean(found[number]) for number in sorted(found)}


def _curve(arm: str, values: dict[int, float], low: float, high: float, last: int) -> Curve:
    points = [(_x(number, last), _y(value, low, high), f"{value:.3f}") for number, value in values.items()]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points) if points else ""
    return Curve(arm, values, points, path)


def _x(number: int, last: int) -> float:
    return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (number + 0.15) / (last + 0.3), 1)


def _y(value: float, low: float, high: float) -> float:
    return round(HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * (value - low) / (high - low), 1)
