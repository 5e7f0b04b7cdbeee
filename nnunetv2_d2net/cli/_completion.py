"""The script that completes the words of ``d2net``: written once, so that no Python starts when Tab is pressed."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from nnunetv2_d2net.cli._commands import COMMANDS
from nnunetv2_d2net.cli._help import pages
from nnunetv2_d2net.cli._nnunet_arguments import ARGUMENTS

_CHOICES = {
    "CONFIG": ("2d", "3d_fullres", "3d_lowres"),
    "FOLD": ("0", "1", "2", "3", "4", "all"),
    "NAME of -device": ("cpu", "cuda", "mps"),
}
"""What a value can be, by how help calls it, where no parser restricts it."""

_FOLDERS = ("FOLDER", "MODEL", "OUT", "PREDICTIONS", "REFERENCES", "SOURCE")

_BESIDE = {
    "train": (
        ("dataset", "ID", "data set"),
        ("configuration", "CONFIG", "configuration"),
        ("fold", "FOLD", "fold"),
        ("-d", "ID", "data set"),
        ("-c", "CONFIG", "configuration"),
        ("-f", "FOLD", "fold"),
    ),
    "segment": (
        ("patient", "FOLDER", "of one patient"),
        *((f"--{name}", "FILE", "image") for name in ("FLAIR", "T1", "T1ce", "T2")),
    ),
}
"""Words that commands look for by themselves, beside their parser and nnU-Net's."""


def script_for(shell: str, parser: argparse.ArgumentParser) -> str:
    """Write the script for a shell.

    Args:
        shell: ``bash``, ``zsh`` or ``tcsh``.
        parser: Of all commands; it is told everything that help knows besides.
    """
    commands = next(action for action in _actions(parser) if isinstance(action.choices, dict))
    commands.help = "command"  # hidden in help, where they are listed by group
    for name, subparser in dict(commands.choices or {}).items():
        for flag, value, meaning in (*ARGUMENTS.get(COMMANDS[name].nnunet, ()), *_BESIDE.get(name, ())):
            _add(subparser, flag, value, meaning)
        for action in _actions(subparser):
            _complete(action)
    topic: argparse.ArgumentParser = commands.add_parser("help", help="a command or a page")  # pyright: ignore[reportAttributeAccessIssue]
    topic.add_argument("topic", choices=[*COMMANDS, *sorted(pages())], help="command or page")
    return shtab.complete(parser, shell) + "\n"


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    yield from parser._actions


def _add(parser: argparse.ArgumentParser, flag: str, value: str, meaning: str) -> None:
    """Declare what is handed on as if it were ours."""
    if not value:
        parser.add_argument(flag, action="store_true", help=meaning)
        return
    of_device = " of -device" if flag == "-device" else ""
    several = "+" if value.endswith(" ...") else None
    parser.add_argument(flag, metavar=value.removesuffix(" ...") + of_device, nargs=several, help=meaning)


def _complete(action: argparse.Action) -> None:
    """Say what a value can be: one of a few words, a folder or a file."""
    if action.choices is None and action.metavar in _CHOICES:
        action.choices = _CHOICES[str(action.metavar)]
    elif action.metavar in _FOLDERS:
        vars(action)["complete"] = shtab.DIRECTORY
    elif action.metavar == "FILE" or action.type is Path:
        vars(action)["complete"] = shtab.FILE
