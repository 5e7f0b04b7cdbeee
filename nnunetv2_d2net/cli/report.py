"""``d2net report``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UsageError, UserError

HELP = (
    "Make one HTML page of a benchmark, which opens with no network: verdict, heat maps, differences with "
    "significance, cases to look at, setup and costs; and the same tables as Markdown."
)
_MOST_CASES = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=Path, metavar="OUT", help="what d2net benchmark has written")
    parser.add_argument(
        "-o", dest="page", type=Path, metavar="FILE", help="the page (OUT/report.html); Markdown goes beside it, as .md"
    )
    parser.add_argument(
        "--cases",
        type=int,
        default=_MOST_CASES,
        metavar="N",
        help="cases to look at, half the worst and half the best ones (%(default)s)",
    )
    parser.add_argument("--no_viewer", action="store_true", help="leave out pictures of cases")
    parser.add_argument(
        "--published", action="store_true", help="add figures that papers have printed, which are of another data set"
    )


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Write both files and say where they are.

    Raises:
        UserError: The folder is no finished benchmark, an argument is out of range or unknown, or a file cannot be
            written. What cannot be shown of a case is told, and left out.
    """
    page = args.page or args.folder / "report.html"
    _check(args, page)

    from nnunetv2_d2net.study.report.page import write_report
    from nnunetv2_d2net.study.report.results import read_benchmark

    n_cases = 0 if args.no_viewer else args.cases
    write_report(read_benchmark(args.folder), page, n_cases=n_cases, published=args.published, progress=True)
    sys.stdout.write(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB) and {page.with_suffix('.md')}\n")
    return 0


def _check(args: argparse.Namespace, page: Path) -> None:
    if args.cases < 1:
        raise UsageError(f"--cases {args.cases}: choose at least 1, or pass --no_viewer")
    if page.suffix not in (".html", ".htm"):
        raise UsageError(f"-o {page}: name a file that ends in .html")
    if args.page and not page.parent.is_dir():
        raise UserError(f"{page.parent} is no folder: create it, or pass another -o")
