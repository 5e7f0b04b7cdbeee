"""``d2net register``."""

import argparse
import sys
from collections.abc import Sequence

from nnunetv2_d2net.plugin.registration import nnunet_folder, register

HELP = (
    "Write two small files into the installed nnU-Net, so that nnUNetv2_train -tr D2NetTrainer and "
    "nnUNetv2_plan_experiment -pl D2NetPlanner work with no variable set. They do no harm once this package is "
    "uninstalled; 'd2net unregister' removes them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Write the files and say where."""
    for path in register(nnunet_folder()):
        sys.stdout.write(f"registered {path}\n")
    return 0
