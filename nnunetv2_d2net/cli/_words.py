"""Looking into words that are meant for nnU-Net, without taking any.

argparse cannot do it: told of ``-p`` alone, it reads ``-pretrained_weights`` as ``-p retrained_weights``.
"""

import os
from argparse import ArgumentParser
from collections.abc import Sequence

from nnunetv2_d2net.base.errors import UserError


def values_of(words: Sequence[str], flag: str) -> list[str] | None:
    """Return what follows a flag, up to the next flag; the last occurrence counts, as for argparse.

    Example:
        >>> values_of(["-d", "7", "-f", "0", "1", "--npz"], "-f")
        ['0', '1']
    """
    values = None
    for position, word in enumerate(words):
        if word.startswith(flag + "="):
            values = [word.removeprefix(flag + "=")]
        elif word == flag:
            following = words[position + 1 :]
            end = next((i for i, value in enumerate(following) if value.startswith("-")), len(following))
            values = following[:end]
    return values if values is None else list(values)


def value_of(words: Sequence[str], flag: str, default: str = "") -> str:
    """Return the one word that follows a flag."""
    return next(iter(values_of(words, flag) or ()), default)


def without(words: Sequence[str], flag: str) -> list[str]:
    """Return the words without a flag and the one word that follows it.

    Example:
        >>> without(["7", "-p", "A", "--npz", "-p=B"], "-p")
        ['7', '--npz']
    """
    pairs = zip(["", *words], words, strict=False)
    return [word for previous, word in pairs if flag not in (previous, word) and not word.startswith(f"{flag}=")]


def without_values(words: Sequence[str], flag: str) -> list[str]:
    """Return the words without a flag and all words that follow it, up to the next flag.

    Example:
        >>> without_values(["7", "--subsets", "A", "B", "-p", "C"], "--subsets")
        ['7', '-p', 'C']
    """
    kept, dropping = [], False
    for word in words:
        if word.startswith("-"):
            dropping = word == flag or word.startswith(f"{flag}=")
        kept += [] if dropping else [word]
    return kept


def positionals(words: Sequence[str]) -> list[str]:
    """Return the words that belong to no flag, where ``-flag`` takes one value and ``--flag`` takes none.

    Example:
        >>> positionals(["7", "--npz", "3d_fullres", "-device", "cpu", "0"])
        ['7', '3d_fullres', '0']
    """
    return [
        word
        for previous, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and (previous.startswith("--") or not previous.startswith("-") or "=" in previous)
    ]


def refuse_extra(extra: Sequence[str], processes: int = 1) -> None:
    """Refuse words that nobody understands, in a command that passes nothing on, and a number of no processes.

    Raises:
        UserError: There are such words, or the number is below 1.
    """
    if extra:
        raise UserError(f"unknown argument {extra[0]}: see the command's --help")
    if processes < 1:
        raise UserError(f"-np {processes}: choose at least 1 process")


def add_processes(parser: ArgumentParser, what: str, *other_names: str, most: int = 8) -> None:
    """Declare ``-np``.

    Args:
        parser: Of the command.
        what: What there are that many of, at a time.
        other_names: For the same.
        most: Of the default; fewer where there are fewer cores.
    """
    n_processes, meaning = min(most, os.cpu_count() or 1), f"{what} (%(default)s)"
    names = ("-np", *other_names)
    parser.add_argument(*names, dest="processes", type=int, default=n_processes, metavar="N", help=meaning)


def describe_passing(parser: ArgumentParser, usage: str, nnunet_command: str) -> None:
    """Say in a command's help whose arguments it takes."""
    parser.usage = usage
    parser.epilog = f"Every other argument goes to {nnunet_command} as it is; '{nnunet_command} -h' lists them."
