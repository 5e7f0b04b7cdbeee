"""What is known of a case once it was read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nnunetv2_d2net.data.convert.cases import Problem


class CaseProblemError(Exception):
    """A case that cannot be converted; carries the :class:`Problem`."""

    def __init__(self, case: str, kind: str, line: str) -> None:
        super().__init__(case, kind, line)
        self.problem = Problem(case, kind, line)


@dataclass
class CaseReport:
    """What is known of a case once it was read; small, so that it travels between processes and into JSON.

    Attributes:
        case: Its name.
        split: ``Tr`` or ``Ts``.
        modalities: Those with a real image.
        counts: Voxels of each label value of the source; empty without segmentation.
        geometry: Size, spacing and orientation, in words.
        notes: What the user should know, each one line.
        digests: A digest of the voxels of each image.
        problem: Why it cannot be converted.
    """

    case: str
    split: str
    modalities: list[str] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    geometry: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    problem: Problem | None = None


def digest_twins(reports: Sequence[CaseReport]) -> list[str]:
    """Say which images hold the very same voxels as another one."""
    seen: dict[str, str] = {}
    lines = []
    for report in reports:
        for name, digest in report.digests.items():
            here = f"{name} of {report.case!r}"
            other = seen.setdefault(digest, here)
            if other != here:
                lines.append(f"{other} and {here} hold the same voxels")
    return lines
