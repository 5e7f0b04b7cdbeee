"""Volumes and intensities of all cases, side by side."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunetv2_d2net.data.inspect.inspect_cohort import Inspection
from nnunetv2_d2net.data.inspect.outliers import HEAD_FACTOR, VOLUME_FACTOR, far_from_others

_BLUE, OUTLIER = "#2c6e9b", "#e4572e"
_MAX_NAMED = 4
"""Outliers named in one row."""


@style.context("default")  # another library may have changed the style of this process
def draw_volumes(seen: Inspection, path: Path, title: str) -> None:
    """Draw the volume of each class or region and of the head, a dot per case.

    Args:
        seen: The cohort.
        path: PNG to write.
        title: Above the picture.
    """
    rows = [
        (region, {r.case: v for r in seen.records if (v := r.volumes_ml.get(region)) is not None}, VOLUME_FACTOR)
        for region in seen.regions
    ]
    rows.append(("head", {r.case: r.head_ml for r in seen.records if r.head_ml is not None}, HEAD_FACTOR))
    figure = Figure(figsize=(8.5, 1.5 + 0.75 * len(rows)), dpi=120, layout="constrained")
    axis = figure.subplots()
    for y, (_, volumes, factor) in enumerate(rows):
        _draw_row(axis, y, volumes, factor)
    axis.set_yticks(range(len(rows)), [f"{name}\n{_count(volumes)}" for name, volumes, _ in rows], fontsize=9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xscale("log")
    axis.margins(x=0.12)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("volume in ml (a dot for each case, the bar is the median)")
    axis.grid(axis="x", alpha=0.3)
    axis.set_title(title, fontsize=11)
    figure.savefig(path)


@style.context("default")  # another library may have changed the style of this process
def draw_intensities(seen: Inspection, path: Path, title: str) -> None:
    """Draw the range of intensities inside the head, a panel per modality and a column per case.

    Args:
        seen: The cohort.
        path: PNG to write.
        title: Above the picture.
    """
    n = len(seen.names)
    columns = min(n, 4)
    rows = -(-n // columns)
    figure = Figure(figsize=(3.1 * columns + 0.4, 2.9 * rows + 0.6), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for m, (axis, name) in enumerate(zip(panels, seen.names, strict=False)):
        values = [percentiles for r in seen.records if (percentiles := r.percentiles[m]) is not None]
        axis.set_title(f"{name}, {len(values)} cases", fontsize=10)
        axis.set_xticks([])
        if values:
            _draw_ranges(axis, np.array(sorted(values, key=lambda percentiles: percentiles[2])))
    for axis in panels[n:]:
        axis.set_visible(False)
    panels[0].set_ylabel("intensity as stored")
    figure.supxlabel("cases, each modality sorted by its median; bars: percentiles 1 to 99 and 25 to 75", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def _draw_row(axis: Axes, y: int, volumes: Mapping[str, float], factor: float) -> None:
    positive = {case: volume for case, volume in volumes.items() if volume > 0}
    if not positive:
        return
    odd = far_from_others(positive, factor, "ml")
    places = np.array(list(positive.values()))
    offsets = np.random.default_rng(0).uniform(-0.22, 0.22, len(places))  # so that dots do not hide each other
    colors = [OUTLIER if case in odd else _BLUE for case in positive]
    axis.scatter(places, y + offsets, s=14, c=colors, alpha=0.7, linewidths=0)
    axis.vlines(float(np.median(places)), y - 0.32, y + 0.32, color="black", linewidth=2)
    for case, place, offset in zip(positive, places, offsets, strict=True):
        if case in list(odd)[:_MAX_NAMED]:
            axis.annotate(case, (place, y + offset), (3, 3), textcoords="offset points", fontsize=7, color=OUTLIER)


def _count(volumes: Mapping[str, float]) -> str:
    empty = sum(volume == 0 for volume in volumes.values())
    return f"{len(volumes)} cases" + (f", {empty} with none" if empty else "")


def _draw_ranges(axis: Axes, values: np.ndarray) -> None:
    """Draw ``(cases, percentiles)`` as bars."""
    x = np.arange(len(values))
    width = max(0.6, min(4.0, 130 / len(values)))
    axis.vlines(x, values[:, 0], values[:, -1], color="#a9c6da", linewidth=width)
    axis.vlines(x, values[:, 1], values[:, 3], color=_BLUE, linewidth=width)
    axis.plot(x, values[:, 2], ".", color="black", markersize=min(5.0, 1 + 60 / len(values)))
    axis.set_xlim(-1, len(values))
    axis.grid(axis="y", alpha=0.3)
