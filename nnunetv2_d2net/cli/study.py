"""``d2net study``."""

import argparse
import sys
from collections.abc import Sequence

from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.cli._benchmarks import add_shared_arguments, setup_of
from nnunetv2_d2net.cli._words import add_dataset

HELP = (
    "Measure a table of the paper: train every row's trainer, predict every subset of the modalities, and lay the Dice "
    "out beside what is printed. What is there is not done again: after a stop, the same command goes on."
)
_TABLES = ("II", "III", "IV", "VI", "VIII", "IX", "fig8", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("table", nargs="?", choices=_TABLES, help="of the paper; V compares with methods that are not built here")
    add("--list", action="store_true", help="only list the rows: which trainer is which, and what is printed there")
    add("--rows", nargs="+", metavar="ROW", help="measure these rows, named as --list does, such as 'sc, fc' (all)")
    add_dataset(parser)
    add("-c", dest="configuration", default="3d_fullres", metavar="CONFIG", help="(%(default)s)")
    add("--epochs", type=int, default=400, metavar="N", help="passes over the training cases (%(default)s)")
    add_shared_arguments(parser, "study", plans="D2NetPaperPlans", folds="0 1 2, as the paper's", cases="folds")
    parser.set_defaults(start_from=(), subsets=None, presence=None)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """List the rows, or run what is missing of them and print their tables.

    Raises:
        UsageError: No table or no data set is named.
        UserError: There is no such row, number of passes, data set or fold; or a job failed.
    """
    if not args.list and not (args.table and args.dataset):
        raise UsageError("name a table and, by -d, a data set; or pass --list")

    from nnunetv2_d2net.study.paper_tables import NOTE, arm_of, choose_rows, rows_of_tables

    rows = choose_rows(args.table or "all", args.rows)
    if args.list:
        sys.stdout.write(f"{markdown_table(rows_of_tables(rows))}\n\n{NOTE}\n")
        return 0
    args.arms = list(dict.fromkeys(arm_of(row, args.epochs) for row in rows))
    args.folds = args.folds or (["0", "1", "2"] if args.cases == "folds" else None)
    setup = setup_of(args)

    from nnunetv2_d2net.study.benchmark.jobs import job_list
    from nnunetv2_d2net.study.paper_study import buildable, run_study

    if args.print_jobs:
        sys.stdout.write(job_list(buildable(setup, rows, args.epochs)))
        return 0
    sys.stdout.write(run_study(setup, rows, args.epochs, n_jobs=args.jobs, progress=True))
    sys.stdout.write(f"\nwritten to {args.out or setup.out}\n")
    return 0
