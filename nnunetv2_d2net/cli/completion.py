"""``d2net completion``."""

import argparse
import sys
from collections.abc import Sequence

from nnunetv2_d2net.cli._commands import COMMANDS

HELP = (
    "Print a script that completes d2net's words in a shell when Tab is pressed: commands, options, nnU-Net's too, "
    "configurations, folders and files. It starts no Python; print it again after an update."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the argument."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which shell reads it")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Print the script."""
    from nnunetv2_d2net.cli._completion import script_for
    from nnunetv2_d2net.cli.main import parser_of

    sys.stdout.write(script_for(args.shell, parser_of(COMMANDS)))
    return 0
