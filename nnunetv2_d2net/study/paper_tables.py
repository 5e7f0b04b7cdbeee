"""The arms of the paper's tables, laid out beside what is printed there."""

from collections.abc import Mapping, Sequence

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.plugin.training.paper import ROWS, D2NetTrainerPaper, Row
from nnunetv2_d2net.plugin.training.variants import LENGTHS
from nnunetv2_d2net.study.benchmark.arms import with_epochs
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import summarize

PAPER_EPOCHS = D2NetTrainerPaper.n_epochs or 0
NOTE = "Dice in percent, mean of 15 subsets, as published for BraTS 2018: another data set, so no comparison in earnest"

_PUBLISHED = ("WT", "TC", "ET", "mean")


def rows_of_tables(rows: Sequence[Row] = ROWS) -> list[list[str]]:
    """Return a header, and for each row of the paper's tables its trainer and what is printed; dashes for a curve."""
    return [["table", "row", "trainer", *_PUBLISHED], *([r.table, r.name, r.trainer, *_printed(r)] for r in rows)]


def choose_rows(table: str, wanted: Sequence[str] | None = None) -> list[Row]:
    """Choose rows of a table, or of all.

    Args:
        table: Such as ``II`` or ``fig8``; ``all`` for every one.
        wanted: Names of rows, or the end of their trainers' names, in any case; None for all.

    Raises:
        UserError: There is no such row.
    """
    rows = [row for row in ROWS if table in ("all", _word(row.table))]
    if wanted is None:
        return rows
    names = {name.lower(): row for row in rows[::-1] for name in (row.name, row.trainer, row.variant or row.name)}
    unknown = [name for name in wanted if name.lower() not in names]
    if unknown:
        known = listed([repr(row.name) for row in rows], len(rows))
        raise UserError(f"--rows {unknown[0]}: no row is called so, there are {known}")
    chosen = [names[name.lower()] for name in wanted]
    return [row for row in rows if row in chosen]


def arm_of(row: Row, n_epochs: int) -> str:
    """Name the trainer of a row that makes so many passes over the training cases.

    Raises:
        UserError: There is no training of this length.
    """
    if n_epochs not in (*LENGTHS, PAPER_EPOCHS):
        known = listed(sorted((*LENGTHS, PAPER_EPOCHS)), len(LENGTHS) + 1)
        raise UserError(f"there is no training of {n_epochs} passes: choose --epochs from {known}")
    return with_epochs(row.trainer, n_epochs, own=PAPER_EPOCHS)


def means_of(scores: Sequence[CaseScore], modalities: Sequence[str]) -> dict[str, float]:
    """Return the Dice in percent of every region, mean of all subsets; that of all regions last."""
    regions = summarize(scores, "dice", modalities)
    return {region: 100 * list(parts.values())[-1].mean for region, parts in regions.items()}


def measured_rows(
    rows: Sequence[Row], means: Mapping[str, Mapping[str, float]], problems: Mapping[str, str]
) -> list[list[str]]:
    """Lay out what was measured beside what is printed.

    Args:
        rows: Of one table.
        means: Of each row's trainer, by :attr:`.Row.trainer`, as :func:`means_of` returns them; what is not there has
            not been measured.
        problems: Why a row cannot be built, by its name.

    Returns:
        A header, and for each row the Dice in percent of every region, mean of all subsets, and the printed figures;
        dashes for what is not known.
    """
    regions = list(dict.fromkeys(region for of_trainer in means.values() for region in of_trainer))
    header = ["row", "trainer", *regions, *(f"{name} (BraTS 2018)" for name in _PUBLISHED)]
    lines = [header]
    for row in rows:
        ours = {} if row.name in problems else means.get(row.trainer, {})
        name = f"{row.name} (cannot be built)" if row.name in problems else row.name
        measured = [f"{ours[region]:.1f}" if region in ours else "-" for region in regions]
        lines.append([name, row.trainer, *measured, *_printed(row)])
    return lines


def _printed(row: Row) -> list[str]:
    return [f"{dice:.1f}" for dice in row.published] or ["-"] * len(_PUBLISHED)


def _word(table: str) -> str:
    """Return how the command calls a table.

    Example:
        >>> _word("Table II"), _word("Fig. 8")
        ('II', 'fig8')
    """
    return table.removeprefix("Table ") if table.startswith("Table ") else table.replace(". ", "").lower()
