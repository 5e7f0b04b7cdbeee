"""``d2net convert_back``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.cli._checks import dataset_folder
from nnunetv2_d2net.cli._problems import refuse_problems
from nnunetv2_d2net.cli._words import add_processes, check_processes

HELP = (
    "Give predictions the label values of the source that d2net convert has read, such as 4 for enhancing tumor in "
    "BraTS 2018. Takes one folder, or one folder per subset of modalities. Goes on where it was stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add = parser.add_argument
    add(
        "-i", dest="predictions", type=Path, required=True, metavar="PREDICTIONS", help="what d2net predict has written"
    )
    add("-o", dest="output", type=Path, required=True, metavar="FOLDER", help="for files of the same names")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("-d", dest="dataset", metavar="ID", help="data set that the model was trained on")
    which.add_argument("--mapping", type=Path, metavar="FILE", help="its conversion.json, or a mapping file")
    add_processes(parser, "files at a time")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Convert, and say how many.

    Raises:
        UserError: An argument or folder is not usable; or, after all the others have been converted, segmentations that
            could not be.
    """
    check_processes(args.processes)
    path = args.mapping
    if path is None:
        remedy = "pass --mapping with its conversion.json"
        path = dataset_folder(args.dataset, "nnUNet_raw", remedy) / "conversion.json"

    from nnunetv2_d2net.data.convert.back import convert_back, read_back_values

    values = read_back_values(path)
    result = convert_back(args.predictions, args.output, values, args.processes, progress=True)
    pairs = ", ".join(f"{ours} -> {theirs}" for ours, theirs in sorted(values.items()))
    sys.stdout.write(f"{args.output}: {result.n_written} segmentations written, {result.n_done} were there ({pairs})\n")
    refuse_problems(result.problems, "segmentations not converted", "mend them and run again")
    return 0
