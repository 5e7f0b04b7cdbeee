"""Cases whose spacing or volumes are far from the cohort's."""

from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2_d2net.data.inspect.record import CaseRecord, Finding

MIN_CASES = 8
"""That must have a quantity before anyone can be far from the others."""

SPACING_FACTOR, HEAD_FACTOR, VOLUME_FACTOR = 1.5, 1.5, 4.0
"""How many times larger or smaller than the median a value must be, too."""

_FAR = 5.0
"""Robust standard deviations of the logarithm."""


def find_outliers(records: Sequence[CaseRecord]) -> list[Finding]:
    """Look for spacings, head volumes and volumes of classes far from the median of the cohort.

    Args:
        records: All cases of the cohort.
    """
    findings = []
    for axis, name in enumerate("zyx"):
        spacings = {r.case: r.spacing[axis] for r in records if r.spacing is not None and len(r.spacing) == 3}
        findings += [
            _finding(records, case, "spacing outlier", f"the spacing along {name} is {told}")
            for case, told in far_from_others(spacings, SPACING_FACTOR, "mm").items()
        ]
    heads = {record.case: record.head_ml for record in records if record.head_ml}
    findings += [
        _finding(records, case, "head volume outlier", f"the head has {told}")
        for case, told in far_from_others(heads, HEAD_FACTOR, "ml").items()
    ]
    for region in dict.fromkeys(region for record in records for region in record.volumes_ml):
        volumes = {r.case: volume for r in records if (volume := r.volumes_ml.get(region))}
        findings += [
            _finding(records, case, "volume outlier", f"{region} has {told}")
            for case, told in far_from_others(volumes, VOLUME_FACTOR, "ml").items()
        ]
    return findings


def far_from_others(values: Mapping[str, float], min_factor: float, unit: str) -> dict[str, str]:
    """Say for each case that is far from the others what it has and what they have.

    Args:
        values: Positive, by case.
        min_factor: To the median, upward or downward.
        unit: Of the values.
    """
    if len(values) < MIN_CASES:
        return {}
    logs = np.log(np.maximum(list(values.values()), 1e-9))
    median = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - median))
    far = np.abs(logs - median) > max(_FAR * spread, np.log(min_factor))
    return {
        case: f"{value:.4g} {unit}, the median of the cohort is {np.exp(median):.4g} {unit}"
        for (case, value), flag in zip(values.items(), far, strict=True)
        if flag
    }


def _finding(records: Sequence[CaseRecord], case: str, kind: str, reason: str) -> Finding:
    record = next(record for record in records if record.case == case)
    images = next((file for file in record.files if file), "")
    file = record.label if kind == "volume outlier" else images
    remedy = "check it by eye; nothing is to be done if it is right"
    return Finding(case, kind, file or "", reason, remedy)
