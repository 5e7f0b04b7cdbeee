"""Tables of scores in the layout of the D2-Net paper's Table I: a column per subset, rows by region."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from nnunetv2_d2net.base.dataset import subset_name
from nnunetv2_d2net.base.files import write_json, write_text
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.study.scores.metrics import CaseScore

MEAN_REGION = "mean"
"""What the mean of a case over its regions is called."""

ONE_TRAINING = (
    "One training does not say what the next one would give: on simulated patients, trainings of one trainer spread by "
    "0.01 to 0.06 (standard deviation) in mean Dice over the subsets, stock nnU-Net by up to 0.12 (d2net help results)."
)
"""Said wherever a table is shown; whoever measures anew changes docs/results.md, too."""

_DECIMALS = 9  # of a difference, so that equal means are equal
_PAPER = "T2; T1ce; T1; FLAIR; T1ce T2; T1 T1ce; FLAIR T1; T1 T2; FLAIR T2; FLAIR T1ce"
_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "●": r"$\bullet$", "○": r"$\circ$"}
_LATEX |= {character: rf"\{character}" for character in "&%$#_{}"}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


class Metric(NamedTuple):
    """How a metric is shown: its title with the unit, and how many digits after the decimal point."""

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
        mean: Over cases; or over the subsets' means, each by its weight.
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
        chosen = [set(names) for size in range(len(lower)) for names in combinations(lower, size + 1)]
    return [subset_name([name in names for name in lower], modalities) for names in chosen]


def in_order(subsets: Iterable[str], modalities: Sequence[str]) -> list[str]:
    """Put subsets in the order of the tables, each once; those not made of the modalities come last, by name.

    Example:
        >>> in_order(["mean of 2", "T1+T2", "T2", "T2"], ["T1", "T2"])
        ['T2', 'T1+T2', 'mean of 2']
    """
    order = {name: position for position, name in enumerate(subset_order(modalities))}
    return sorted(set(subsets), key=lambda name: (order.get(name, len(order)), name))


def values_of(scores: Sequence[CaseScore], metric: str) -> pd.DataFrame:
    """List one metric, a column of metrics.csv, of every case, subset and region.

    Returns:
        The scores with columns ``value``, ``both_empty`` and ``one_empty``; if there are several regions, the mean of
        each case over them follows as :data:`MEAN_REGION`.
    """
    table = pd.DataFrame(scores, columns=list(CaseScore._fields))
    n_empty = (table[["reference_voxels", "prediction_voxels"]] == 0).sum(axis=1)
    table = table.assign(value=table[metric], both_empty=n_empty == 2, one_empty=n_empty == 1)
    regions = set(table["region"])
    if len(regions) < 2 or MEAN_REGION in regions:
        return table
    means = table.groupby(["subset", "case"])["value"].agg(fmean).reset_index()
    return pd.concat([table, means.assign(region=MEAN_REGION, both_empty=False, one_empty=False)], ignore_index=True)


def shares_of(subsets: Sequence[str], weights: Mapping[str, float]) -> list[float]:
    """Return how much each subset counts in a mean over them, 1 in all: by its weight, or alike where none has one.

    Example:
        >>> shares_of(["T1", "T2"], {"T1": 3.0, "T2": 1.0, "PD": 9.0}), shares_of(["T1", "T2"], {})
        ([0.75, 0.25], [0.5, 0.5])
    """
    known = [weights.get(subset, 0.0) for subset in subsets]
    return [weight / sum(known) for weight in known] if any(known) else [1 / len(subsets)] * len(subsets)


def summarize(
    scores: Sequence[CaseScore],
    metric: str,
    modalities: Sequence[str] = (),
    weights: Mapping[str, float] = MappingProxyType({}),
) -> Summaries:
    """Average a metric, a column of metrics.csv, over the cases of each subset and region.

    Args:
        scores: Of the cases.
        metric: The column.
        modalities: For the order of subsets.
        weights: How often each subset occurs, for the mean over subsets; empty where all count alike.

    Returns:
        All regions and, if there are several, the mean over regions of each case; all subsets and, if there are
        several, the mean over subsets.
    """
    summaries: Summaries = {}
    for region, cases in values_of(scores, metric).groupby("region", sort=False):
        parts = {str(subset): _summary(part) for subset, part in cases.groupby("subset")}
        by_subset = {subset: parts[subset] for subset in in_order(parts, modalities)}
        if len(parts) > 1:
            by_subset[f"mean of {len(parts)}"] = _mean_over_subsets(
                [*by_subset.values()], shares_of([*by_subset], weights)
            )
        summaries[str(region)] = by_subset
    return summaries


def _summary(cases: pd.DataFrame) -> Summary:
    values, empty = cases["value"].tolist(), cases[["both_empty", "one_empty"]].sum().tolist()
    return Summary(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values), *empty)


def _mean_over_subsets(parts: Sequence[Summary], shares: Sequence[float]) -> Summary:
    means, _, _, both_empty, one_empty = zip(*parts, strict=True)
    mean = math.fsum(share * of for share, of in zip(shares, means, strict=True))
    spread = math.sqrt(math.fsum(share * (of - mean) ** 2 for share, of in zip(shares, means, strict=True)))
    return Summary(mean, spread, len(parts), sum(both_empty), sum(one_empty))


class Table(NamedTuple):
    """Cells with a column per subset, whose header has a filled circle for what is available, as in the literature."""

    title: str
    header: list[list[str]]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Render as Markdown."""
        return f"{self.title}\n\n{markdown_table([*self.header, *self.rows])}"

    def latex(self) -> str:
        """Render as a LaTeX ``tabular`` for the package booktabs, the first column to the left."""
        lines = [f"% {self.title}", rf"\begin{{tabular}}{{l{'r' * (len(self.header[0]) - 1)}}}", r"\toprule"]
        lines += [*map(_latex_row, self.header), r"\midrule", *map(_latex_row, self.rows)]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in cells) + r" \\"


