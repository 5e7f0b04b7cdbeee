"""Which subsets of the modalities will occur, and how often: read from words, handed to trainings, kept with them."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from nnunetv2_d2net.base.dataset import available_from_names, subset_name
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, write_json

ALL = "all"
"""Word for the subset of all modalities."""

SUBSETS = "subsets.json"
"""File in a fold's folder that says which subsets its training draws from; there is none where it draws from all."""

_VARIABLE = "D2NET_SUBSETS"
_PRECISION = ".12g"  # of a weight, so that products of what people write look as they would write them


def read_protocols(
    subsets: Sequence[str] | None, presence: Sequence[str] | None, names: Sequence[str]
) -> dict[str, float]:
    """Read which subsets occur, and how often.

    Args:
        subsets: Words such as ``FLAIR+T1ce`` or ``all=2``: modalities in any order and case, and a weight, 1 if none is
            given; None if nothing is said.
        presence: Words such as ``T1ce=0.4``: probability that a modality is there, whatever else is; 1 for all others.
        names: The M modalities of the data set, in the order of the channels.

    Returns:
        The weight of each subset that occurs, by its name; empty if nothing is said.

    Raises:
        UserError: Both are given, a modality is unknown, or a weight is none.

    Example:
        >>> read_protocols(["T2+T1=2", "all"], None, ["FLAIR", "T1", "T2"])
        {'T1+T2': 2.0, 'FLAIR+T1+T2': 1.0}
        >>> read_protocols(None, ["t1=0.25"], ["FLAIR", "T1", "T2"])
        {'FLAIR+T2': 0.75, 'FLAIR+T1+T2': 0.25}
    """
    if subsets is not None and presence is not None:
        raise UserError("--subsets and --presence both say what occurs: leave one of them out")
    if presence is not None:
        return _by_presence(presence, names)
    table: dict[str, float] = {}
    for word in subsets or ():
        flags, weight = _subset_and_weight(word, names)
        name = subset_name(flags, names)
        if name in table:
            raise UserError(f"--subsets {word}: {name} is named twice: name each subset once")
        table[name] = weight
    if subsets is not None and not table:
        raise UserError(f"--subsets names no subset: name some, such as {'+'.join(names[:2])} or {ALL}")
    return table


def weights_of(table: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Return a weight for each of the ``2^M`` subsets; bit m of the place is set where modality m is there.

    Example:
        >>> weights_of({"T1": 1.0, "FLAIR+T1": 3.0}, ["FLAIR", "T1"])
        [0.0, 0.0, 1.0, 3.0]
    """
    weights = [0.0] * 2 ** len(names)
    for flags, weight in zip(flags_of(table, names), table.values(), strict=True):
        weights[sum(flag << m for m, flag in enumerate(flags))] = weight
    return weights


def as_words(table: Mapping[str, float]) -> list[str]:
    """Return the words that name these subsets.

    Example:
        >>> as_words({"T1": 1.0, "FLAIR+T1": 0.5})
        ['T1', 'FLAIR+T1=0.5']
    """
    return [name if weight == 1 else f"{name}={weight:{_PRECISION}}" for name, weight in table.items()]


def flags_of(table: Mapping[str, float], names: Sequence[str]) -> list[tuple[bool, ...]]:
    """Return M flags for each of the subsets."""
    return [available_from_names(names, name.split("+")) for name in table]


@contextmanager
def drawing_from(table: Mapping[str, float]) -> Iterator[None]:
    """Let trainers of this package draw from these subsets, in processes that are started meanwhile, too.

    Args:
        table: Weights by name; empty for whatever the trainers draw from.
    """
    if not table:
        yield
        return
    os.environ[_VARIABLE] = "\n".join(as_words(table))
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def asked_for(names: Sequence[str]) -> dict[str, float]:
    """Return what the trainers of this process are to draw from; empty if nothing is said."""
    words = os.environ.get(_VARIABLE, "").splitlines()
    return read_protocols(words, None, names) if words else {}


def subsets_of_training(folder: Path, own: Sequence[str], names: Sequence[str], *, goes_on: bool) -> dict[str, float]:
    """Return what a training draws from: what it has drawn from, else what it is asked for, else its trainer's own.

    Args:
        folder: Of the fold.
        own: The trainer's, as words.
        names: The M modalities.
        goes_on: Whether it has begun before.

    Raises:
        UserError: It has drawn from other subsets than it is asked for.
    """
    path, asked = folder / SUBSETS, asked_for(names)
    if not goes_on:
        return asked or (read_protocols(own, None, names) if own else {})
    known = read_json(path, "repair it, or train anew", {"subsets": dict})["subsets"] if path.is_file() else {}
    if asked and asked != known:
        given = " ".join(as_words(known)) or "all of them"
        raise UserError(f"{folder} was trained with the subsets {given}: go on with these, or train anew without --c")
    return known


def note_subsets(folder: Path, table: Mapping[str, float]) -> None:
    """Write what a training draws from, or remove what an earlier one has left."""
    if table:
        write_json(folder / SUBSETS, {"subsets": dict(table)}, indent=1)
    else:
        (folder / SUBSETS).unlink(missing_ok=True)


def _subset_and_weight(word: str, names: Sequence[str]) -> tuple[tuple[bool, ...], float]:
    name, equals, number = word.rpartition("=")
    name, weight = (name, float(f"{_number(number):{_PRECISION}}")) if equals else (word, 1.0)
    if not (math.isfinite(weight) and weight > 0):
        raise UserError(f"--subsets {word}: a weight is a number above 0, such as {name}=2")
    if name.lower() == ALL:
        return (True,) * len(names), weight
    if "" in name.split("+"):
        raise UserError(f"--subsets {word}: name modalities, such as {'+'.join(names[:2])}, or {ALL}")
    return available_from_names(names, name.split("+")), weight


def _by_presence(words: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    chances = dict.fromkeys(names, 1.0)
    seen: set[str] = set()
    for word in words:
        name, _, number = word.rpartition("=")
        chance = _number(number)
        if not name or not 0 <= chance <= 1:  # NaN included
            raise UserError(f"--presence {word}: give a modality and a probability, such as {names[0]}=0.9")
        modality = names[available_from_names(names, [name]).index(True)]
        if modality in seen:
            raise UserError(f"--presence {word}: {modality} is named twice: name each modality once")
        seen.add(modality)
        chances[modality] = chance
    table = {}
    for flags in product([False, True], repeat=len(names)):
        weight = math.prod(p if flag else 1 - p for flag, p in zip(flags, chances.values(), strict=True))
        if any(flags) and weight > 0:
            table[subset_name(flags, names)] = float(f"{weight:{_PRECISION}}")
    if not table:
        raise UserError(f"--presence {' '.join(words)}: no modality would ever be there: give one a chance")
    return table


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
