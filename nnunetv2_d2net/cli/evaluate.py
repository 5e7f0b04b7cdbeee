"""``d2net evaluate``."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli.words import add_processes

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
    if extra:
        raise UserError(f"unknown argument {extra[0]}: see d2net evaluate --help")
    if args.published and args.predictions is None:
        _print_published()
        return 0
    _check(args)

    from nnunetv2_d2net.study.scores.evaluate import evaluate_folder
    from nnunetv2_d2net.study.scores.tables import write_tables

    out = args.output or args.predictions / "evaluation"
    try:
        found = evaluate_folder(
            args.predictions, args.references, out, tolerance_mm=args.tolerance, processes=args.processes
        )
        tables = write_tables(found.scores, out, found.modalities) if found.scores else ""
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}: free space, or pass another -o") from error
    if found.scores:
        sys.stdout.write(tables + "\n")
        sys.stdout.write(f"surface Dice at {args.tolerance:g} mm\n")
        sys.stdout.write(f"written: {out}: metrics.csv, tables.json, table_*.csv, .md and .tex\n")
    _print_gaps(found.absent, found.unpredicted)
    if args.published:
        _print_published()
    if found.failures:
        raise UserError(
            f"{len(found.failures)} could not be scored, told above: mend them and run again; the first: "
            f"{found.failures[0]}"
        )
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.predictions is None or args.references is None:
        raise UserError("missing -p or -r: d2net evaluate -p PREDICTIONS -r REFERENCES")
    if args.processes < 1:
        raise UserError(f"-np {args.processes}: choose at least 1 process")
    if not (math.isfinite(args.tolerance) and args.tolerance >= 0):
        raise UserError(f"--tolerance {args.tolerance}: choose a distance in mm, such as 1")


def _print_gaps(absent: dict[str, int], unpredicted: Sequence[str]) -> None:
    """Say which cases the means do not hold."""
    for subset, n in absent.items():
        sys.stdout.write(f"{subset}: {n} cases have no prediction, its means are over the others\n")
    if unpredicted:
        sys.stdout.write(f"{len(unpredicted)} references have no prediction, such as {unpredicted[0]}\n")


def _print_published() -> None:
    from nnunetv2_d2net.study.scores.published import NOTE, published_dice, published_distances
    from nnunetv2_d2net.study.scores.subset_table import markdown_table
    from nnunetv2_d2net.study.scores.tables import subset_order

    columns = [*subset_order(["FLAIR", "T1", "T1ce", "T2"]), "mean of 15"]
    sys.stdout.write(f"\n{NOTE}.\n\nDice\n\n{markdown_table(published_dice(columns))}")
    sys.stdout.write(f"\nDistances in mm, mean of 15 subsets\n\n{markdown_table(published_distances())}")
