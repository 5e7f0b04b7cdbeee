"""Folds of a cohort whose cases have different modalities."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json_or, read_json_value
from nnunetv2_d2net.base.text import counted, listed

_LOG = logging.getLogger("nnunetv2_d2net")
_REPAIR = "repair it, or move it away to split anew"

N_FOLDS = 5
"""Of the splits that nnU-Net makes where there are none."""


def check_fold(path: Path, fold: str | int, cases: Collection[str]) -> None:
    """Refuse a fold that cannot be trained, before anything is written; the file of the splits is only read.

    Args:
        path: ``splits_final.json``, which nnU-Net makes where it is not there.
        fold: A number or ``all``. One beyond those of the file is nnU-Net's random split, and is fine.
        cases: Names of the preprocessed cases.

    Raises:
        UserError: There are too few cases to make splits of, the file has another form, or the fold has no training
            or validation case, or one that is not there.
    """
    if fold == "all":
        return
    if not path.is_file():
        if len(cases) < N_FOLDS:
            raise UserError(
                f"{counted(len(cases), 'training case')} cannot make {N_FOLDS} folds: train fold all, or write {path} "
                'with [{"train": [...], "val": [...]}]'
            )
        return
    splits = read_splits(path)
    if int(fold) >= len(splits):
        return
    names = _cases_of(splits[int(fold)], path, fold)
    absent = sorted(names - set(cases))
    if absent:
        raise UserError(
            f"{path}: fold {fold} names cases that are not preprocessed ({listed(absent)}): correct the file, or "
            "preprocess again"
        )
    if left := sorted(set(cases) - names):
        _LOG.warning("%s leaves preprocessed cases out of fold %s: %s", path, fold, listed(left))


def _cases_of(split: object, path: Path, fold: str | int) -> set[str]:
    names = set[str]()
    for part in ("train", "val"):
        listed_here = split.get(part) if isinstance(split, dict) else None
        if not isinstance(listed_here, list) or not listed_here or not all(isinstance(n, str) for n in listed_here):
            raise UserError(f'{path}: fold {fold} has no list of cases under "{part}": {_REPAIR}')
        names.update(listed_here)
    return names


def read_splits(path: Path) -> list[Any]:
    """Read ``splits_final.json``: a list with ``train`` and ``val`` cases of each fold.

    Raises:
        UserError: It holds something else.
    """
    splits = read_json_value(path, _REPAIR)
    if not isinstance(splits, list) or not splits:
        raise UserError(f"{path} holds no list of folds: {_REPAIR}")
    return splits


def validation_cases(path: Path, fold: str | int) -> list[str]:
    """Return the cases that a fold leaves out; none for ``all``, and where there are no splits, or not that many.

    Raises:
        UserError: The file has another form.
    """
    splits = read_splits(path) if fold != "all" and path.is_file() else []
    if fold == "all" or int(fold) >= len(splits):
        return []
    _cases_of(splits[int(fold)], path, fold)
    return splits[int(fold)]["val"]


def perhaps_trained_on(checkpoint: Path, cases: Iterable[str]) -> list[str]:
    """Name the cases on which a fold's model was not validated, though it was on others: perhaps it trained on them.

    Args:
        checkpoint: Of the model, in its fold's folder, where nnU-Net's validation leaves ``validation/summary.json``.
        cases: Those that this fold leaves out by the splits of now.

    Returns:
        Their names; nothing where no validation is known.
    """
    rows = read_json_or(checkpoint.parent / "validation" / "summary.json", {}).get("metric_per_case")
    rows = rows if isinstance(rows, list) else []
    files = [PureWindowsPath(str(row.get("prediction_file"))).name for row in rows if isinstance(row, dict)]
    return sorted(case for case in cases if files and not any(file.startswith(f"{case}.") for file in files))


def balanced_splits(
    flags: Mapping[str, Sequence[bool]], n_folds: int = N_FOLDS, seed: int = 12345
) -> list[dict[str, list[str]]]:
    """Split cases so that every fold validates on about as many cases of each availability pattern.

    Args:
        flags: M flags by case.
        n_folds: How many folds, at most as many as cases.
        seed: Of the order within a pattern.

    Returns:
        nnU-Net's ``splits_final.json``: the ``train`` and ``val`` cases of each fold, in alphabetical order.

    Example:
        >>> splits = balanced_splits({"a": [1, 1], "b": [1, 1], "c": [1, 0], "d": [1, 0]}, n_folds=2)
        >>> sorted(case in "ab" for case in splits[0]["val"])
        [False, True]
    """
    generator = np.random.default_rng(seed)
    by_pattern: dict[tuple[bool, ...], list[str]] = {}
    for case in sorted(flags):
        by_pattern.setdefault(tuple(map(bool, flags[case])), []).append(case)
    # one deal for all patterns, the next one goes on where the last one stopped: folds differ by one case at most
    dealt = [case for pattern in sorted(by_pattern) for case in generator.permutation(by_pattern[pattern]).tolist()]
    return [
        {"train": sorted(set(flags) - set(dealt[fold::n_folds])), "val": sorted(dealt[fold::n_folds])}
        for fold in range(n_folds)
    ]
