"""Figures that papers have printed, to hold against: from another data set, so no comparison in earnest."""

import math
from collections.abc import Sequence
from importlib import resources

import pandas as pd

from nnunetv2_d2net.study.scores.tables import subset_order

NOTE = "Published figures, of another data set, other splits and other training: no comparison with the rows above"


def published_figures() -> pd.DataFrame:
    """Read the figures that come with this package.

    Returns:
        A row per figure. Columns: ``source``, where it is printed; ``table``, in which table; ``method``, as it calls
        itself; ``dataset``, what it was measured on; ``metric``: ``dice`` in [0, 1], ``hd95`` and ``assd`` in mm, with
        ``_sd`` their printed standard deviations over the 15 subsets, ``parameters``, ``flops``; ``region``, empty
        where there is none; ``subset``, as :func:`nnunetv2_d2net.study.scores.tables.subset_order` names it, or
        ``mean of 15`` as printed; ``value``, the figure.
    """
    with (resources.files("nnunetv2_d2net.study.scores") / "published.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


def published_dice(subsets: Sequence[str]) -> list[list[str]]:
    """Lay out the Dice of every method: a header, and a row for each region and method; a dash for what is unknown."""
    rows = [["region", "method", *subsets, "data", "source"]]
    figures = published_figures().query("metric == 'dice'")
    for names, line in figures.groupby(["region", "method", "dataset", "source"], sort=False):
        region, method, *origin = names  # pyright: ignore - a tuple, as several columns are grouped by
        values = line.set_index("subset")["value"].reindex(subsets)
        rows.append([region, method, *("-" if math.isnan(value) else f"{value:.3f}" for value in values), *origin])
    return rows


def published_distances() -> list[list[str]]:
    """Lay out HD95 and ASSD, means over the 15 subsets and their standard deviations: a header, a row per method."""
    figures = published_figures()
    rows = []
    for method, lines in figures[figures["metric"].str.contains("hd95|assd")].groupby("method", sort=False):
        values = lines.set_index(["metric", "region"])["value"].to_dict()
        columns = [(metric, region) for metric, region in values if not metric.endswith("_sd")]
        rows = rows or [["method", *(f"{metric.upper()} {region}" for metric, region in columns)]]
        rows.append([method, *(f"{values[m, r]:.1f} ± {values[f'{m}_sd', r]:.1f}" for m, r in columns)])
    return rows


def published_tables() -> list[tuple[str, list[list[str]]]]:
    """Return titles and rows of all of it, the subsets in the order of the paper's Table I."""
    columns = [*subset_order(["FLAIR", "T1", "T1ce", "T2"]), "mean of 15"]
    return [("Dice", published_dice(columns)), ("Distances in mm, mean of 15 subsets", published_distances())]
