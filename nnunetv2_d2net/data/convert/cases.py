"""The cases of a source: which file is which modality of which case."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

LABEL = "segmentation"
"""The slot of a case that holds its labels; the other slots are called like the modalities."""


class Volume(NamedTuple):
    """One image: a file, or one volume of a file that holds several."""

    path: Path
    channel: int | None = None


@dataclass
class SourceCase:
    """One case as found, not yet read.

    Attributes:
        name: Its name, in the source and in nnU-Net.
        split: ``Tr`` for training cases, ``Ts`` for test cases.
        images: Those it has, by modality.
        label: Its segmentation, if any.
        notes: What the user should know about it, each one line.
    """

    name: str
    split: str
    images: dict[str, Volume]
    label: Path | None
    notes: list[str] = field(default_factory=list)

    def files(self) -> list[Path]:
        """List its files, each once."""
        paths = [volume.path for volume in self.images.values()]
        return list(dict.fromkeys([*paths, self.label] if self.label else paths))


class Problem(NamedTuple):
    """Why a case cannot be converted.

    Attributes:
        case: Its name.
        kind: Such as ``geometry``, for the summary.
        line: One line that names the file and the remedy.
    """

    case: str
    kind: str
    line: str


class Match(NamedTuple):
    """One file and what it is.

    Attributes:
        case: Name of the case.
        slot: A modality or ``LABEL``.
        volume: The file.
        place: Where the case lies; files of one case that lie in several places are of different cases.
    """

    case: str
    slot: str
    volume: Volume
    place: tuple[str, ...]


class Found(NamedTuple):
    """What a source holds.

    Attributes:
        cases: Those that can be read, sorted by name.
        problems: Those that cannot.
        stray: Image files that belong to no case.
    """

    cases: list[SourceCase]
    problems: list[Problem]
    stray: list[Path]


def gather(matches: Iterable[Match], modalities: Sequence[str], stray: Sequence[Path] = ()) -> Found:
    """Make cases of files; refuse those that cannot be told apart.

    Args:
        matches: Every file that belongs to a case.
        modalities: In the order of the channels.
        stray: Image files that belong to none.
    """
    by_case: dict[str, list[Match]] = {}
    for match in matches:
        by_case.setdefault(match.case, []).append(match)
    cases, problems = [], []
    for name, files in sorted(by_case.items()):
        problem = _collision(name, files) or _duplicate(name, files) or _unusable(name, files)
        if problem:
            problems.append(problem)
            continue
        slots = {match.slot: match.volume for match in files}
        label = slots[LABEL].path if LABEL in slots else None
        images = {modality: slots[modality] for modality in modalities if modality in slots}
        cases.append(SourceCase(name, "Tr" if label else "Ts", images, label))
    return Found(cases, problems, list(stray))


def _collision(name: str, files: Sequence[Match]) -> Problem | None:
    first = files[0]
    other = next((m for m in files if len(m.place) == len(first.place) and m.place != first.place), None)
    if other is None:
        return None
    line = f"{first.volume.path} and {other.volume.path} give the same case name {name!r}: rename the files of one"
    return Problem(name, "colliding name", line)


def _duplicate(name: str, files: Sequence[Match]) -> Problem | None:
    seen: dict[str, Match] = {}
    for match in files:
        twin = seen.setdefault(match.slot, match)
        if twin is not match:
            line = f"{twin.volume.path} and {match.volume.path} are both the {match.slot} of {name!r}: remove one"
            return Problem(name, "duplicate file", line)
    return None


def _unusable(name: str, files: Sequence[Match]) -> Problem | None:
    first = files[0].volume.path
    if not name.isprintable() or name != name.strip() or name.startswith("."):
        return Problem(name, "bad name", f"{str(first)!r} gives the case name {name!r}: rename the file")
    lost = next((match.volume.path for match in files if not match.volume.path.is_file()), None)
    if lost:
        return Problem(name, "unreadable", f"{lost} is no file (a broken link?): put the image there, or remove it")
    if all(match.slot == LABEL for match in files):
        return Problem(name, "no image", f"{first} is a segmentation without any image: add one, or remove it")
    return None
