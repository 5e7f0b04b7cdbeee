"""d2net demo."""

import argparse
import sys
from pathlib import Path

from nnunetv2_d2net.cli._words import refuse_extra

HELP = "Simulate, plan, preprocess, train briefly and predict every subset, all below one folder."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--out", type=Path, default=Path("d2net_demo"), help="folder for everything (./d2net_demo)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Run the demo; a second call goes on where the first one stopped."""
    refuse_extra(extra)

    from nnunetv2_d2net.study.demo import run_demo

    table = run_demo(args.out, progress=True)
    sys.stdout.write(f"\nDice, mean of the test cases, by available modalities:\n\n{table}\n")
    sys.stdout.write(f"tables: {args.out}/dice.csv, dice.md, dice_per_case.csv; picture: {args.out}/demo.png\n")
    return 0
