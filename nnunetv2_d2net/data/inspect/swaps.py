"""Modalities that look like another one: files of one case that were probably swapped or given the wrong name."""

from collections.abc import Sequence
from itertools import combinations, islice

import numpy as np

from nnunetv2_d2net.base.exchanges import (
    MIN_CASES,
    Array,
    Reference,
    best_exchange,
    find_exchanges,
    present_modalities,
    references,
)
from nnunetv2_d2net.data.inspect.record import CaseRecord, Finding

_MAX_TRIED = 200


def find_swaps(records: Sequence[CaseRecord], names: Sequence[str]) -> list[Finding]:
    """Look for swapped or misnamed modalities, by all cases of a cohort and the names of its M modalities."""
    measured = [record for record in records if record.features]
    if len(measured) <= MIN_CASES:
        return []
    findings = []
    for record, exchange in zip(measured, find_exchanges(_stack(measured)), strict=True):
        if exchange is not None:
            files = ", ".join(record.files[m] or "" for m in exchange.names_of)
            likeness = " and ".join(f"{names[m]} looks like {names[k]}" for m, k in exchange.names_of.items())
            reason = f"by its intensities {likeness} (log odds {exchange.gain:.0f})"
            remedy = "look at the images, and rename the files if it is so"
            findings.append(Finding(record.case, "modalities swapped", files, reason, remedy))
    return findings


def count_noticed(records: Sequence[CaseRecord]) -> dict[tuple[int, int], tuple[int, int]]:
    """Try in thought what would be noticed: exchange two images of one case, for every case and pair.

    Args:
        records: All cases of the cohort; no more than the first 200 with images are tried.

    Returns:
        How many exchanges are noticed, and how many were tried, by pair; empty if the cohort is too small to tell.
    """
    features = _stack([record for record in records if record.features])
    if len(features) <= MIN_CASES:
        return {}
    cases = list(islice(zip(features, references(features), strict=True), _MAX_TRIED))
    counts = {}
    for m, k in combinations(range(features.shape[1]), 2):
        noticed = [_notices(*case, m, k) for case in cases if present_modalities(case[0])[[m, k]].all()]
        counts[m, k] = (sum(noticed), len(noticed))
    return counts


def _notices(features: Array, reference: Reference, m: int, k: int) -> bool:
    order = np.arange(len(features))
    order[[m, k]] = k, m
    exchange = best_exchange(features[order][:, order], reference)
    return exchange is not None and exchange.names_of == {m: k, k: m}


def _stack(records: Sequence[CaseRecord]) -> Array:
    return np.array([record.features for record in records], float)
