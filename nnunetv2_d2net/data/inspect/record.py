"""What is known about one case, and what looks wrong with it."""

import json
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

AVAILABLE, ABSENT, CONSTANT = "available", "absent", "constant"
NOT_FINITE, UNREADABLE = "NaN or infinite", "unreadable"
STATES = (AVAILABLE, ABSENT, CONSTANT, NOT_FINITE, UNREADABLE)

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

    @property
    def pattern(self) -> tuple[bool, ...]:
        """Which modalities can be used, M flags."""
        return tuple(state == AVAILABLE for state in self.states)

    def add(self, kind: str, file: str | None, reason: str, remedy: str) -> None:
        """Note a suspicion."""
        self.findings.append(Finding(self.case, kind, file or "", reason, remedy))

    def to_json(self) -> str:
        """Return one line of JSON; NaN stays NaN, which Python reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "CaseRecord":
        """Read what :meth:`to_json` has written.

        Raises:
            ValueError, TypeError: It is something else.
        """
        record = cls(**json.loads(text))
        record.findings = [Finding(*finding) for finding in record.findings]
        return record
