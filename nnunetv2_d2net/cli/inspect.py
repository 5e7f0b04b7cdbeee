"""``d2net inspect``."""

import argparse
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from nnunetv2_d2net.base.errors import UsageError, UserError
from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.cli import _checks
from nnunetv2_d2net.cli._words import add_dataset, add_former, add_processes, check_processes

HELP = (
    "Look at a raw data set, complete or not: which case has which modality, volumes, intensities, and cases that look "
    "wrong. Writes tables and pictures; changes nothing in the data set. Goes on where it was stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add_dataset(parser)
    add_former(parser, "dataset", "-d", metavar="ID")
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FOLDER", help="for the results (default: ./d2net_inspect_DatasetXXX)"
    )
    add_processes(parser, "processes")
    parser.add_argument(
        "--split", choices=("Tr", "Ts"), default="Tr", help="training or test cases (default %(default)s)"
    )


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Look at every case, write tables and pictures, print a summary.

    Raises:
        UserError: An argument out of range or unknown, no such data set; or, after all has been written, files that
            could not be read.
    """
    check_processes(args.processes)
    if not args.dataset:
        raise UsageError("no data set is given: d2net inspect -d ID")
    folder = _checks.dataset_folder(args.dataset, "nnUNet_raw", "check the number, or write the data set first")
    number = folder.name.split("_")[0]
    output = args.output or Path(f"d2net_inspect_{number}" + ("" if args.split == "Tr" else "_Ts"))

    from nnunetv2_d2net.data.inspect.cohort import inspect_dataset
    from nnunetv2_d2net.data.inspect.tables import orientation_line

    inspection = inspect_dataset(folder, output, split=args.split, processes=args.processes, progress=True)
    n = len(inspection.records)
    lines = [f"{counted(n, 'case')}, of which {len(inspection.suspicious)} look suspicious"]
    for m, name in enumerate(inspection.dataset.channels):
        lines.append(f"  {name}: {sum(record.pattern[m] for record in inspection.records)} of {n}")
    lines.append(f"  {orientation_line(inspection)}")
    for kind, group in groupby(inspection.findings, lambda finding: finding.kind):
        first, *others = group
        lines.append(f"  {kind}: {1 + len(others)}, such as {first.case}: {first.reason}")
    lines.append(f"written: {output}: summary.md, cases.csv, suspicions.csv, cohort.png, intensities.png, volumes.png")
    sys.stdout.write("\n".join(lines) + "\n")
    if unusable := inspection.unusable:
        first = unusable[0]
        raise UserError(
            f"{len(unusable)} cases or files cannot be read, all are in {output / 'suspicions.csv'}; the first: "
            f"{first.file or first.case}: {first.reason}: {first.remedy}"
        )
    return 0
