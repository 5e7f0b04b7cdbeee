"""d2net demo."""

import argparse
import logging
import sys
from pathlib import Path

from nnunetv2_d2net.cli._words import add_former, add_seed

HELP = "Simulate, plan, preprocess, train briefly and predict every subset, all below one folder."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    out = Path("d2net_demo")
    parser.add_argument("-o", dest="out", type=Path, default=out, metavar="FOLDER", help="for all (./d2net_demo)")
    add_seed(parser)
    add_former(parser, "--out", "-o", dest="out", type=Path)


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Run the demo; a second call goes on where the first one stopped."""
    from nnunetv2_d2net.study.demo import run_demo
    from nnunetv2_d2net.study.scores.tables import ONE_TRAINING

    table = run_demo(args.out, seed=args.seed, progress=True)
    sys.stdout.write(f"\nDice, mean of the test cases, by available modalities:\n\n{table}\n")
    sys.stdout.write(f"tables: {args.out}/dice.csv, dice.md, dice_per_case.csv; picture: {args.out}/demo.png\n")
    logging.getLogger("nnunetv2_d2net").info(ONE_TRAINING)
    return 0
