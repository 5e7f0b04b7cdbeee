"""``d2net export``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.cli._checks import check_folds

HELP = (
    "Write a trained model for prediction alone, without what only training needs. nnUNetv2_predict and nnU-Net's zip "
    "import take it where this package is installed; its weights load with torch.load(weights_only=True)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", type=Path, help="folder of the model: nnUNet_results/DATASET/TRAINER__PLANS__CONFIG")
    parser.add_argument(
        "-o", dest="output", type=Path, required=True, help="new zip file, or new folder to use as nnUNet_results"
    )
    parser.add_argument("-f", dest="folds", nargs="+", help="folds (default: all that are trained)")
    parser.add_argument(
        "--without_stock", action="store_true", help="leave the stock network of a companion out: about half the size"
    )
    parser.add_argument("--half", action="store_true", help="weights in half precision: half the size again")
    parser.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint (default: checkpoint_final.pth)")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Export, and print each checkpoint's size before and after.

    Raises:
        UserError: Something is missing, cannot be read or written, or is in the way.
    """
    check_folds(args.folds or ())

    from nnunetv2_d2net.plugin.prediction.export import export_model

    how = {"stock": not args.without_stock, "half": args.half}
    for name, before, after in export_model(args.model, args.output, args.folds, args.chk, **how):
        sys.stdout.write(f"{name}: {before / 2**20:.2f} MiB -> {after / 2**20:.2f} MiB\n")
    sys.stdout.write(f"written: {args.output}\n")
    return 0
