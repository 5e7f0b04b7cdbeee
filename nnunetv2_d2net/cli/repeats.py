"""``d2net repeats``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError

HELP = (
    "Compare benchmarks whose arms were trained anew, each with an nnUNet_results of its own: how far trainings of one "
    "arm differ by chance, and which differences between arms are larger than that."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="OUT", help="what d2net benchmark has written")
    parser.add_argument(
        "--against", metavar="ARM", help="the arm that all others are compared with (a companion or D2NetTrainer)"
    )
    parser.add_argument("-o", dest="page", type=Path, metavar="FILE", help="write the tables there, too, as Markdown")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Print the tables.

    Raises:
        UserError: A folder is no finished benchmark, they are no repetitions of each other, an argument is unknown, or
            the file cannot be written.
    """
    from nnunetv2_d2net.base.files import write_text
    from nnunetv2_d2net.study.report.repeats import REPEATED, repeats_page
    from nnunetv2_d2net.study.report.results import read_benchmark

    page = repeats_page([read_benchmark(folder) for folder in args.folders], args.against)
    if args.page:
        if not args.page.parent.is_dir():
            raise UserError(f"{args.page.parent} is no folder: create it, or pass another -o")
        if args.page.is_file() and REPEATED not in args.page.read_text(encoding="utf-8", errors="replace")[:400]:
            raise UserError(f"{args.page} is no page of d2net repeats, which would write over it: pass another -o")
        write_text(args.page, page)
    sys.stdout.write(page)
    return 0
