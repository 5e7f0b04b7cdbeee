"""``d2net study``."""

import argparse
import sys
from collections.abc import Sequence

from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.cli._words import refuse_extra

HELP = "List the arms of the paper's tables: which trainer is which row, and what is printed there."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the arguments."""
    parser.add_argument("--list", action="store_true", required=True, help="every row of Tables II to IX and Fig. 8")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Print the rows as a Markdown table."""
    refuse_extra(extra)
    from nnunetv2_d2net.study.paper_tables import NOTE, rows_of_tables

    sys.stdout.write(f"{markdown_table(rows_of_tables())}\n\n{NOTE}\n")
    return 0
