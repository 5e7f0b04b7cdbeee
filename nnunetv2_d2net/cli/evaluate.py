"""``d2net evaluate``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli._words import add_processes, refuse_extra

HELP = (
    "Score segmentations against references: Dice, HD95, ASSD and surface Dice of every case, subset and region, and "
    "tables in the layout of the D2-Net paper. Goes on where it was stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument(
        "-p",
        dest="predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="what d2net predict --all_subsets has written, or any folder of segmentations with its dataset.json",
    )
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
        "--published",
        action="store_true",
        help="also print published figures, which are of another data set; needs no -p",
    )


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Score, then print the tables, counts of empty masks and where all of it was written.

    Raises:
        UserError: An argument out of range or unknown, a folder missing, nothing to score; or, after all the others
            have been scored, cases that could not be.
    """
    from nnunetv2_d2net.study.scores.evaluate import evaluate_folder
    from nnunetv2_d2net.study.scores.published import published_tables
    from nnunetv2_d2net.study.scores.tables import write_tables

    refuse_extra(extra)
    published = f"\n{published_tables()}" if args.published else ""
    if published and args.predictions is None:
        sys.stdout.write(published)
        return 0
    _check(args)
    out = args.output or args.predictions / "evaluation"
    settings = {"tolerance_mm": args.tolerance, "processes": args.processes, "progress": True}
    scores, failures, absent, unpredicted, modalities = evaluate_folder(
        args.predictions, args.references, out, **settings
    )
    if scores:
        sys.stdout.write(f"{write_tables(scores, out, modalities)}\n")
        sys.stdout.write(f"surface Dice at {args.tolerance:g} mm\n")
        sys.stdout.write(f"written: {out}: metrics.csv, tables.json, table_*.csv, .md and .tex\n")
    for subset, n in absent.items():
        sys.stdout.write(f"{subset}: {n} cases have no prediction, its means are over the others\n")
    if unpredicted:
        sys.stdout.write(f"{len(unpredicted)} references have no prediction, such as {unpredicted[0]}\n")
    sys.stdout.write(published)
    if failures:
        told = f"{len(failures)} could not be scored, told above"
        raise UserError(f"{told}: mend them and run again; the first: {failures[0]}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.predictions is None or args.references is None:
        raise UserError("missing -p or -r: d2net evaluate -p PREDICTIONS -r REFERENCES")
    if args.processes < 1:
        raise UserError(f"-np {args.processes}: choose at least 1 process")
