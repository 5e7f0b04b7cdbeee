"""Images and segmentations that are voxel by voxel the same."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nnunetv2_d2net.data.inspect.record import CaseRecord, Finding

_MAX_TOLD = 3


class _Item(NamedTuple):
    """An image or a segmentation: whose it is (None: of the other split), its file, and what to call it."""

    case: str | None
    file: str
    what: str


def find_duplicates(
    records: Sequence[CaseRecord], names: Sequence[str], other_split: Sequence[CaseRecord] = ()
) -> list[Finding]:
    """Look for equal images, of two modalities or of two cases, and for equal segmentations.

    Args:
        records: All cases of the cohort.
        names: M names of the modalities.
        other_split: Cases that must not be among them, such as the test cases of these training cases.
    """
    items = [item for record in records for item in _items(record, names)]
    for record in other_split:
        items += [
            (digest, item._replace(case=None, what=f"{item.what} in the other split"))
            for digest, item in _items(record, names)
        ]
    groups: dict[str, list[_Item]] = {}
    for digest, item in items:
        groups.setdefault(digest, []).append(item)
    return [finding for group in groups.values() if len(group) > 1 for finding in _findings(group)]


def _items(record: CaseRecord, names: Sequence[str]) -> Iterator[tuple[str, _Item]]:
    """What a case has, each with its digest; those of images and of segmentations are told apart."""
    for name, digest, file in zip(names, record.hashes, record.files, strict=True):
        if digest is not None:
            yield f"image {digest}", _Item(record.case, file or "", f"{name} of {record.case}")
    if record.label_hash is not None:
        yield f"label {record.label_hash}", _Item(record.case, record.label or "", f"the label of {record.case}")


def _findings(group: Sequence[_Item]) -> Iterator[Finding]:
    """One for each case of the cohort among them."""
    for case in dict.fromkeys(item.case for item in group):
        if case is None:
            continue
        own = next(item for item in group if item.case == case)
        others = sorted((item for item in group if item is not own), key=lambda item: item.case is not None)
        files = ", ".join([own.file, *(item.file for item in others[:_MAX_TOLD])])
        alike = " and ".join([own.what, *(item.what for item in others[:_MAX_TOLD])])
        more = f" (and {len(others) - _MAX_TOLD} more)" if len(others) > _MAX_TOLD else ""
        remedy = "look which one it really is, and remove or replace the other"
        yield Finding(case, "duplicate", files, f"{alike}{more} are voxel by voxel alike", remedy)