def _header(stubs: int, subsets: Sequence[str], modalities: Sequence[str]) -> list[list[str]]:
    """A row of circles per modality; or one of names, if no column is a subset of the modalities."""
    parts = {subset: set(subset.split("+")) for subset in subsets}
    circled = [subset for subset in subsets if parts[subset] <= set(modalities)]
    if not circled:
        return [[""] * stubs + [*subsets]]
    rows = []
    for modality in modalities:
        circles = {subset: "●" if modality in parts[subset] else "○" for subset in circled}
        names = circles if rows else dict(zip(subsets, subsets, strict=True)) | circles  # other columns' names once
        rows.append([modality, *[""] * (stubs - 1), *(names.get(subset, "") for subset in subsets)])
    return rows


def paper_table(summaries: Summaries, metric: str, modalities: Sequence[str]) -> Table:
    """Lay one metric out as the paper's Table I, with standard deviation and count below each mean."""
    rows = []
    for region, by_subset in summaries.items():
        rows += [
            [region, *(_number(part.mean, metric) for part in by_subset.values())],
            ["± sd", *(_number(part.sd, metric) for part in by_subset.values())],
            ["n", *(str(part.n) for part in by_subset.values())],
        ]
    return Table(METRICS[metric].title, _header(1, _subsets(summaries), modalities), rows)


def arms_table(
    arms: Mapping[str, Sequence[CaseScore]],
    metric: str,
    modalities: Sequence[str],
    weights: Mapping[str, float] = MappingProxyType({}),
) -> Table:
    """Lay several arms side by side: a row for each region and arm, the best of each column marked with a star."""
    by_arm = {arm: summarize(scores, metric, weights=weights) for arm, scores in arms.items() if scores}
    subsets = in_order((subset for summaries in by_arm.values() for subset in _subsets(summaries)), modalities)
    rows = []
    for region in dict.fromkeys(region for summaries in by_arm.values() for region in summaries):
        parts = [summaries.get(region, {}) for summaries in by_arm.values()]
        columns = [_mark_best([part[s].mean if s in part else math.nan for part in parts], metric) for s in subsets]
        rows += [[region, arm, *cells] for arm, *cells in zip(by_arm, *columns, strict=True)]
    return Table(METRICS[metric].title, _header(2, subsets, modalities), rows)


def _mark_best(means: Sequence[float], metric: str) -> list[str]:
    cells = [_number(mean, metric) for mean in means]
    values = [float(cell) for cell in cells if cell != "-"]
    if len(values) < 2:
        return cells
    best = max(values) if METRICS[metric].higher_is_better else min(values)
    return [f"{cell}*" if cell != "-" and float(cell) == best else cell for cell in cells]


def long_table(summaries: Summaries, metric: str) -> str:
    """Lay one metric out for a terminal: a row per subset, a column per region, mean ± standard deviation."""
    rows = [["available", "n", *summaries]]
    for subset in _subsets(summaries):
        parts = [by_subset[subset] for by_subset in summaries.values()]
        cells = [f"{_number(part.mean, metric)} ± {_number(part.sd, metric)}" for part in parts]
        rows.append([subset, str(parts[0].n), *cells])
    return f"{METRICS[metric].title}\n\n{markdown_table(rows)}"


def empty_table(summaries: Summaries) -> str:
    """Count, by subset and region, cases with both masks empty and with one; "" if there is none."""
    regions = {region: by_subset for region, by_subset in summaries.items() if region != MEAN_REGION}
    rows = [["available", *regions]]
    for subset in _subsets(regions):
        parts = [by_subset[subset] for by_subset in regions.values()]
        if any(part.both_empty or part.one_empty for part in parts):
            rows.append([subset, *(f"{part.both_empty} / {part.one_empty}" for part in parts)])
    return f"Cases with both masks empty / with one empty\n\n{markdown_table(rows)}" if len(rows) > 1 else ""


def _subsets(summaries: Summaries) -> list[str]:
    return list(next(iter(summaries.values())))


def _number(value: float, metric: str) -> str:
    return "-" if math.isnan(value) else f"{value:.{METRICS[metric].digits}f}"


