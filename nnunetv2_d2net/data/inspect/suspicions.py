"""What looks wrong in the cohort as a whole: voxels that are the same, and sizes far from the others'."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from nnunetv2_d2net.base.images import is_planar
from nnunetv2_d2net.data.inspect.record import CaseRecord, Finding, measurements

_MIN_CASES = 8
"""That must have a quantity before anyone can be far from the others."""

_FAR = 5.0
"""Robust standard deviations of the logarithm."""

_FACTORS = {"spacing": 1.5, "head": 1.5, "volume": 4.0}
"""How many times larger or smaller than the median a value must be, too."""

_OUTLIERS = {
    "spacing": ("spacing outlier", "the spacing along {} is", "mm"),
    "head": ("head volume outlier", "the head has", "ml"),
    "volume": ("volume outlier", "{} has", "ml"),
}
_MAX_NAMED = 3
_LEAST_SHARE, _LEAST_CASES = 1 / 3, 3
"""Of the cohort's median that an image must reach along each axis, and how many cases must have one."""


class _Item(NamedTuple):
    """An image or a segmentation: its digest, whose it is (None: of the other split), its file, what to call it."""

    digest: str
    case: str | None
    file: str
    what: str


def find_duplicates(
    records: Sequence[CaseRecord], names: Sequence[str], other_split: Sequence[CaseRecord] = ()
) -> list[Finding]:
    """Look for equal images, of two modalities or of two cases, and for equal segmentations.

    Those of the other split must not be among them, such as test cases that are training cases, too.
    """
    items = [item for record in records for item in _items(record, names)]
    others = [item for record in other_split for item in _items(record, names)]
    groups: dict[str, list[_Item]] = {}
    for item in [*items, *(other._replace(case=None, what=f"{other.what} in the other split") for other in others)]:
        groups.setdefault(item.digest, []).append(item)
    return [finding for group in groups.values() if len(group) > 1 for finding in _duplicates(group)]


def _items(record: CaseRecord, names: Sequence[str]) -> Iterator[_Item]:
    """What a case has; digests of images and of segmentations are told apart."""
    for name, digest, file in zip(names, record.hashes, record.files, strict=True):
        if digest is not None:
            yield _Item(f"image {digest}", record.case, file or "", f"{name} of {record.case}")
    if record.label_hash is not None:
        yield _Item(f"label {record.label_hash}", record.case, record.label or "", f"the label of {record.case}")


def _duplicates(group: Sequence[_Item]) -> Iterator[Finding]:
    """One finding for each case of the cohort among equal items; copies in the other split are named first."""
    for case in dict.fromkeys(item.case for item in group if item.case is not None):
        own = next(item for item in group if item.case == case)
        others = sorted((item for item in group if item is not own), key=lambda item: item.case is not None)
        files = ", ".join([own.file, *(item.file for item in others[:_MAX_NAMED])])
        alike = " and ".join([own.what, *(item.what for item in others[:_MAX_NAMED])])
        more = f" (and {len(others) - _MAX_NAMED} more)" if len(others) > _MAX_NAMED else ""
        remedy = "look which one it really is, and remove or replace the other"
        yield Finding(case, "duplicate", files, f"{alike}{more} are voxel by voxel alike", remedy)


def find_outliers(records: Sequence[CaseRecord], regions: Collection[str]) -> list[Finding]:
    """Look for spacings, head volumes and volumes of classes or regions far from the median of the cohort."""
    files = {record.case: (next(filter(None, record.files), ""), record.label or "") for record in records}
    remedy = "check it by eye; nothing is to be done if it is right"
    findings = []
    for (quantity, part), values in measurements(records, regions).items():
        if quantity not in _OUTLIERS:
            continue
        kind, sentence, unit = _OUTLIERS[quantity]
        far, median = far_from_others(values, quantity)
        for case, value in far.items():
            reason = f"{sentence.format(part)} {value:.4g} {unit}, the median of the cohort is {median:.4g} {unit}"
            findings.append(Finding(str(case), kind, files[str(case)][quantity == "volume"], reason, remedy))
    return findings


def find_cut(records: Sequence[CaseRecord]) -> list[Finding]:
    """Look for images that reach much less far than those of the cohort, such as one slice among volumes.

    Images of two dimensions are left out: nobody knows the size of a photograph in mm.
    """
    known = ((r, r.shape, r.spacing) for r in records)
    sized = [(r, np.multiply(shape, mm)) for r, shape, mm in known if shape and mm and not is_planar(mm)]
    if len(sized) < _LEAST_CASES:
        return []
    medians = np.median([extent for _, extent in sized], axis=0)
    findings = []
    for record, extent in sized:
        for axis, reach, median in zip("zyx", extent.tolist(), medians.tolist(), strict=True):
            if reach < _LEAST_SHARE * median:
                reason = f"it reaches {reach:.4g} mm along {axis}, the median of the cohort is {median:.4g} mm"
                remedy = "see that no slices are lost; nothing is to be done if it is right"
                findings.append(Finding(record.case, "field of view", next(filter(None, record.files)), reason, remedy))
    return findings


def far_from_others(values: pd.Series, quantity: str) -> tuple[pd.Series, float]:
    """Pick the values of ``spacing``, ``head`` or ``volume`` far from the others, and their median, NaN of too few.

    Those that are unknown or not positive do not count.
    """
    values = values.loc[values > 0]
    if len(values) < _MIN_CASES:
        return values.head(0), np.nan
    logs = np.log(values.to_numpy())
    median = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - median))
    far = np.abs(logs - median) > max(_FAR * spread, np.log(_FACTORS[quantity]))
    return values.loc[far], float(np.exp(median))
