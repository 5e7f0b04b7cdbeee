"""What a segmentation says: volumes, and whether it can be one of this data set."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.data.inspect.head import Head, widen_rough
from nnunetv2_d2net.data.inspect.record import CaseRecord

_OUTSIDE = {True: 0.01, False: 0.1}
"""Share of the labeled voxels that may lie outside the head, if its border is exact and if it is rough."""


def check_values(labels: NDArray, known: Sequence[int], ignore: int | None, record: CaseRecord) -> bool:
    """Note label values that dataset.json does not name, and a label with nothing in it.

    Args:
        labels: ``(z, y, x)``, numbers of any kind.
        known: Values that may occur.
        ignore: Value of voxels without an annotation.
        record: Where to note it.

    Returns:
        Whether anything more can be said about the label.
    """
    if not np.isfinite(labels).all():
        record.add("unknown label values", record.label, "the label holds NaN or infinity", "export it again")
        return False
    values = np.unique(labels[labels != 0])
    unknown = [value for value in values.tolist() if value not in known]
    fractions = [value for value in unknown if value != round(value)]
    if fractions:
        reason = f"the label holds {_list(fractions)}, which are no whole numbers"
        remedy = "export it again; if it was resampled, with nearest neighbor interpolation"
        record.add("unknown label values", record.label, reason, remedy)
    elif unknown:
        reason = f"the label holds {_list(unknown)}, dataset.json knows {', '.join(map(str, known))}"
        record.add("unknown label values", record.label, reason, "map the values, or add them to dataset.json's labels")
    if not any(value != ignore for value in values.tolist()):
        remedy = "keep it if there is nothing to see; else look for the right file"
        record.add("empty label", record.label, "no voxel is labeled", remedy)
    return True


def check_outside(labels: NDArray, head: Head, ignore: int | None, record: CaseRecord) -> None:
    """Note labeled voxels where no image shows anything.

    Args:
        labels: ``(z, y, x)``.
        head: On the same grid.
        ignore: Value of voxels without an annotation, which may lie anywhere.
        record: Where to note it.
    """
    labeled = labels != 0
    if ignore is not None:
        labeled &= labels != ignore
    total = int(labeled.sum())
    outside = int((labeled & ~widen_rough(head)).sum())
    if total and outside / total > _OUTSIDE[head.exact]:
        reason = f"{outside} of {total} labeled voxels ({outside / total:.0%}) lie where every image is background"
        remedy = "check that label and images are of one patient and one grid"
        record.add("label outside the image", record.label, reason, remedy)


def _list(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:5])
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")
