"""metrics.csv: one row per case, subset and region; survives being killed while it is written."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.scores.metrics import CaseScore


def read_scores(path: Path) -> list[CaseScore]:
    """Read metrics.csv; a last line that was not written to its end is left out.

    Raises:
        UserError: It cannot be read, or is another file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: run d2net evaluate again, without it") from error
    lines = text[: text.rfind("\n") + 1].splitlines()
    if not lines:
        return []
    header, *rows = csv.reader(lines)
    try:
        if header != list(CaseScore._fields):
            raise ValueError("other columns")
        return [_row(cells) for cells in rows]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no table of d2net evaluate ({error}): remove it and evaluate again") from error


def replace_scores(path: Path, scores: Iterable[CaseScore]) -> None:
    """Write metrics.csv anew, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CaseScore._fields)
        writer.writerows(scores)
    unfinished.replace(path)


def append_scores(path: Path, scores: Iterable[CaseScore]) -> None:
    """Add rows to metrics.csv."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(scores)


def _row(cells: Sequence[str]) -> CaseScore:
    return CaseScore._make([*cells[:3], *map(float, cells[3:7]), *map(int, cells[7:])])
