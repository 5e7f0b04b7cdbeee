"""``d2net evaluate``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_d2net.base.errors import UsageError, UserError
from nnunetv2_d2net.base.text import counted, markdown_table
from nnunetv2_d2net.cli._words import add_former, add_processes, check_processes

if TYPE_CHECKING:
    from nnunetv2_d2net.study.scores.metrics import CaseScore

HELP = (
    "Score segmentations against references: Dice, HD95, ASSD and surface Dice of every case, subset and region, and "
    "tables in the layout of the D2-Net paper. Goes on where it was stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument(
        "-i",
        dest="predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="what d2net predict --all_subsets has written, or any folder of segmentations with its dataset.json",
    )
    add_former(parser, "-p", "-i", dest="predictions", type=Path)
    parser.add_argument(
        "-r", dest="references", type=Path, metavar="REFERENCES", help="their references, such as labelsTs"
    )
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FOLDER", help="for the results (default: PREDICTIONS/evaluation)"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1.0, metavar="MM", help="of the surface Dice, in mm (default %(default)s)"
    )
    add_processes(parser, "processes")
    parser.add_argument(
        "-m",
        "--model",
        dest="model",
        type=Path,
        metavar="MODEL",
        help="keep the Dice by subset, with spread and number of cases, in this model's folder, whose checkpoints must "
        "have made all predictions (their .modalities.json say so): later predictions are told how far to trust them",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="also print published figures, which are of another data set; needs no -i",
    )


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Score, then print the tables, counts of empty masks and where all of it was written.

    Raises:
        UserError: An argument out of range or unknown, a folder missing, nothing to score; or, after all the others
            have been scored, cases that could not be, or a model that did not make all predictions.
    """
    from nnunetv2_d2net.study.scores.evaluate import evaluate_folder
    from nnunetv2_d2net.study.scores.tables import ONE_TRAINING, write_tables

    check_processes(args.processes)
    published = _published() if args.published else ""
    if published and args.predictions is None:
        sys.stdout.write(published)
        return 0
    _check(args)
    out = args.output or args.predictions / "evaluation"
    settings = {"tolerance_mm": args.tolerance, "processes": args.processes, "progress": True}
    scores, failures, absent, missing, modalities = evaluate_folder(args.predictions, args.references, out, **settings)
    lines = []
    if scores:
        lines = [write_tables(scores, out, modalities), f"surface Dice at {args.tolerance:g} mm"]
        lines.append(f"{_count(scores)}, written: {out}: metrics.csv, tables.json, table_*.csv, .md and .tex")
    lines += [
        f"{subset}: no prediction for {counted(n, 'case')}, its means are over the others"
        for subset, n in absent.items()
    ]
    if missing:
        lines.append(f"no prediction for {counted(len(missing), 'reference')}, such as {missing[0]}")
    sys.stdout.write("".join(f"{line}\n" for line in lines) + published)
    if scores:
        logging.getLogger("nnunetv2_d2net").info(ONE_TRAINING)
    if failures:
        n = len(failures)
        kept = f"nothing was kept in {args.model}, " if args.model else ""
        raise UserError(f"{n} could not be scored, told above: {kept}mend them and run again; the first: {failures[0]}")
    if args.model:
        from nnunetv2_d2net.study.scores.measured import keep_with_model

        cases = f"the cases of {args.references.resolve().parent.name}/{args.references.resolve().name}"
        sys.stdout.write(f"written: {keep_with_model(scores, args.predictions, args.model, cases)}\n")
    return 0


def _count(scores: "Sequence[CaseScore]") -> str:
    files, cases = {score[:2] for score in scores}, {score.case for score in scores}
    return f"scored: {counted(len(files), 'segmentation')} of {counted(len(cases), 'case')}"


def _published() -> str:
    from nnunetv2_d2net.study.scores.published import NOTE, published_tables

    tables = (f"{title}\n\n{markdown_table(rows)}" for title, rows in published_tables())
    return "\n".join([f"\n{NOTE}.\n", *tables])


def _check(args: argparse.Namespace) -> None:
    if args.predictions is None or args.references is None:
        raise UsageError("missing -i or -r: d2net evaluate -i PREDICTIONS -r REFERENCES")
