"""Mean Dice by the number of missing modalities: the figures, and a drawing of them in the page's colors."""

import io
import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib as mpl
from markupsafe import Markup
from matplotlib import style
from matplotlib.figure import Figure

from nnunetv2_d2net.study.report.heat_maps import availability
from nnunetv2_d2net.study.report.results import Benchmark
from nnunetv2_d2net.study.scores.tables import Summary

_WIDTH, _HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 10, 40
_DASHES = ((3, 3), (8, 4), (), (10, 3, 2, 3), (1, 4), (14, 4))
_VARIABLES = ("--paper", "--quiet", "--rule", *(f"--arm-{number}" for number in range(len(_DASHES))))
"""The page's own colors, which differ between light and dark mode."""


class Chart(NamedTuple):
    """One region.

    Attributes:
        region: Name.
        curves: Mean Dice by arm and number of missing modalities.
        svg: The drawing; its points tell arm and figure.
    """

    region: str
    curves: dict[str, dict[int, float]]
    svg: Markup


def charts(benchmark: Benchmark) -> list[Chart]:
    """Draw every region on the same scales; none if no subset is made of the modalities."""
    modalities = benchmark.dataset.channels
    by_region: dict[str, dict[str, dict[int, float]]] = {}
    for arm, summaries in benchmark.summaries["dice"].items():
        for region, by_subset in summaries.items():
            by_region.setdefault(region, {})[arm] = _by_number_missing(by_subset, modalities)
    values = [value for curves in by_region.values() for curve in curves.values() for value in curve.values()]
    if not values:
        return []
    lowest, most = min(int(min(values) * 10) / 10, 0.9), max(len(modalities) - 1, 1)
    return [Chart(r, curves, _draw(r, curves, benchmark.arms, lowest, most)) for r, curves in by_region.items()]


def _by_number_missing(by_subset: dict[str, Summary], modalities: Sequence[str]) -> dict[int, float]:
    """Average the means of the subsets that lack the same number of modalities."""
    means: dict[int, list[float]] = {}
    for subset, part in by_subset.items():
        if available := availability(subset, modalities):
            means.setdefault(available.count(False), []).append(part.mean)
    return {number: fmean(means[number]) for number in sorted(means)}


def line_style(position: int) -> str:
    """Return how the page's legend draws an arm's line, in CSS.

    Example:
        >>> line_style(1)
        'stroke: var(--arm-1); stroke-dasharray: 8 4; stroke-linecap: butt'
    """
    number = position % len(_DASHES)
    dashes = " ".join(map(str, _DASHES[number])) or "none"
    return f"stroke: var(--arm-{number}); stroke-dasharray: {dashes}; stroke-linecap: {_cap(number)}"


@style.context("default")  # another library may have changed the style of this process
def _draw(
    region: str, curves: dict[str, dict[int, float]], arms: Sequence[str], lowest: float, most_missing: int
) -> Markup:
    # the salt makes identifiers that no other drawing of the page has, and that are the same every time
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": region, "lines.scale_dashes": False, "font.size": 12}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP
        axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, width / _WIDTH, height / _HEIGHT))
        axes.set(xlim=(-0.15, most_missing + 0.15), xticks=range(most_missing + 1), xlabel="missing modalities")
        axes.set(ylim=(lowest, 1), yticks=[step / 10 for step in range(round(lowest * 10), 11)])
        axes.tick_params(length=0, labelcolor=_color("--quiet"))
        axes.xaxis.label.set_color(_color("--quiet"))
        axes.grid(axis="y", color=_color("--rule"), linewidth=1)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        titles = {}
        for arm, curve in curves.items():
            number = arms.index(arm) % len(_DASHES)
            how = {"color": _color(f"--arm-{number}"), "clip_on": False}
            dashes = {"linestyle": (0, _DASHES[number] or None), "linewidth": 2.5}
            caps = dict.fromkeys(("solid_capstyle", "dash_capstyle"), _cap(number))
            axes.plot([*curve], [*curve.values()], **dashes, **caps, **how)
            for missing, value in curve.items():
                gid = f"point-{arms.index(arm)}-{missing}"
                titles[gid] = f"{arm}: {value:.3f}"
                axes.plot(missing, value, "o", gid=gid, markersize=7, markeredgecolor=_color("--paper"), **how)
        file, nothing = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue(), region, titles)


def _cap(number: int) -> str:
    return "round" if 1 in _DASHES[number] else "butt"  # dots


def _color(variable: str) -> str:
    """Return the color that stands for one of the page's while matplotlib draws."""
    return f"#abcd{_VARIABLES.index(variable):02x}"


def _inline(svg: str, region: str, titles: dict[str, str]) -> Markup:
    """Make a file of matplotlib's a part of the page: its colors, its names, no identifier that nothing refers to."""
    for variable in _VARIABLES:
        svg = svg.replace(_color(variable), f"var({variable})")
    for gid, title in titles.items():
        svg = svg.replace(f'<g id="{gid}">', Markup("<g><title>{}</title>").format(title))
    content = re.sub(r'<style.*?</style>| id="[\w.]+_\d+"', "", svg[svg.index("<defs") :], flags=re.DOTALL)
    label = f"Mean Dice of {region} by number of missing modalities; the figures are in the table below"
    opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, label)
    return opening + Markup(content)
