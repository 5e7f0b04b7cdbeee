"""Figures that papers have printed, to hold against: from another data set, so no comparison in earnest."""

import csv
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

NOTE = "Published figures, of another data set, other splits and other training: no comparison with the rows above"


class PublishedRow(NamedTuple):
    """One figure.

    Attributes:
        source: Where it is printed.
        table: In which table.
        method: As it calls itself.
        dataset: What it was measured on.
        metric: ``dice`` in [0, 1]; ``hd95``, ``assd`` in mm, with ``_sd`` their printed standard deviations over the 15
            subsets; ``parameters``; ``flops``.
        region: Empty where there is none.
        subset: As :func:`nnunetv2_d2net.study.scores.tables.subset_order` names it, or ``mean of 15`` as printed.
        value: The figure.
    """

    source: str
    table: str
    method: str
    dataset: str
    metric: str
    region: str
    subset: str
    value: float


def published_rows() -> list[PublishedRow]:
    """Read the figures that come with this package."""
    text = (resources.files("nnunetv2_d2net.study.scores") / "published.csv").read_text(encoding="utf-8")
    _, *rows = csv.reader(text.splitlines())
    return [PublishedRow(*cells[:-1], value=float(cells[-1])) for cells in rows]


def published_dice(subsets: Sequence[str]) -> list[list[str]]:
    """Lay out the Dice of every method: a header, and a row for each region and method.

    Args:
        subsets: The columns; what is not printed is a dash.
    """
    dice = [row for row in published_rows() if row.metric == "dice"]
    values = {(row.region, row.method, row.subset): f"{row.value:.3f}" for row in dice}
    lines = dict.fromkeys((row.region, row.method, row.dataset, row.source) for row in dice)
    return [
        ["region", "method", *subsets, "data", "source"],
        *(
            [r, m, *(values.get((r, m, subset), "-") for subset in subsets), data, source]
            for r, m, data, source in lines
        ),
    ]


def published_distances() -> list[list[str]]:
    """Lay out HD95 and ASSD, means over the 15 subsets and their standard deviations: a header, a row per method."""
    rows = published_rows()
    values = {(row.method, row.metric, row.region): row.value for row in rows}
    columns = dict.fromkeys((row.metric, row.region) for row in rows if row.metric in ("hd95", "assd"))
    methods = dict.fromkeys(row.method for row in rows if row.metric == "hd95")
    return [
        ["method", *(f"{metric.upper()} {region}" for metric, region in columns)],
        *(
            [m, *(f"{values[m, metric, r]:.1f} ± {values[m, f'{metric}_sd', r]:.1f}" for metric, r in columns)]
            for m in methods
        ),
    ]
