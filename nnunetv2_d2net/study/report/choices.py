"""Which network of a companion predicts with which subset: the stock one that it starts from, or its student."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.method.network.companion import GATE, STOCK, STUDENT
from nnunetv2_d2net.study.report.results import Benchmark
from nnunetv2_d2net.study.scores.tables import in_order


def choice_rows(benchmark: Benchmark) -> list[list[str]]:
    """Lay out who predicts: a header, and a row for each subset; empty without companions.

    Behind it stands the mean Dice of stock network and student on the validation cases that the choice was made by.
    """
    arms = [arm for arm, tables in benchmark.choices.items() if tables]
    subsets = {subset for arm in arms for table in benchmark.choices[arm] for subset in table["subsets"]}
    rows = [["available", *arms]] if subsets else []
    for subset in in_order(subsets, benchmark.dataset.channels):
        rows.append([subset, *(_cell([t["subsets"].get(subset, {}) for t in benchmark.choices[arm]]) for arm in arms)])
    return rows


def choice_notes(benchmark: Benchmark) -> list[str]:
    """Say which arms chose by what is scored, whose complete input is stock nnU-Net's, and whose gate is how open."""
    chosen = [arm for arm, tables in benchmark.choices.items() if any(table.get("cases") for table in tables)]
    notes = []
    if chosen and benchmark.setup["cases"] == "folds":
        notes.append(
            f"{' and '.join(chosen)} chose by the cases that are scored here, so their Dice is a little too good: "
            "the better of two networks for each subset. Compare on test cases (--cases test with folds of numbers)."
        )
    for arm in benchmark.setup["arms"]:
        tables = benchmark.choices.get(arm["name"], [])
        if {table["subsets"].get(benchmark.dataset.complete, {}).get("predicts") for table in tables} == {STOCK}:
            start = arm.get("start", {}).get("from")
            name = f"{Path(start).name}, the stock network it starts from" if start else "the stock network beside it"
            notes.append(
                f"With all modalities the segmentation of {arm['name']} is that of {name}, up to rounding on a GPU."
            )
        if gates := [table[GATE] for table in tables if isinstance(table.get(GATE), float)]:
            notes.append(
                f"The gate before the bottleneck of {arm['name']} is open by {fmean(gates):.3f}: where that is near 0, "
                "at which it starts, D2-Net's stage is hardly used. The log says what shutting it changes."
            )
    return notes


def _cell(folds: Sequence[dict[str, Any]]) -> str:
    """Say what the folds have chosen, and the means of their Dice."""
    known = [fold for fold in folds if fold]
    chosen = [fold.get("predicts") for fold in known]
    if not known:
        return "-"
    most = max(STOCK, STUDENT, key=chosen.count)
    n_most = chosen.count(most)
    text = most if n_most == len(known) else f"{most} in {n_most} of {counted(len(known), 'fold')}"
    dice = {name: [fold[name] for fold in known if fold.get(name) is not None] for name in (STOCK, STUDENT)}
    return f"{text} ({fmean(dice[STOCK]):.3f}, {fmean(dice[STUDENT]):.3f})" if all(dice.values()) else text
