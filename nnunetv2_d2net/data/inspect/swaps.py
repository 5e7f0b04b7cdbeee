r"""Modalities that look like another one: files of one case that were probably swapped or given the wrong name.

Each feature of an image, and of each pair of images, has a place and a spread in the cohort, known per modality (median
and median absolute deviation, the case itself left out). A case's files under their own names have a log likelihood of

.. math:: \sum_f -\log s_f - \frac{\nu + 1}{2} \log\left(1 + \frac{(x_f - c_f)^2}{\nu s_f^2}\right)

(Student's t, so that no single feature decides), and the same files under exchanged names another one. The difference
is the gain of the exchange; it is negative unless something is wrong.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nnunetv2_d2net.data.inspect.record import CaseRecord, Finding

Array = NDArray[np.floating]
Reference = tuple[Array, Array]
"""Place and spread of the features in the cohort, ``(M, M, F)`` each."""

MIN_CASES = 5
"""Other cases that must have a modality, or a pair of them, before anything is compared with it."""

MIN_GAIN = 6.0
"""Log likelihood by which exchanged names must fit better."""

_DEGREES = 4
_LEFT_OUT = 50
"""In cohorts up to this size a case is left out of its own comparison; in larger ones it does not matter."""

_MIN_SPREAD = 0.01
_MAX_TRIED = 200


class Exchange(NamedTuple):
    """Names that would fit a case's files better.

    Attributes:
        names_of: The modality that each file looks like, by the modality that it is called.
        gain: Difference of the log likelihoods.
    """

    names_of: dict[int, int]
    gain: float


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


def find_exchanges(features: Array) -> list[Exchange | None]:
    """Say for each of N cases which names would fit its files clearly better; None where the present ones do."""
    return [_best_exchange(*case) for case in zip(features, _references(features), strict=True)]


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
    cases = list(islice(zip(features, _references(features), strict=True), _MAX_TRIED))
    counts = {}
    for m, k in combinations(range(features.shape[1]), 2):
        noticed = [_notices(*case, m, k) for case in cases if _present(case[0])[[m, k]].all()]
        counts[m, k] = (sum(noticed), len(noticed))
    return counts


def _notices(features: Array, reference: Reference, m: int, k: int) -> bool:
    order = np.arange(len(features))
    order[[m, k]] = k, m
    exchange = _best_exchange(features[order][:, order], reference)
    return exchange is not None and exchange.names_of == {m: k, k: m}


def _stack(records: Sequence[CaseRecord]) -> Array:
    return np.array([record.features for record in records], float)


def _present(features: Array) -> NDArray[np.bool_]:
    """Which modalities a case has."""
    return np.asarray(np.isfinite(features.diagonal()).any(0))


def _references(features: Array) -> Iterator[Reference]:
    """What each case is compared with."""
    whole = _fit(features)
    for n in range(len(features)):
        yield whole if len(features) > _LEFT_OUT else _fit(np.delete(features, n, 0))


def _fit(features: Array) -> Reference:
    """Median and spread over the cases; no modality or pair may be much narrower than the typical one."""
    table = pd.DataFrame(features.reshape(len(features), -1))
    median = table.median()
    deviation = 1.4826 * (table - median).abs().median()
    enough = table.count() >= MIN_CASES
    place, spread = (x.where(enough).to_numpy().reshape(features.shape[1:]) for x in (median, deviation))
    typical = pd.DataFrame(spread.reshape(-1, features.shape[-1])).median().to_numpy()
    return place, np.maximum(np.maximum(spread, typical / 2), _MIN_SPREAD)


def _best_exchange(features: Array, reference: Reference) -> Exchange | None:
    """Exchange names two at a time as long as that helps."""
    present = np.flatnonzero(_present(features)).tolist()
    called, total = {m: m for m in present}, 0.0
    for _ in present:
        tried = [(_gain(features, reference, called, names), names) for names in _alternatives(called, len(features))]
        gain, names = max(tried, key=lambda pair: pair[0], default=(0.0, called))
        if gain < MIN_GAIN:
            break
        called, total = names, total + gain
    changed = {m: k for m, k in called.items() if m != k}
    return Exchange(changed, total) if changed else None


def _alternatives(called: dict[int, int], n_modalities: int) -> Iterator[dict[int, int]]:
    """Two names exchanged, or one file given the name of a modality that the case lacks."""
    for m, k in combinations(called, 2):
        yield called | {m: called[k], k: called[m]}
    for m in called:
        for free in set(range(n_modalities)) - set(called.values()):
            yield called | {m: free}


def _gain(features: Array, reference: Reference, old: dict[int, int], new: dict[int, int]) -> float:
    """Log likelihood under the new names minus that under the old ones; features unknown under either do not count."""
    measured = features[np.ix_([*old], [*old])]
    before, after = (
        _log_likelihood(measured, *(part[np.ix_([*names.values()], [*names.values()])] for part in reference))
        for names in (old, new)
    )
    weights = (1 + np.eye(len(old))) / 2  # each pair is there twice
    return float(np.nansum(weights[..., None] * (after - before)))


def _log_likelihood(values: Array, place: Array, spread: Array) -> Array:
    return -np.log(spread) - (_DEGREES + 1) / 2 * np.log1p(((values - place) / spread) ** 2 / _DEGREES)
