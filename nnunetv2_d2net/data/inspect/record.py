"""What is known about one case and about the cohort, and what looks wrong."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from nnunetv2_d2net.base.dataset import Dataset

AVAILABLE, ABSENT, CONSTANT = "available", "absent", "constant"
NOT_FINITE, UNREADABLE = "NaN or infinite", "unreadable"
STATES = (AVAILABLE, ABSENT, CONSTANT, NOT_FINITE, UNREADABLE)

FILE_NAMES = "file names"
"""Kind of a finding: the files of a case cannot be told apart."""

HEADER = "header"
"""Kind of a finding: a header that other programs may understand otherwise."""

PERCENTILES = (1, 25, 50, 75, 99)


class Finding(NamedTuple):
    """One suspicion: its kind in a few words, the file or files to look at, what is wrong, and what to do."""

    case: str
    kind: str
    file: str
    reason: str
    remedy: str


@dataclass
class CaseRecord:
    """One case; what it lacks or what could not be measured is None.

    Attributes:
        files: The image file of each modality, M; one file may hold several.
        label: The file of its segmentation.
        states: One of ``STATES`` for each modality, M.
        shape: Voxels (z, y, x), as nnU-Net counts them.
        spacing: mm, (z, y, x).
        orientation: How its images lie, see :func:`.orientation_of`; empty where that is not known.
        head_ml: Volume of what is not background.
        volumes_ml: Of each class or region; empty without a label.
        percentiles: ``PERCENTILES`` of the intensities inside the head for each modality, M.
        hashes: Digest of the voxels for each modality, M; ``label_hash`` is that of the segmentation.
        features: ``(M, M, F)``, as :func:`.measure_features` gives them; empty without an image.
        findings: What looks wrong with it on its own.
    """

    case: str
    files: list[str | None]
    label: str | None
    states: list[str]
    shape: list[int] | None = None
    spacing: list[float] | None = None
    orientation: str = ""
    head_ml: float | None = None
    volumes_ml: dict[str, float] = field(default_factory=dict)
    percentiles: list[list[float] | None] = field(default_factory=list)
    hashes: list[str | None] = field(default_factory=list)
    label_hash: str | None = None
    features: list[list[list[float]]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

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
    def orientations(self) -> Counter[str]:
        """How many cases lie in which way, of those with images."""
        return Counter(record.orientation for record in self.records if record.shape)

    @property
    def unusable(self) -> list[Finding]:
        """The findings that keep a case or a file from being used: it cannot be read, or told from others."""
        return [finding for finding in self.findings if finding.kind in (UNREADABLE, FILE_NAMES)]


def measurements(records: Sequence[CaseRecord], regions: Collection[str]) -> dict[tuple[str, str], pd.Series]:
    """Take the sizes out of the records.

    Returns:
        By quantity and part, values by case, NaN where nothing was measured: ``shape`` and ``spacing`` (mm) along z, y
        and x, ``head`` (ml) of the ``head``, ``volume`` (ml) of each class or region.
    """
    names = [(quantity, axis) for quantity in ("shape", "spacing") for axis in "zyx"]
    names += [("head", "head"), *(("volume", region) for region in regions)]
    unknown = [np.nan] * 3
    rows = [
        [*(r.shape or unknown), *(r.spacing or unknown), r.head_ml, *map(r.volumes_ml.get, regions)] for r in records
    ]
    table = pd.DataFrame(rows, [record.case for record in records], dtype=float)
    return {name: table.loc[:, k] for k, name in enumerate(names)}


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
