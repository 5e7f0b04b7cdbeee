"""What is known about one case and about the cohort, and what looks wrong."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nnunetv2_d2net.base.dataset import Dataset

AVAILABLE, ABSENT, CONSTANT = "available", "absent", "constant"
NOT_FINITE, UNREADABLE = "NaN or infinite", "unreadable"
STATES = (AVAILABLE, ABSENT, CONSTANT, NOT_FINITE, UNREADABLE)

FILE_NAMES = "file names"
"""Kind of a finding: the files of a case cannot be told apart."""

PERCENTILES = (1, 25, 50, 75, 99)


class Finding(NamedTuple):
    """One suspicion.

    Attributes:
        case: Its name.
        kind: A few words, the same for all such findings.
        file: The file or files to look at.
        reason: What is wrong with it.
        remedy: What to do.
    """

    case: str
    kind: str
    file: str
    reason: str
    remedy: str


@dataclass
class CaseRecord:
    """One case; what it lacks or what could not be measured is None.

    Attributes:
        case: Its name.
        files: The image file of each modality, M; one file may hold several.
        label: The file of its segmentation.
        states: One of ``STATES`` for each modality, M.
        shape: Voxels (z, y, x), as nnU-Net counts them.
        spacing: mm, (z, y, x).
        head_ml: Volume of the head, ml: what is not background.
        volumes_ml: Volume of each class or region, ml; empty without a label.
        percentiles: ``PERCENTILES`` of the intensities inside the head for each modality, M.
        hashes: Digest of the voxels for each modality, M.
        label_hash: Digest of the segmentation.
        single: Features of each image, ``(M, S)``, NaN where there is none; see :mod:`.features`.
        pairs: Features of each pair of images, ``(M, M, 2)``, likewise.
        findings: What looks wrong with it on its own.
    """

    case: str
    files: list[str | None]
    label: str | None
    states: list[str]
    shape: list[int] | None = None
    spacing: list[float] | None = None
    head_ml: float | None = None
    volumes_ml: dict[str, float] = field(default_factory=dict)
    percentiles: list[list[float] | None] = field(default_factory=list)
    hashes: list[str | None] = field(default_factory=list)
    label_hash: str | None = None
    single: list[list[float]] = field(default_factory=list)
    pairs: list[list[list[float]]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "CaseRecord":
        """Take what was kept of a record as JSON."""
        record = cls(**content)
        record.findings = [Finding(*finding) for finding in record.findings]
        return record

    @property
    def pattern(self) -> tuple[bool, ...]:
        """Which modalities can be used, M flags."""
        return tuple(state == AVAILABLE for state in self.states)

    def add(self, kind: str, file: str | None, reason: str, remedy: str) -> None:
        """Note a suspicion."""
        self.findings.append(Finding(self.case, kind, file or "", reason, remedy))


@dataclass(frozen=True)
class Inspection:
    """What is known about a cohort.

    Attributes:
        folder: Of the raw data set.
        split: ``Tr`` or ``Ts``.
        dataset: What its dataset.json says.
        records: All cases, by pattern: the most frequent first.
        findings: All suspicions, by kind and case.
    """

    folder: Path
    split: str
    dataset: Dataset
    records: list[CaseRecord]
    findings: list[Finding]

    @property
    def title(self) -> str:
        """What tables and pictures are called."""
        return f"{self.folder.name}, {'training' if self.split == 'Tr' else 'test'} cases"

    @property
    def suspicious(self) -> set[str]:
        """Names of the cases that look wrong."""
        return {finding.case for finding in self.findings}

    @property
    def unusable(self) -> list[Finding]:
        """The findings that keep a case or a file from being used: it cannot be read, or told from others."""
        return [finding for finding in self.findings if finding.kind in (UNREADABLE, FILE_NAMES)]


class Measurement(NamedTuple):
    """One size of all cases.

    Attributes:
        quantity: ``shape``, ``spacing`` (mm), ``head`` or ``volume`` (ml).
        part: An axis, the head, or a class or region.
        values: By case, NaN where nothing was measured.
    """

    quantity: str
    part: str
    values: pd.Series


def measurements(records: Sequence[CaseRecord], regions: Collection[str]) -> list[Measurement]:
    """Take the sizes out of the records: shape and spacing along z, y and x, the head, every class or region."""
    names = [(quantity, axis) for quantity in ("shape", "spacing") for axis in "zyx"]
    names += [("head", "head"), *(("volume", region) for region in regions)]
    unknown = [np.nan] * 3
    rows = [
        [*(r.shape or unknown), *(r.spacing or unknown), r.head_ml, *map(r.volumes_ml.get, regions)] for r in records
    ]
    table = pd.DataFrame(rows, [record.case for record in records], dtype=float)
    return [Measurement(quantity, part, table.loc[:, k]) for k, (quantity, part) in enumerate(names)]


def pattern_name(pattern: Sequence[bool], names: Sequence[str]) -> str:
    """Say which modalities there are.

    Example:
        >>> pattern_name([True, False, True], ["FLAIR", "T1", "T2"])
        'FLAIR+T2'
        >>> pattern_name([True, True], ["T1", "T2"])
        'all'
    """
    if all(pattern):
        return "all"
    return "+".join(name for name, flag in zip(names, pattern, strict=True) if flag) or "none"
