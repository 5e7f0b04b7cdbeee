"""``d2net convert``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UsageError, UserError
from nnunetv2_d2net.cli._problems import refuse_problems
from nnunetv2_d2net.cli._words import add_processes, check_processes

HELP = (
    "Convert a folder of cases, BraTS, Task01 of the Decathlon or your own, into a raw data set of nnU-Net. Cases may "
    "lack modalities. Goes on where it was stopped. d2net help data describes layouts and mapping files."
)

_LAYOUTS = "brats2018, brats2021, brats2023, msd, or a mapping file (default: recognized)"
_OPTIONS = ("test", "link", "resample", "nan_outside_as_zero", "label_header_from_images", "labels", "processes")
_TEST = "another folder of the same layout, for imagesTs and, where there are segmentations, labelsTs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="folder that holds the cases, at any depth")
    add("-d", dest="dataset_id", type=int, metavar="ID", help="number of the data set, 1 to 999")
    add("--name", metavar="NAME", help="the folder is DatasetXXX_NAME")
    add("--layout", default="auto", metavar="LAYOUT", help=_LAYOUTS)
    add("--test", type=Path, metavar="FOLDER", help=_TEST)
    add("--check", action="store_true", help="say what is there and what is wrong, write nothing")
    add("--link", action="store_true", help="link to images that need no change instead of copying")
    add("--resample", action="store_true", help="resample images that lie elsewhere than the others of their case")
    zero = "take NaN outside the field of view, as some programs write when they resample, as 0"
    add("--nan_outside_as_zero", action="store_true", help=zero)
    header = (
        "put segmentations that lie elsewhere than the images of their case onto the images' grid, voxels unchanged"
    )
    add("--label_header_from_images", action="store_true", help=header)
    labels = "what the label values mean, where files do not tell: brats2021 (4 enhancing tumor) or brats2023 (3)"
    add("--labels", metavar="YEAR", help=labels)
    add_processes(parser, "cases at a time")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Convert or check, and say what was found.

    Raises:
        UserError: An argument, the source or the data set is not usable; or, after all the others have been converted,
            cases that could not be.
    """
    check_processes(args.processes)
    if not args.check and (args.dataset_id is None or args.name is None):
        raise UsageError("missing -d or --name: d2net convert SOURCE -d ID --name NAME, or --check")

    from nnunetv2_d2net.data.convert.convert import check_folder, convert_folder
    from nnunetv2_d2net.data.convert.layouts import layout_of
    from nnunetv2_d2net.data.convert.summary import describe_check, describe_conversion

    layout = layout_of(args.source, args.layout, args.labels)
    how = "recognized" if args.layout == "auto" else "read"
    sys.stdout.write(f"{args.source}: {how} as {layout.title} (--layout {layout.name})\n")
    sys.stdout.flush()
    options = {name: value for name, value in vars(args).items() if name in _OPTIONS}
    options |= {"layout": layout.name, "progress": True}
    if args.check:
        checked = check_folder(args.source, **options)
        sys.stdout.write(describe_check(checked))
        if checked.space:
            checked.space.check()
        refuse_problems(checked.problems, "cases found", "mend them; d2net convert leaves such cases out")
        sys.stdout.write("no problems found\n")
        return 0
    converted = convert_folder(args.source, args.dataset_id, args.name, **options)
    sys.stdout.write(describe_conversion(converted))
    refuse_problems(converted.problems, "cases left out", "mend them and run again, which goes on with these")
    if not converted.n_train:
        nothing = "has no case with a segmentation, nothing to train on"
        raise UserError(f"{args.source} {nothing}: dataset.json is not written")
    return 0
