"""``d2net trainers``."""

import argparse
import sys
from collections.abc import Sequence

from nnunetv2_d2net.plugin.registration import trainers_folder

HELP = 'Print the folder of our trainers, for export nnUNet_extTrainer="$(d2net trainers)".'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Print the folder, and nothing else."""
    sys.stdout.write(f"{trainers_folder()}\n")
    return 0
