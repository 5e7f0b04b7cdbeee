"""``d2net convert``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli import checks
from nnunetv2_d2net.cli.words import add_processes, refuse_extra

if TYPE_CHECKING:
    from nnunetv2_d2net.data.convert.cases import Problem

HELP = (
    "Convert a folder of cases, BraTS, Task01 of the Decathlon or your own, into a raw data set of nnU-Net. Cases may "
    "lack modalities. Goes on where it was stopped. docs/data.md describes layouts and mapping files."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder that holds the cases, at any depth")
    parser.add_argument("-d", dest="dataset_id", type=int, metavar="ID", help="number of the data set, 1 to 999")
    parser.add_argument("--name", metavar="NAME", help="the folder is DatasetXXX_NAME")
    parser.add_argument(
        "--layout",
        default="auto",
        metavar="LAYOUT",
        help="brats2018, brats2021, brats2023, msd, or a mapping file (default: recognized)",
    )
    parser.add_argument(
        "--test",
        type=Path,
        metavar="FOLDER",
        help="another folder of the same layout, for imagesTs and, where there are segmentations, labelsTs",
    )
    parser.add_argument("--check", action="store_true", help="say what is there and what is wrong, write nothing")
    parser.add_argument("--link", action="store_true", help="link to images that need no change instead of copying")
    parser.add_argument(
        "--resample", action="store_true", help="resample images that lie elsewhere than the others of their case"
    )
    add_processes(parser, "cases at a time")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Convert or check, and say what was found.

    Raises:
        UserError: An argument, the source or the data set is not usable; or, after all the others have been converted,
            cases that could not be.
    """
    refuse_extra(extra)
    if args.processes < 1:
        raise UserError(f"-np {args.processes}: choose at least 1 process")
    if not args.check and (args.dataset_id is None or args.name is None):
        raise UserError("missing -d or --name: d2net convert SOURCE -d ID --name NAME, or --check")

    from nnunetv2_d2net.data.convert.recognize import find_cases, layout_of

    if not args.check:
        checks.folder_of("nnUNet_raw")
    layout = layout_of(args.source, args.layout)
    how = "recognized" if args.layout == "auto" else "read"
    sys.stdout.write(f"{args.source}: {how} as {layout.title} (--layout {layout.name})\n")
    sys.stdout.flush()
    found = find_cases(layout, args.source, args.test)
    return _check(args, layout, found) if args.check else _convert(args, layout, found)


def _check(args: argparse.Namespace, layout, found) -> int:  # noqa: ANN001 - importing the types would import numpy
    from nnunetv2_d2net.data.convert.convert import Work, check, space_for
    from nnunetv2_d2net.data.convert.summary import describe_cases, describe_found, notes_of

    reports = check(found, Work(layout.scheme, layout.modalities, resample=args.resample), args.processes)
    problems = sorted([*found.problems, *(report.problem for report in reports if report.problem)])
    sys.stdout.write(describe_found(layout, found, reports) + describe_cases(layout, reports))
    _print_notes(notes_of(reports))
    if os.environ.get("nnUNet_raw"):
        space = space_for(found.cases, checks.folder_of("nnUNet_raw"), link=args.link)
        sys.stdout.write(f"disk: {space}\n")
        if space.needed > space.free:
            raise UserError(f"{os.environ['nnUNet_raw']}: the disk is too small, {space}: make room, or pass --link")
    _refuse(problems, "found", "mend them; d2net convert leaves such cases out")
    sys.stdout.write("no problems found\n")
    return 0


def _convert(args: argparse.Namespace, layout, found) -> int:  # noqa: ANN001
    from nnunetv2_d2net.data.convert.convert import Work, convert, target_folder
    from nnunetv2_d2net.data.convert.summary import describe_found, notes_of

    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    roots = [Path(os.environ[name]) for name in names if os.environ.get(name)]
    folder = target_folder(roots, args.dataset_id, args.name)
    work = Work(layout.scheme, layout.modalities, args.resample, args.link, folder)
    sources = {"Tr": args.source} | ({"Ts": args.test} if args.test else {})
    done = convert(found, layout, work, sources, args.processes)
    sys.stdout.write(describe_found(layout, found, done.reports))
    _print_notes(notes_of(done.reports))
    if done.n_done:
        sys.stdout.write(f"{done.n_done} cases had been converted before\n")
    if done.vanished:
        names = ", ".join(done.vanished[:5]) + (", ..." if len(done.vanished) > 5 else "")
        sys.stdout.write(
            f"note: {len(done.vanished)} cases are no longer in the source and stay in the data set ({names}): to "
            f"leave them out, remove {folder} and convert again\n"
        )
    n_train = sum(report.split == "Tr" for report in done.reports)
    sys.stdout.write(f"{folder}: {n_train} training and {len(done.reports) - n_train} test cases\n")
    _refuse(done.problems, "left out", "mend them and run again, which goes on with these")
    if not n_train:
        raise UserError(
            f"{args.source} has no case with a segmentation, nothing to train on: dataset.json is not written"
        )
    return 0


def _print_notes(notes: Sequence[str]) -> None:
    from nnunetv2_d2net.data.convert.summary import shortened

    sys.stdout.writelines(f"note: {note}\n" for note in shortened(notes))


def _refuse(problems: "Sequence[Problem]", what: str, remedy: str) -> None:
    """Name every problem on stderr, then count them."""
    from nnunetv2_d2net.data.convert.summary import count_problems

    if not problems:
        return
    sys.stdout.flush()
    sys.stderr.writelines(f"{problem.kind}: {problem.line}\n" for problem in problems)
    raise UserError(f"{len(problems)} cases {what} ({count_problems(problems)}), named above: {remedy}")
