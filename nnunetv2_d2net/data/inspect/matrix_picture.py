"""The cohort as a matrix: a row per case, a column per modality."""

from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunetv2_d2net.data.inspect.inspect_cohort import Inspection
from nnunetv2_d2net.data.inspect.record import ABSENT, AVAILABLE, CONSTANT, NOT_FINITE, STATES, UNREADABLE
from nnunetv2_d2net.data.inspect.summary import pattern_name

COLORS = {
    AVAILABLE: "#2c6e9b",
    ABSENT: "#e9e9e9",
    CONSTANT: "#f2b134",
    NOT_FINITE: "#8e4fa8",
    UNREADABLE: "#c8102e",
}
SUSPICIOUS = "#e4572e"
_MAX_NAMED = 60
"""Rows that still have room for the case's name."""


@style.context("default")  # another library may have changed the style of this process
def draw_matrix(seen: Inspection, path: Path, title: str) -> None:
    """Draw which case has what, cases with the same modalities together.

    Args:
        seen: The cohort.
        path: PNG to write.
        title: Above the picture.
    """
    n, m = len(seen.records), len(seen.names)
    height = float(np.clip(0.2 * n, 2.4, 12))
    wide = max(len(record.case) for record in seen.records) * 0.085 if n <= _MAX_NAMED else 0.6
    named = max(len(pattern_name(record.pattern, seen.names)) for record in seen.records) + len(": 1000 (100%)")
    left, right, below, above = wide + 0.3, 0.7 + 0.095 * named, 0.9, 1.0
    width, full = left + 0.85 * (m + 1) + right, height + below + above
    figure = Figure(figsize=(width, full), dpi=max(120, int(np.ceil(n / height))))  # no row may fall between two pixels
    axis = figure.add_axes((left / width, below / full, 0.85 * (m + 1) / width, height / full))
    suspicious = {finding.case for finding in seen.findings}
    cells = np.array([[STATES.index(state) for state in record.states] for record in seen.records])
    marks = np.array([[len(STATES) + (record.case in suspicious)] for record in seen.records])
    colors = ListedColormap([*COLORS.values(), "white", SUSPICIOUS])
    axis.imshow(
        np.hstack((cells, marks)),
        cmap=colors,
        vmin=-0.5,
        vmax=len(STATES) + 1.5,
        aspect="auto",
        interpolation="nearest",
    )
    _name_columns(axis, seen, len(suspicious))
    _name_rows(axis, seen)
    _name_patterns(axis, seen, rows_per_line=0.2 * n / height)
    used = [state for k, state in enumerate(STATES) if (cells == k).any()]
    patches = [Patch(color=COLORS[state], label=state) for state in used]
    if suspicious:
        patches.append(Patch(color=SUSPICIOUS, label="something looks wrong"))
    figure.legend(handles=patches, loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, y=1 - 0.12 / full, va="top")
    figure.savefig(path)


def _name_columns(axis: Axes, seen: Inspection, n_suspicious: int) -> None:
    n, m = len(seen.records), len(seen.names)
    counts = [sum(record.pattern[k] for record in seen.records) for k in range(m)]
    labels = [f"{name}\n{count}/{n}" for name, count in zip(seen.names, counts, strict=True)]
    axis.set_xticks(range(m + 1), [*labels, f"suspicious\n{n_suspicious}/{n}"], fontsize=9)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for column in range(m + 1):
        axis.axvline(column - 0.5, color="white", linewidth=2)
    for side in axis.spines.values():
        side.set_visible(False)


def _name_rows(axis: Axes, seen: Inspection) -> None:
    n = len(seen.records)
    if n > _MAX_NAMED:
        axis.set_yticks([0, n - 1], ["1", str(n)], fontsize=8)
        return
    axis.set_yticks(range(n), [record.case for record in seen.records], fontsize=8)
    for row in range(n):
        axis.axhline(row - 0.5, color="white", linewidth=0.8)


def _name_patterns(axis: Axes, seen: Inspection, rows_per_line: float) -> None:
    """Name and count each pattern beside its rows; names that would lie on each other move down."""
    n, x = len(seen.records), len(seen.names) + 0.5
    counts = Counter(record.pattern for record in seen.records)
    start, free = 0, -0.5
    groups = [(pattern, len(list(rows))) for pattern, rows in groupby(seen.records, lambda record: record.pattern)]
    for k, (pattern, size) in enumerate(groups):
        remaining = n - 0.5 - free
        if remaining < rows_per_line and k < len(groups) - 1:
            axis.annotate(
                f"and {len(groups) - k} more patterns", (x + 0.5, free), fontsize=8, va="top", annotation_clip=False
            )
            break
        middle = start + size / 2 - 0.5
        y = max(middle, free + rows_per_line / 2)
        axis.annotate(
            f"{pattern_name(pattern, seen.names)}: {size} ({counts[pattern] / n:.0%})",
            (x, middle),
            (x + 0.5, y),
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 1},
        )
        if start:
            # where rows are thin a line across would hide some
            axis.hlines(start - 0.5, -0.5 if n <= _MAX_NAMED else x - 0.06, x, color="black", linewidth=0.8)
        start, free = start + size, y + rows_per_line / 2
