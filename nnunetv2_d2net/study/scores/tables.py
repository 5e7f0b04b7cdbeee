"""Tables of scores in the layout of the D2-Net paper's Table I: a column per subset, rows by region."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import NamedTuple

from nnunetv2_d2net.base.modality_names import subset_name
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.subset_table import markdown_table
from nnunetv2_d2net.study.scores.table_layout import Table

MEAN_REGION = "mean"
"""What the mean of a case over its regions is called."""

_PAPER = "T2; T1ce; T1; FLAIR; T1ce T2; T1 T1ce; FLAIR T1; T1 T2; FLAIR T2; FLAIR T1ce"


class Metric(NamedTuple):
    """How a metric is shown.

    Attributes:
        title: With its unit.
        digits: After the decimal point.
        higher_is_better: Else lower is.
    """

    title: str
    digits: int
    higher_is_better: bool


METRICS = {
    "dice": Metric("Dice", 3, higher_is_better=True),
    "hd95": Metric("HD95 (mm)", 2, higher_is_better=False),
    "assd": Metric("ASSD (mm)", 2, higher_is_better=False),
    "surface_dice": Metric("Surface Dice", 3, higher_is_better=True),
}


class Summary(NamedTuple):
    """The cases of one subset and region, or the means of all subsets of one region.

    Attributes:
        mean: Over cases; or over the subsets' means.
        sd: Of the cases' sample, NaN for a single one; or of the subsets' means as a population, as in the paper.
        n: How many cases; or subsets.
        both_empty: In how many cases neither reference nor prediction has the region.
        one_empty: In how many cases one of them has it.
    """

    mean: float
    sd: float
    n: int
    both_empty: int
    one_empty: int


Summaries = dict[str, dict[str, Summary]]
"""By region, then by subset; the last column is the mean over subsets."""


def subset_order(modalities: Sequence[str]) -> list[str]:
    """Name all subsets of the modalities in the order of the tables.

    Args:
        modalities: M names in the order of the channels.

    Returns:
        The paper's order for FLAIR, T1, T1ce and T2, in any case and order; else by size, then by channel.

    Example:
        >>> subset_order(["T1", "T2", "PD"])
        ['T1', 'T2', 'PD', 'T1+T2', 'T1+PD', 'T2+PD', 'T1+T2+PD']
    """
    lower = [name.lower() for name in modalities]
    if sorted(lower) == ["flair", "t1", "t1ce", "t2"]:
        chosen = [set(names.lower().split()) for names in _PAPER.split(";")]
        chosen += [set(lower) - {name} for name in ("t2", "t1ce", "t1", "flair", "")]
    else:
        chosen = [set(names) for size in range(1, len(lower) + 1) for names in combinations(lower, size)]
    return [subset_name([name in names for name in lower], modalities) for names in chosen]


def summarize(scores: Sequence[CaseScore], metric: str, modalities: Sequence[str] = ()) -> Summaries:
    """Average a metric over the cases of each subset and region.

    Args:
        scores: Of one arm.
        metric: A column of metrics.csv.
        modalities: For the order of subsets; those not made of them come last.

    Returns:
        All regions and, if there are several, the mean over regions of each case; all subsets and, if there are
        several, the mean over subsets.
    """
    cells: dict[str, dict[str, list[CaseScore]]] = {}
    for score in scores:
        cells.setdefault(score.region, {}).setdefault(score.subset, []).append(score)
    there = {score.subset: None for score in scores}
    order = [name for name in subset_order(modalities) if name in there] if modalities else []
    order += sorted(there.keys() - set(order))
    found = {
        region: {subset: _summary(by_subset[subset], metric) for subset in order if subset in by_subset}
        for region, by_subset in cells.items()
    }
    if len(found) > 1 and MEAN_REGION not in found:
        found[MEAN_REGION] = {subset: _mean_of_regions(scores, subset, metric) for subset in order}
    return {region: _with_mean(by_subset) for region, by_subset in found.items()}


def paper_table(summaries: Summaries, metric: str, modalities: Sequence[str]) -> Table:
    """Lay one metric out as the paper's Table I, with standard deviation and count below each mean."""
    subsets = list(next(iter(summaries.values())))
    rows = []
    for region, by_subset in summaries.items():
        parts = [by_subset.get(subset) for subset in subsets]
        rows += [
            [region, *(_number(part and part.mean, metric) for part in parts)],
            ["± sd", *(_number(part and part.sd, metric) for part in parts)],
            ["n", *(str(part.n) if part else "-" for part in parts)],
        ]
    return Table(METRICS[metric].title, [""], subsets, rows, list(modalities))


def arms_table(arms: Mapping[str, Sequence[CaseScore]], metric: str, modalities: Sequence[str]) -> Table:
    """Lay several arms side by side: a row for each region and arm, the best of each column marked with a star.

    Args:
        arms: Scores by the arm's name.
        metric: A column of metrics.csv.
        modalities: M names in the order of the channels.
    """
    by_arm = {arm: summarize(scores, metric, modalities) for arm, scores in arms.items() if scores}
    regions = dict.fromkeys(region for summaries in by_arm.values() for region in summaries)
    there = {subset for summaries in by_arm.values() for by_subset in summaries.values() for subset in by_subset}
    order = [subset for subset in subset_order(modalities) if subset in there]
    subsets = [*order, *sorted(there - set(order))]
    rows = []
    for region in regions:
        columns = [
            [_number(part and part.mean, metric) for part in (s.get(region, {}).get(subset) for s in by_arm.values())]
            for subset in subsets
        ]
        marked = zip(*(_mark_best(column, metric) for column in columns), strict=True)
        rows += [[region, arm, *cells] for arm, cells in zip(by_arm, marked, strict=True)]
    return Table(METRICS[metric].title, ["", ""], subsets, rows, list(modalities))


