r"""Modalities that look like another one: files of one case that were probably swapped or given the wrong name.

Each feature of an image, and of each pair of images, has a place and a spread in the cohort, known per modality (median
and median absolute deviation, the case itself left out). A case's files under their own names have a log likelihood of

.. math:: \sum_f -\log s_f - \frac{\nu + 1}{2} \log\left(1 + \frac{(x_f - c_f)^2}{\nu s_f^2}\right)

(Student's t, so that no single feature decides), and the same files under exchanged names another one. The difference
is the gain of the exchange; it is negative unless something is wrong.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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


class Exchange(NamedTuple):
    """Names that would fit a case's files better.

    Attributes:
        names_of: The modality that each file looks like, by the modality that it is called.
        gain: Difference of the log likelihoods.
    """

    names_of: dict[int, int]
    gain: float


def find_exchanges(features: Array) -> list[Exchange | None]:
    """Say for each of N cases which names would fit its files clearly better; None where the present ones do."""
    return [best_exchange(*case) for case in zip(features, references(features), strict=True)]


def present_modalities(features: Array) -> NDArray[np.bool_]:
    """Which modalities a case has."""
    return np.asarray(np.isfinite(features.diagonal()).any(0))


def references(features: Array) -> Iterator[Reference]:
    """What each case is compared with."""
    whole = fit_reference(features)
    for n in range(len(features)):
        yield whole if len(features) > _LEFT_OUT else fit_reference(np.delete(features, n, 0))


def fit_reference(features: Array) -> Reference:
    """Median and spread over the cases; no modality or pair may be much narrower than the typical one."""
    table = pd.DataFrame(features.reshape(len(features), -1))
    median = table.median()
    deviation = 1.4826 * (table - median).abs().median()
    enough = table.count() >= MIN_CASES
    place, spread = (x.where(enough).to_numpy().reshape(features.shape[1:]) for x in (median, deviation))
    typical = pd.DataFrame(spread.reshape(-1, features.shape[-1])).median().to_numpy()
    return place, np.maximum(np.maximum(spread, typical / 2), _MIN_SPREAD)


def best_exchange(features: Array, reference: Reference, min_gain: float = MIN_GAIN) -> Exchange | None:
    """Exchange names two at a time as long as each exchange fits better by this log likelihood."""
    present = np.flatnonzero(present_modalities(features)).tolist()
    called, total = {m: m for m in present}, 0.0
    for _ in present:
        tried = [(_gain(features, reference, called, names), names) for names in _alternatives(called, len(features))]
        gain, names = max(tried, key=lambda pair: pair[0], default=(0.0, called))
        if gain < min_gain:
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
