"""``d2net inspect``."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli import checks
from nnunetv2_d2net.cli.words import add_processes, refuse_extra

if TYPE_CHECKING:
    from nnunetv2_d2net.data.inspect.inspect_cohort import Inspection
    from nnunetv2_d2net.data.inspect.record import CaseRecord

HELP = (
    "Look at a raw data set, complete or not: which case has which modality, volumes, intensities, and cases that look "
    "wrong. Writes tables and pictures; changes nothing in the data set. Goes on where it was stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("dataset", metavar="ID", help="number or name of a data set below nnUNet_raw")
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
    refuse_extra(extra)
    if args.processes < 1:
        raise UserError(f"-np {args.processes}: choose at least 1 process")
    dataset = checks.dataset_folder(args.dataset, "nnUNet_raw", "check the number, or write the data set first")
    description = dataset / "dataset.json"
    content = checks.read_json(description, "a data set of nnU-Net needs it")
    checks.channel_names(description, content)
    out = _output_folder(args, dataset)

    from nnunetv2_d2net.data.inspect.inspect_cohort import inspect_cohort
    from nnunetv2_d2net.data.inspect.matrix_picture import draw_matrix
    from nnunetv2_d2net.data.inspect.range_pictures import draw_intensities, draw_volumes
    from nnunetv2_d2net.data.inspect.raw_dataset import open_cohort
    from nnunetv2_d2net.data.inspect.summary import write_summary
    from nnunetv2_d2net.data.inspect.tables import write_tables

    cohort = open_cohort(dataset, content, args.split)
    _make(out)
    other_split = _read_other_split(dataset, content, args, out)
    seen = inspect_cohort(cohort, out / "cache.jsonl", processes=args.processes, other_split=other_split)
    title = f"{dataset.name}, {'training' if args.split == 'Tr' else 'test'} cases"
    write_tables(seen, out)
    write_summary(seen, out, dataset, title)
    draw_matrix(seen, out / "cohort.png", title)
    draw_intensities(seen, out / "intensities.png", title)
    draw_volumes(seen, out / "volumes.png", title)
    _print_summary(seen, out)
    _refuse_unreadable(seen, out)
    return 0


def _output_folder(args: argparse.Namespace, dataset: Path) -> Path:
    number = dataset.name.split("_")[0]
    out = args.output or Path(f"d2net_inspect_{number}" + ("" if args.split == "Tr" else "_Ts"))
    if out.resolve().is_relative_to(dataset.resolve()):
        raise UserError(f"{out} is inside the data set, where nothing is written: name another folder with -o")
    return out


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): name another folder with -o") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written: name another folder with -o")


def _read_other_split(
    dataset: Path, content: dict[str, Any], args: argparse.Namespace, out: Path
) -> list["CaseRecord"]:
    """Look at the cases that must not be among those inspected: figures of test cases trained on are worthless."""
    from nnunetv2_d2net.data.inspect.inspect_cohort import read_cases
    from nnunetv2_d2net.data.inspect.raw_dataset import open_cohort

    split = "Ts" if args.split == "Tr" else "Tr"
    try:
        cohort = open_cohort(dataset, content, split)
    except UserError as error:
        if (dataset / f"images{split}").is_dir():
            sys.stderr.write(f"d2net: images{split} is not searched for duplicates: {error}\n")
        return []
    return read_cases(cohort, out / f"cache_images{split}.jsonl", processes=args.processes)


def _print_summary(seen: "Inspection", out: Path) -> None:
    n = len(seen.records)
    sys.stdout.write(f"{n} cases, of which {len({f.case for f in seen.findings})} look suspicious\n")
    for m, name in enumerate(seen.names):
        sys.stdout.write(f"  {name}: {sum(record.pattern[m] for record in seen.records)} of {n}\n")
    for kind, count in Counter(finding.kind for finding in seen.findings).items():
        example = next(finding for finding in seen.findings if finding.kind == kind)
        sys.stdout.write(f"  {kind}: {count}, such as {example.case}: {example.reason}\n")
    sys.stdout.write(
        f"written: {out}: summary.md, cases.csv, suspicions.csv, cohort.png, intensities.png, volumes.png\n"
    )


def _refuse_unreadable(seen: "Inspection", out: Path) -> None:
    unreadable = [finding for finding in seen.findings if finding.kind in ("unreadable", "file names")]
    if unreadable:
        first = unreadable[0]
        raise UserError(
            f"{len(unreadable)} cases or files cannot be read, all are in {out / 'suspicions.csv'}; the first: "
            f"{first.file or first.case}: {first.reason}: {first.remedy}"
        )
