"""``d2net unregister``."""

import argparse
import sys
from collections.abc import Sequence

from nnunetv2_d2net.plugin.registration import nnunet_folder, unregister

HELP = "Remove the files that 'd2net register' wrote into nnU-Net, and no others."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no arguments."""


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Remove the files and say which."""
    removed = unregister(nnunet_folder())
    for path in removed:
        sys.stdout.write(f"removed {path}\n")
    if not removed:
        sys.stdout.write("nothing was registered\n")
    return 0