def long_table(summaries: Summaries, metric: str) -> str:
    """Lay one metric out for a terminal: a row per subset, a column per region, mean ± standard deviation."""
    subsets = list(next(iter(summaries.values())))
    rows = [["available", "n", *summaries]]
    for subset in subsets:
        parts = [by_subset.get(subset) for by_subset in summaries.values()]
        n = next(str(part.n) for part in parts if part)
        cells = [f"{_number(p.mean, metric)} ± {_number(p.sd, metric)}" if p else "-" for p in parts]
        rows.append([subset, n, *cells])
    return f"{METRICS[metric].title}\n\n{markdown_table(rows)}"


def empty_table(summaries: Summaries) -> str:
    """Count, by subset and region, cases with both masks empty and with one; "" if there is none."""
    counted = {region: cells for region, cells in summaries.items() if region != MEAN_REGION}
    rows = [["available", *counted]]
    for subset in next(iter(counted.values())):
        parts = [by_subset.get(subset) for by_subset in counted.values()]
        if any(part and (part.both_empty or part.one_empty) for part in parts):
            rows.append([subset, *(f"{part.both_empty} / {part.one_empty}" if part else "-" for part in parts)])
    return f"Cases with both masks empty / with one empty\n\n{markdown_table(rows)}" if len(rows) > 1 else ""


def write_tables(scores: Sequence[CaseScore], folder: Path, modalities: Sequence[str] = ()) -> str:
    """Write ``table_METRIC.csv``, ``.md`` and ``.tex`` of each metric, and ``tables.json``; return the long tables.

    Args:
        scores: Of one arm, at least one.
        folder: Where to.
        modalities: M names in the order of the channels; for the order of subsets.
    """
    content: dict[str, object] = {"modalities": list(modalities)}
    texts = []
    for metric in METRICS:
        summaries = summarize(scores, metric, modalities)
        table = paper_table(summaries, metric, modalities)
        (folder / f"table_{metric}.md").write_text(table.markdown(), encoding="utf-8")
        (folder / f"table_{metric}.tex").write_text(table.latex(), encoding="utf-8")
        _write_csv(summaries, folder / f"table_{metric}.csv")
        content[metric] = {
            region: {subset: _for_json(part) for subset, part in by_subset.items()}
            for region, by_subset in summaries.items()
        }
        texts.append(long_table(summaries, metric))
    (folder / "tables.json").write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    texts.append(empty_table(summarize(scores, "dice", modalities)))
    return "\n".join(text for text in texts if text)


def _write_csv(summaries: Summaries, path: Path) -> None:
    subsets = list(next(iter(summaries.values())))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["region", "statistic", *subsets])
        for region, by_subset in summaries.items():
            for statistic in Summary._fields:
                cells = [_for_json(by_subset[subset])[statistic] if subset in by_subset else None for subset in subsets]
                writer.writerow([region, statistic, *cells])


def _for_json(part: Summary) -> dict[str, float | int | None]:
    return part._asdict() | {"mean": round(part.mean, 6), "sd": None if math.isnan(part.sd) else round(part.sd, 6)}


def _summary(scores: Sequence[CaseScore], metric: str) -> Summary:
    values = [getattr(score, metric) for score in scores]
    both, one = sum(score.both_empty for score in scores), sum(score.one_empty for score in scores)
    return Summary(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values), both, one)


def _mean_of_regions(scores: Sequence[CaseScore], subset: str, metric: str) -> Summary:
    cases: dict[str, list[float]] = {}
    for score in scores:
        if score.subset == subset:
            cases.setdefault(score.case, []).append(getattr(score, metric))
    means = [fmean(values) for values in cases.values()]
    return Summary(fmean(means), stdev(means) if len(means) > 1 else math.nan, len(means), 0, 0)


def _with_mean(by_subset: dict[str, Summary]) -> dict[str, Summary]:
    if len(by_subset) < 2:
        return by_subset
    parts = list(by_subset.values())
    means = [part.mean for part in parts]
    both, one = sum(part.both_empty for part in parts), sum(part.one_empty for part in parts)
    return by_subset | {f"mean of {len(parts)}": Summary(fmean(means), pstdev(means), len(parts), both, one)}


def _number(value: float | None, metric: str) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{METRICS[metric].digits}f}"


def _mark_best(cells: Sequence[str], metric: str) -> list[str]:
    values = [float(cell) for cell in cells if cell != "-"]
    if len(values) < 2:
        return list(cells)
    best = max(values) if METRICS[metric].higher_is_better else min(values)
    return [f"{cell}*" if cell != "-" and float(cell) == best else cell for cell in cells]