class Inversions(NamedTuple):
    """How many, of ``pairs`` of a subset and one that holds it, have the higher mean Dice with the smaller one."""

    inverted: int
    pairs: int


def count_inversions(scores: Sequence[CaseScore]) -> dict[str, Inversions]:
    """Count the subsets that score above one that holds them and more, over the cases that both have.

    Returns:
        By region and, if there are several, for the mean over them; nothing where no scored subset holds another.
    """
    found = {}
    for region, part in values_of(scores, "dice").groupby("region", sort=False):
        dice = part.pivot_table("value", "case", "subset", "last")
        by_subset = {frozenset(str(subset).split("+")): dice[subset].to_numpy() for subset in dice}
        gains = [by_subset[one] - by_subset[other] for one, other in permutations(by_subset, 2) if one < other]
        shared = (gain[~np.isnan(gain)] for gain in gains)
        known = [round(gain.mean(), _DECIMALS) > 0 for gain in shared if gain.size]
        if known:
            found[str(region)] = Inversions(int(sum(known)), len(known))
    return found


def inversions_line(found: Mapping[str, Inversions]) -> str:
    """Say the counts in words; empty if there is none.

    Example:
        >>> inversions_line({"core": Inversions(2, 50)})
        'subsets that score above one that holds them (Dice): core 2 of 50'
    """
    counts = ", ".join(f"{region} {part.inverted} of {part.pairs}" for region, part in found.items())
    return f"subsets that score above one that holds them (Dice): {counts}" if found else ""


def write_tables(
    scores: Sequence[CaseScore],
    folder: Path,
    modalities: Sequence[str] = (),
    weights: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """Write ``table_METRIC.csv``, ``.md`` and ``.tex`` of each metric, and ``tables.json``; return the long tables.

    Args:
        scores: At least one, all regions of each case and subset, as :func:`.evaluate_folder` returns them.
        folder: Where to.
        modalities: For the order of subsets.
        weights: As :func:`summarize` takes them.

    Raises:
        UserError: They cannot be written.
    """
    content: dict[str, object] = {"modalities": list(modalities)}
    texts = []
    for metric in METRICS:
        summaries = summarize(scores, metric, modalities, weights)
        table = paper_table(summaries, metric, modalities)
        write_text(folder / f"table_{metric}.md", table.markdown())
        write_text(folder / f"table_{metric}.tex", table.latex())
        regions = {region: _statistics(by_subset) for region, by_subset in summaries.items()}
        statistics = pd.concat(regions, names=["region", "statistic"])
        write_text(folder / f"table_{metric}.csv", statistics.to_csv(lineterminator="\n"))
        content[metric] = {region: part.to_dict() for region, part in regions.items()}
        texts.append(long_table(summaries, metric))
    inversions = count_inversions(scores)
    content["inversions"] = {region: part._asdict() for region, part in inversions.items()}
    write_json(folder / "tables.json", content, indent=1)
    texts.append(f"{line}\n" if (line := inversions_line(inversions)) else "")
    texts.append(empty_table(summarize(scores, "dice", modalities)))
    return "\n".join(filter(None, texts))


def _statistics(by_subset: Mapping[str, Summary]) -> pd.DataFrame:
    """Every number of a region, a column per subset, as the files hold it."""
    table = pd.DataFrame(by_subset, index=list(Summary._fields), dtype=object)
    for name in ("mean", "sd"):
        table.loc[name] = [None if math.isnan(value) else round(value, 6) for value in table.loc[name]]
    return table


def dice_by_subset(scores: Sequence[CaseScore]) -> dict[str, dict[str, float]]:
    """Average the Dice of the cases: by subset, the smallest first, and region."""
    means = _dice_table(scores).pivot_table("dice", "subset", "region", fmean, sort=False)
    return means.to_dict("index")  # pyright: ignore


def write_dice_tables(scores: Sequence[CaseScore], folder: Path) -> str:
    """Write ``dice_per_case.csv``, and the means as ``dice.csv`` and ``dice.md``; return the latter.

    Raises:
        UserError: They cannot be written.
    """
    means = pd.DataFrame.from_dict(dice_by_subset(scores), orient="index")
    means.loc[f"mean of {len(means)}"] = means.apply(fmean)
    means[MEAN_REGION] = means.apply(fmean, axis=1)
    table = means.apply(lambda column: column.map("{:.3f}".format)).rename_axis("available").reset_index()
    for name, content in (("dice_per_case.csv", _dice_table(scores)), ("dice.csv", table)):
        write_text(folder / name, content.to_csv(index=False, lineterminator="\r\n"))
    text = markdown_table([list(table), *table.to_numpy().tolist()])
    write_text(folder / "dice.md", text)
    return text


def _dice_table(scores: Sequence[CaseScore]) -> pd.DataFrame:
    """Dice of every case, the smallest subsets first."""
    rows = [row[:4] for row in sorted(scores, key=lambda row: (row.subset.count("+"), row.subset))]
    return pd.DataFrame(rows, columns=["case", "subset", "region", "dice"])
