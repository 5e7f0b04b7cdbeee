"""The cohort in pictures: who has what as a matrix, and volumes and intensities of all cases side by side."""

from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.data.inspect.record import AVAILABLE, STATES, Inspection, measurements, pattern_name
from nnunetv2_d2net.data.inspect.suspicions import far_from_others

COLORS: dict[str, str] = dict(zip(STATES, ("#2c6e9b", "#e9e9e9", "#f2b134", "#8e4fa8", "#c8102e"), strict=True))
SUSPICIOUS = "#e4572e"
_BLUE = COLORS[AVAILABLE]

_MAX_ROWS_NAMED = 60
"""Rows of the matrix that still have room for the case's name."""

_MAX_OUTLIERS_NAMED = 4
"""In one row of volumes."""


@style.context("default")  # another library may have changed the style of this process
def draw_pictures(inspection: Inspection, folder: Path) -> None:
    """Draw ``cohort.png``, ``intensities.png`` and ``volumes.png``.

    Raises:
        UserError: They cannot be written.
    """
    pictures = {"cohort": _draw_matrix, "intensities": _draw_intensities, "volumes": _draw_volumes}
    for name, draw in pictures.items():
        figure = draw(inspection)
        with written_whole(folder / f"{name}.png") as path:
            figure.savefig(path, bbox_inches="tight")


def _draw_matrix(inspection: Inspection) -> Figure:
    """Draw a row per case and a column per modality, cases with the same modalities together."""
    records, names, suspicious = inspection.records, inspection.dataset.channels, inspection.suspicious
    n, m = len(records), len(names)
    height = float(np.clip(0.2 * n, 2.4, 12))
    dpi = max(120, int(np.ceil(n / height)))  # no row may fall between two pixels
    figure = Figure(figsize=(0.85 * (m + 1), height), dpi=dpi)
    axis = figure.add_axes((0, 0, 1, 1))  # names are written around it
    cells = np.array([[*map(STATES.index, r.states), len(STATES) + (r.case in suspicious)] for r in records])
    colors, top = ListedColormap([*COLORS.values(), "white", SUSPICIOUS]), len(STATES) + 1.5
    axis.imshow(cells, cmap=colors, vmin=-0.5, vmax=top, aspect="auto", interpolation="nearest")
    _name_columns(axis, inspection)
    _name_rows(axis, inspection)
    _name_patterns(axis, inspection, rows_per_line=0.2 * n / height)
    used = [state for k, state in enumerate(STATES) if (cells == k).any()]
    patches = [Patch(color=COLORS[state], label=state) for state in used]
    if suspicious:
        patches.append(Patch(color=SUSPICIOUS, label="something looks wrong"))
    axis.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False, fontsize=9)
    axis.set_title(inspection.title, fontsize=11, pad=12)
    return figure


def _name_columns(axis: Axes, inspection: Inspection) -> None:
    names, n = inspection.dataset.channels, len(inspection.records)
    counts = np.sum([record.pattern for record in inspection.records], axis=0)
    labels = [f"{name}\n{count}/{n}" for name, count in zip(names, counts, strict=True)]
    axis.set_xticks(range(len(names) + 1), [*labels, f"suspicious\n{len(inspection.suspicious)}/{n}"], fontsize=9)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for column in range(len(names) + 1):
        axis.axvline(column - 0.5, color="white", linewidth=2)
    axis.spines[:].set_visible(False)


def _name_rows(axis: Axes, inspection: Inspection) -> None:
    n = len(inspection.records)
    if n > _MAX_ROWS_NAMED:
        axis.set_yticks([0, n - 1], ["1", str(n)], fontsize=8)
        return
    axis.set_yticks(range(n), [record.case for record in inspection.records], fontsize=8)
    for row in range(n):
        axis.axhline(row - 0.5, color="white", linewidth=0.8)


