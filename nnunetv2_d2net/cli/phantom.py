"""``d2net phantom``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.dataset import folder_of
from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.cli._words import add_former, add_processes, check_processes

HELP = "Write a data set of simulated brain MRI with gliomas below nnUNet_raw, ready for d2net plan_and_preprocess."

_SIZES = ("small", "medium", "large")
_KINDS = ("plain", "varied")
_KIND = "varied: random contrasts, scanners and findings, to learn from for real patients (default plain)"
_MISSING = "leave out this share of the training images at random, such as 0.2; every case keeps one (default 0)"
_LAYOUT = "write folders as BraTS does instead, to try d2net convert; needs -o and no -d"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add = parser.add_argument
    add("-d", dest="dataset_id", type=int, metavar="ID", help="its number, 1 to 999")
    add("--train", type=int, default=24, metavar="N", help="training cases (default %(default)s)")
    add("--test", type=int, default=12, metavar="N", help="test cases (default %(default)s)")
    add("--size", choices=_SIZES, default="small", help="voxels of 3, 2 or 1 mm (default small)")
    add("--kind", choices=_KINDS, default="plain", help=_KIND)
    add("--seed", type=int, default=0, metavar="S", help="same seed, same voxels (default 0)")
    add("--name", default="GliomaPhantom", help="the folder is DatasetXXX_NAME (default %(default)s)")
    add_processes(parser, "cases at a time", most=4)
    add_former(parser, "--processes", "-np", dest="processes", type=int)
    add("--missing", type=float, default=0.0, metavar="SHARE", help=_MISSING)
    add("--layout", choices=("brats2018", "brats2023"), help=_LAYOUT)
    add("-o", dest="output", type=Path, metavar="FOLDER", help="for --layout")
    add("--resume", action="store_true", help="complete an interrupted data set")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Write the data set, then print where it is and the AUC of each modality and region.

    Raises:
        UserError: An argument out of range or unknown, nnUNet_raw not set, nilearn missing, the folder or its number
            taken, or a disk error.
    """
    check_processes(args.processes)
    if args.layout and (not args.output or args.dataset_id is not None):
        raise UsageError("--layout needs -o FOLDER and no -d: d2net convert numbers the data set")
    if not args.layout and (args.dataset_id is None or args.output):
        as_brats = "--layout with -o FOLDER for folders as BraTS has them"
        raise UsageError(f"pass -d ID for a data set of nnU-Net, or {as_brats}")
    raw = None if args.layout else folder_of("nnUNet_raw")

    from nnunetv2_d2net.data.phantom.contrast import format_contrast_table
    from nnunetv2_d2net.data.phantom.dataset import PhantomSpec, write_phantom
    from nnunetv2_d2net.data.phantom.source_layout import write_source

    options = {"processes": args.processes, "resume": args.resume, "progress": True}
    number = 1 if args.dataset_id is None else args.dataset_id
    spec = PhantomSpec(number, args.train, args.test, args.size, args.seed, args.name, args.missing, args.kind)
    n_cases = f"{counted(spec.n_train, 'training case')} and {counted(spec.n_test, 'test case')}"
    if raw is None:
        write_source(args.output, args.layout, spec, **options)
        sys.stdout.write(f"{args.output}: {n_cases}\n")
        return 0
    folder = write_phantom(raw, spec, **options)
    measured = "One voxel against all other brain voxels, also in contrast.csv (0.5 says nothing, 1 or 0 all):"
    sys.stdout.write(f"{folder}: {n_cases}\n\n{measured}\n\n{format_contrast_table(folder / 'contrast.csv')}")
    return 0
