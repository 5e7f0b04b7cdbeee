"""Folds of a cohort whose cases have different modalities."""

from collections.abc import Mapping, Sequence

import numpy as np


def balanced_splits(
    flags: Mapping[str, Sequence[bool]], n_folds: int = 5, seed: int = 12345
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
