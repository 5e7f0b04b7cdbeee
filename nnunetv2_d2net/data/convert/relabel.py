"""Label values of a source, checked and replaced by those of the data set."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.data.convert.report import CaseProblemError
from nnunetv2_d2net.data.convert.scheme import LabelScheme

_WHOLE = 1e-3
"""Largest distance of a label value from a whole number."""


class Relabeled(NamedTuple):
    """Labels with the values of the data set.

    Attributes:
        image: 8 bits.
        counts: Voxels of each value of the source.
        unchanged: The source holds just these numbers, in 8 bits.
    """

    image: sitk.Image
    counts: dict[int, int]
    unchanged: bool


def relabel(case: str, path: Path, label: sitk.Image, scheme: LabelScheme) -> Relabeled:
    """Give labels the values of the data set.

    Args:
        case: Name of the case.
        path: Where the labels come from.
        label: With the values of the source; any number type, whole numbers.
        scheme: What they become.

    Raises:
        CaseProblemError: A value that is no whole number, or that the scheme does not know.
    """
    voxels = sitk.GetArrayViewFromImage(label)
    counts = whole_values(case, path, voxels)
    values = list(counts)
    unknown = {value: n for value, n in counts.items() if value not in scheme.values}
    if unknown:
        told = ", ".join(f"{value} ({n} voxels)" for value, n in unknown.items())
        known = ", ".join(map(str, sorted(scheme.values)))
        line = f"{path} holds unknown label values {told}, known are {known}: mend it, or name them in a mapping file"
        raise CaseProblemError(case, "unknown labels", line)
    targets = np.array([scheme.values[value] for value in values], dtype=np.uint8)
    mapped = targets[np.searchsorted(np.array(values), np.rint(voxels))]
    same = voxels.dtype == np.uint8 and all(scheme.values[value] == value for value in values)
    image = sitk.GetImageFromArray(mapped)
    image.CopyInformation(label)
    return Relabeled(image, counts, same)


def whole_values(case: str, path: Path, voxels: NDArray) -> dict[int, int]:
    """Count the voxels of each label value, sorted by value.

    Raises:
        CaseProblemError: A value that is no whole number.
    """
    found, counts = np.unique(voxels, return_counts=True)
    rounded = np.rint(found)
    broken = found[np.abs(found - rounded) > _WHOLE]
    if len(broken):
        line = (
            f"{path} holds label values that are no whole numbers, such as {broken[0]:g}: round it, or is it no mask?"
        )
        raise CaseProblemError(case, "unknown labels", line)
    totals: dict[int, int] = {}
    for value, n in zip(rounded.astype(int).tolist(), counts.tolist(), strict=True):
        totals[value] = totals.get(value, 0) + n
    return totals
