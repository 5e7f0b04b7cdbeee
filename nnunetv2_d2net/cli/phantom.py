"""``d2net phantom``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli import _checks
from nnunetv2_d2net.cli._words import refuse_extra

HELP = "Write a data set of simulated brain MRI with gliomas below nnUNet_raw, ready for d2net plan_and_preprocess."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("-d", dest="dataset_id", type=int, metavar="ID", help="its number, 1 to 999")
    parser.add_argument("--train", type=int, default=24, metavar="N", help="training cases (default %(default)s)")
    parser.add_argument("--test", type=int, default=12, metavar="N", help="test cases (default %(default)s)")
    parser.add_argument(
        "--size", choices=("small", "medium", "large"), default="small", help="voxels of 3, 2 or 1 mm (default small)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same voxels (default 0)")
    parser.add_argument("--name", default="GliomaPhantom", help="the folder is DatasetXXX_NAME (default %(default)s)")
    n_processes = min(4, os.cpu_count() or 1)
    parser.add_argument(
        "-np", "--processes", type=int, default=n_processes, metavar="N", help="cases at a time (%(default)s)"
    )
    parser.add_argument(
        "--missing",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="leave out this share of the training images at random, such as 0.2; every case keeps one (default 0)",
    )
    parser.add_argument(
        "--layout",
        choices=("brats2018", "brats2023"),
        help="write folders as BraTS does instead, to try d2net convert; needs -o and no -d",
    )
    parser.add_argument("-o", dest="output", type=Path, metavar="FOLDER", help="for --layout")
    parser.add_argument("--resume", action="store_true", help="complete an interrupted data set")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Write the data set, then print where it is and the AUC of each modality and region.

    Raises:
        UserError: An argument out of range or unknown, nnUNet_raw not set, nilearn missing, the folder or its number
            taken, or a disk error.
    """
    refuse_extra(extra)
    if args.processes < 1:
        raise UserError(f"{args.processes} processes: choose --processes of at least 1")
    if args.layout:
        return _write_source(args)
    if args.dataset_id is None or args.output is not None:
        raise UserError(
            "pass -d ID for a data set of nnU-Net, or --layout with -o FOLDER for folders as BraTS has them"
        )
    raw_folder = _checks.folder_of("nnUNet_raw")

    from nnunetv2_d2net.base.dataset import refuse_taken_number
    from nnunetv2_d2net.data.phantom.contrast import format_contrast_table
    from nnunetv2_d2net.data.phantom.dataset import PhantomSpec, write_phantom

    spec = PhantomSpec(args.dataset_id, args.train, args.test, args.size, args.seed, args.name, args.missing)
    roots = [Path(os.environ[name]) for name in ("nnUNet_preprocessed", "nnUNet_results") if os.environ.get(name)]
    refuse_taken_number(roots, spec.folder_name)
    folder = write_phantom(raw_folder, spec, processes=args.processes, resume=args.resume, progress=True)
    sys.stdout.write(f"{folder}: {spec.n_train} training and {spec.n_test} test cases\n\n")
    sys.stdout.write(
        "One voxel against all other brain voxels, also in contrast.csv (0.5 says nothing, 1 or 0 all):\n\n"
    )
    sys.stdout.write(format_contrast_table(folder / "contrast.csv"))
    return 0


def _write_source(args: argparse.Namespace) -> int:
    if args.output is None or args.dataset_id is not None:
        raise UserError("--layout needs -o FOLDER and no -d: d2net convert numbers the data set")

    from nnunetv2_d2net.data.phantom.dataset import PhantomSpec
    from nnunetv2_d2net.data.phantom.source_layout import write_source

    spec = PhantomSpec(1, args.train, args.test, args.size, args.seed, missing=args.missing)
    write_source(args.output, args.layout, spec, processes=args.processes, resume=args.resume, progress=True)
    test = f" --test {args.output / 'test'}" if spec.n_test else ""
    sys.stdout.write(f"{args.output}: {spec.n_train} training and {spec.n_test} test cases\n")
    sys.stdout.write(f"next: d2net convert {args.output / 'training'}{test} -d ID --name NAME\n")
    return 0