def _name_patterns(axis: Axes, inspection: Inspection, rows_per_line: float) -> None:
    """Name and count each pattern beside its rows; names that would lie on each other move down."""
    records, names = inspection.records, inspection.dataset.channels
    n, x = len(records), len(names) + 0.5
    sizes = Counter(record.pattern for record in records)
    start, free = 0, -0.5
    for k, (pattern, _) in enumerate(groupby(records, lambda record: record.pattern)):
        size, left = sizes[pattern], len(sizes) - k
        if n - 0.5 - free < rows_per_line and left > 1:
            text = f"and {left} more patterns"
            axis.annotate(text, (x + 0.5, free), fontsize=8, va="top", annotation_clip=False)
            break
        middle = start + size / 2 - 0.5
        y = max(middle, free + rows_per_line / 2)
        axis.annotate(
            f"{pattern_name(pattern, names)}: {size} ({size / n:.0%})",
            (x, middle),
            (x + 0.5, y),
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 1},
        )
        if start:
            # where rows are thin a line across would hide some
            axis.hlines(start - 0.5, -0.5 if n <= _MAX_ROWS_NAMED else x - 0.06, x, color="black", linewidth=0.8)
        start, free = start + size, y + rows_per_line / 2


def _draw_volumes(inspection: Inspection) -> Figure:
    """Draw the volume of each class or region and of the head, a dot per case."""
    sizes = measurements(inspection.records, inspection.dataset.regions)
    rows = [*(name for name in sizes if name[0] == "volume"), ("head", "head")]
    figure = Figure(figsize=(8.5, 1.5 + 0.75 * len(rows)), dpi=120, layout="constrained")
    axis = figure.subplots()
    labels = []
    for y, (what, part) in enumerate(rows):
        volumes = sizes[what, part].dropna()
        empty = (volumes == 0).sum()
        labels.append(f"{part}\n{len(volumes)} cases" + (f", {empty} with none" if empty else ""))
        _draw_row(axis, y, volumes.loc[volumes > 0], what)
    axis.set_yticks(range(len(rows)), labels, fontsize=9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xscale("log")
    axis.margins(x=0.12)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("volume in ml (a dot for each case, the bar is the median)")
    axis.grid(axis="x", alpha=0.3)
    axis.set_title(inspection.title, fontsize=11)
    return figure


def _draw_row(axis: Axes, y: int, volumes: pd.Series, quantity: str) -> None:
    if volumes.empty:
        return
    far, _ = far_from_others(volumes, quantity)
    noise = np.random.default_rng(0).uniform(-0.22, 0.22, len(volumes))  # so that dots do not hide each other
    heights = pd.Series(y + noise, volumes.index)
    colors = [SUSPICIOUS if case in far.index else _BLUE for case in volumes.index]
    axis.scatter(volumes, heights, s=14, c=colors, alpha=0.7, linewidths=0)
    axis.vlines(volumes.median(), y - 0.32, y + 0.32, color="black", linewidth=2)
    for case, volume in far.head(_MAX_OUTLIERS_NAMED).items():
        place = (volume, heights[case])
        axis.annotate(str(case), place, (3, 3), textcoords="offset points", fontsize=7, color=SUSPICIOUS)


def _draw_intensities(inspection: Inspection) -> Figure:
    """Draw the range of intensities inside the head, a panel per modality and a column per case."""
    n = len(inspection.dataset.channels)
    columns = min(n, 4)
    rows = -(-n // columns)
    figure = Figure(figsize=(3.1 * columns + 0.4, 2.9 * rows + 0.6), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for m, (axis, name) in enumerate(zip(panels, inspection.dataset.channels, strict=False)):
        values = [percentiles for r in inspection.records if (percentiles := r.percentiles[m]) is not None]
        axis.set_title(f"{name}, {len(values)} cases", fontsize=10)
        axis.set_xticks([])
        if values:
            _draw_ranges(axis, np.array(sorted(values, key=lambda percentiles: percentiles[2])))
    for axis in panels[n:]:
        axis.set_visible(False)
    panels[0].set_ylabel("intensity as stored")
    figure.supxlabel("cases, each modality sorted by its median; bars: percentiles 1 to 99 and 25 to 75", fontsize=9)
    figure.suptitle(inspection.title, fontsize=11)
    return figure


def _draw_ranges(axis: Axes, values: NDArray) -> None:
    """Draw ``(cases, percentiles)`` as bars."""
    x = np.arange(len(values))
    width = max(0.6, min(4.0, 130 / len(values)))
    axis.vlines(x, values[:, 0], values[:, -1], color="#a9c6da", linewidth=width)
    axis.vlines(x, values[:, 1], values[:, 3], color=_BLUE, linewidth=width)
    axis.plot(x, values[:, 2], ".", color="black", markersize=min(5.0, 1 + 60 / len(values)))
    axis.set_xlim(-1, len(values))
    axis.grid(axis="y", alpha=0.3)
