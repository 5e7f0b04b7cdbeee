"""``d2net figures``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UsageError, UserError
from nnunetv2_d2net.base.text import counted, markdown_table
from nnunetv2_d2net.cli._checks import check_folds
from nnunetv2_d2net.cli._nnunet import device_words

HELP = (
    "Draw the paper's Fig. 5 to 7 of a trained D2-Net: segmentations under patterns of absence; modality codes and "
    "tumor-specific features in a plane, by t-SNE, before and after, with the silhouette of their groups."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="its folder: nnUNet_results/DATASET/TRAINER__PLANS__CONFIG")
    add("-i", dest="images", type=Path, required=True, metavar="FOLDER", help="images, such as imagesTs")
    add("-o", dest="out", type=Path, required=True, metavar="FOLDER", help="for pictures and figures.json")
    add("-r", dest="references", type=Path, metavar="FOLDER", help="their references for Fig. 5, such as labelsTs")
    before = "folder of another model, such as one trained without the losses (the same network before its training)"
    add("--before", type=Path, metavar="MODEL", help=before)
    add("-f", dest="fold", default="", metavar="FOLD", help="of both (the first that is trained)")
    add("--cases", type=int, default=20, metavar="N", help="cases for Fig. 6 and 7 (%(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="of what is drawn at random (%(default)s)")
    add("-device", choices=("cpu", "cuda"), help="(cuda where there is one)")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Draw, and print the silhouettes.

    Raises:
        UsageError: A number is out of range.
        UserError: A folder is missing, the model is no D2-Net, or no case can be used.
    """
    check_folds([args.fold] if args.fold else [])
    if args.cases < 1 or not 0 <= args.seed < 2**32:
        raise UsageError(f"--cases takes a number from 1, --seed one between 0 and {2**32 - 1}")
    if not args.images.is_dir():
        raise UserError(f"{args.images} is no folder: -i takes the folder of the images")

    import torch

    from nnunetv2_d2net.study.figures import CODES, FEATURES, Settings, draw_figures

    words = device_words(["-device", args.device] if args.device else [])
    device = torch.device(words[-1] if words else args.device or "cuda")
    settings = Settings(args.fold, args.before, args.references, args.cases, args.seed)
    found = draw_figures(args.model, args.images, args.out, settings, device, progress=True)
    rows = [["silhouette", "network", "points", "of the vectors", "of the plane"]]
    rows += [
        [what, title, *map(str, numbers.values())]
        for what in (CODES, FEATURES)
        for title, numbers in found[what].items()
    ]
    sys.stdout.write(f"{markdown_table(rows)}\nof {counted(found['cases'], 'case')}, written to {args.out}\n")
    return 0
