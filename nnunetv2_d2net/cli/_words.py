"""Looking into words that are meant for nnU-Net, without taking any.

argparse cannot do it: told of ``-p`` alone, it reads ``-pretrained_weights`` as ``-p retrained_weights``.
"""

import logging
import os
import re
from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from nnunetv2_d2net.base.errors import UsageError

_LOG = logging.getLogger("nnunetv2_d2net")


def values_of(words: Sequence[str], flag: str) -> list[str] | None:
    """Return what follows a flag, up to the next flag, which -1 is not; the last occurrence counts, as for argparse.

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
            end = next((i for i, value in enumerate(following) if re.match(r"-(?![\d.])", value)), len(following))
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


def guess(word: str, known: Iterable[str]) -> str:
    """Return a question that names what a mistyped word may have meant; empty where nothing is near.

    Example:
        >>> guess("pedict", ["train", "predict"]), guess("fly", ["train", "predict"])
        (', did you mean predict?', '')
    """
    near = get_close_matches(word, [name for name in known if name[:1] == "-" or word[:1] != "-"], n=1)
    return f", did you mean {near[0]}?" if near else ""


class _Former(Action):
    """Takes a word by its former name or place, and names the present one."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: object, option_string: str | None = None
    ) -> None:
        if values is not None:
            was = option_string or f"{values}, without a word before it,"
            _LOG.warning("%s is %s now; the former way goes with the next release", was, self.const)
            setattr(namespace, self.dest, values)


def add_former(parser: ArgumentParser, name: str, now: str, **settings: Any) -> None:  # noqa: ANN401 - they are argparse's
    """Let an argument be given as before, with a note.

    Args:
        parser: Of the command.
        name: The former name; without a dash, an argument that had none.
        now: The present one.
        settings: dest and what else ``add_argument`` takes.
    """
    if not name.startswith("-"):
        settings |= {"nargs": "?"}
    else:
        settings |= {"default": SUPPRESS}
    parser.add_argument(name, action=_Former, const=now, help=SUPPRESS, **settings)


def add_dataset(parser: ArgumentParser) -> None:
    """Declare ``-d`` for one data set."""
    parser.add_argument("-d", dest="dataset", metavar="ID", help="data set, such as 7 or Dataset007_Name")


def add_seed(parser: ArgumentParser) -> None:
    """Declare ``--seed`` of trainings."""
    meaning = "of trainings: the same weights again with the same versions and one thread (default: others each time)"
    parser.add_argument("--seed", type=int, metavar="S", help=meaning)


def in_nnunets_order(words: Sequence[str], flags: Sequence[str] = ("-d", "-c", "-f")) -> list[str]:
    """Return the words with what these flags name put first, without the flags, as nnUNetv2_train has them.

    Example:
        >>> in_nnunets_order(["-f", "0", "--npz", "-d", "7", "-c", "2d"]), in_nnunets_order(["7", "2d", "0"])
        (['7', '2d', '0', '--npz'], ['7', '2d', '0'])
    """
    first, others = [value_of(words, flag) for flag in flags], list(words)
    for flag in flags:
        others = without(others, flag)
    return [*filter(None, first), *others]


def check_processes(processes: int) -> None:
    """Refuse a number of no processes.

    Raises:
        UsageError: It is below 1.
    """
    if processes < 1:
        raise UsageError(f"-np {processes}: choose at least 1 process")


def add_processes(parser: ArgumentParser, what: str, most: int = 8) -> None:
    """Declare ``-np``.

    Args:
        parser: Of the command.
        what: What there are that many of, at a time.
        most: Of the default; fewer where there are fewer cores.
    """
    n_processes, meaning = min(most, os.cpu_count() or 1), f"{what} (%(default)s)"
    parser.add_argument("-np", dest="processes", type=int, default=n_processes, metavar="N", help=meaning)
