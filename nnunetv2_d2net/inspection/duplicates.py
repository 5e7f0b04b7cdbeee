"""Images and segmentations that are voxel by voxel the same."""

from collections.abc import Iterable, Iterator, Sequence

from nnunetv2_d2net.inspection.record import CaseRecord, Finding

_MAX_TOLD = 3


def find_duplicates(records: Sequence[CaseRecord], names: Sequence[str]) -> list[Finding]:
    """Look for equal images, of two modalities or of two cases, and for equal segmentations.

    Args:
        records: All cases of the cohort.
        names: M names of the modalities.
    """
    images = (
        (digest, record.case, file, f"{names[m]} of {record.case}")
        for record in records
        for m, (digest, file) in enumerate(zip(record.hashes, record.files, strict=True))
    )
    labels = ((record.label_hash, record.case, record.label, f"the label of {record.case}") for record in records)
    return [*_equal(images), *_equal(labels)]


def _equal(items: Iterable[tuple[str | None, str, str | None, str]]) -> list[Finding]:
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for digest, case, file, what in items:
        if digest is not None:
            groups.setdefault(digest, []).append((case, file or "", what))
    return [finding for group in groups.values() if len(group) > 1 for finding in _findings(group)]


def _findings(group: Sequence[tuple[str, str, str]]) -> Iterator[Finding]:
    """One for each case among them."""
    for case in dict.fromkeys(case for case, _, _ in group):
        own = next(item for item in group if item[0] == case)
        others = [item for item in group if item is not own]
        files = ", ".join([own[1], *(file for _, file, _ in others[:_MAX_TOLD])])
        alike = " and ".join([own[2], *(what for _, _, what in others[:_MAX_TOLD])])
        more = f" (and {len(others) - _MAX_TOLD} more)" if len(others) > _MAX_TOLD else ""
        remedy = "look which one it really is, and remove or replace the other"
        yield Finding(case, "duplicate", files, f"{alike}{more} are voxel by voxel alike", remedy)
