"""What a source holds: its files, which of them belong to which case, and what is known of a case once it is read."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import ImageError
from nnunetv2_d2net.data.convert.scheme import LabelScheme

LABEL = "segmentation"
"""The slot of a case that holds its labels; the other slots are called like the modalities."""

_ENDINGS = (".nii.gz", ".nii")
_JUNK = "__MACOSX"
_KINDS = {"missing": "unreadable", "labels": "unknown labels"}


class Volume(NamedTuple):
    """One image: a file, or one volume of a file that holds several."""

    path: Path
    channel: int | None = None


@dataclass
class SourceCase:
    """One case of a source, not yet read.

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

    @classmethod
    def of(cls, case: str, error: ImageError) -> "Problem":
        """Say that a case cannot be used for one of its images."""
        return cls(case, _KINDS.get(error.kind, error.kind), str(error))


@dataclass
class CaseReport:
    """What is known of a case once it is read; small, so that it travels between processes and into JSON.

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


class Contents(NamedTuple):
    """What a source holds.

    Attributes:
        cases: Those that can be read, sorted by name.
        problems: Those that cannot.
        stray: Image files that belong to no case.
    """

    cases: list[SourceCase]
    problems: list[Problem]
    stray: list[Path]


@dataclass(frozen=True)
class Layout:
    """How a source is laid out; can be pickled.

    Attributes:
        name: For ``--layout``.
        title: For people.
        modalities: In the order of the channels.
        scheme: Its label values.
        looks_like: Names of its files, for messages.
        find: Lists the cases below a folder.
    """

    name: str
    title: str
    modalities: tuple[str, ...]
    scheme: LabelScheme
    looks_like: str
    find: Callable[[Path], Contents]


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


def nifti_files(source: Path) -> list[Path]:
    """List the NIfTI files below a folder, links followed, sorted.

    What macOS leaves behind (``._name``, ``__MACOSX``) and other hidden files and folders are passed over.

    Raises:
        UserError: The folder is not there, cannot be read, or holds no such file.
    """
    if not source.is_dir():
        raise UserError(f"{source} is no folder: pass the folder that holds the cases")
    paths = sorted(path for path in _walk(source) if nifti_stem(path.name) is not None)
    if not paths:
        raise UserError(f"{source} holds no file that ends in .nii or .nii.gz: pass the folder that holds the cases")
    return paths


def nifti_stem(name: str) -> str | None:
    """Return a file's name without its NIfTI ending, in upper or lower case; None for other and hidden files.

    Example:
        >>> nifti_stem("a_FLAIR.NII.GZ"), nifti_stem("._a.nii")
        ('a_FLAIR', None)
    """
    ending = next((e for e in _ENDINGS if name.lower().endswith(e)), None)
    return None if ending is None or name.startswith(".") else name[: -len(ending)]


def _walk(source: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): change its permissions") from error

    visited = set()
    for folder, subfolders, names in os.walk(source, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link back to a folder above it
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name != _JUNK]
        yield from (Path(folder, name) for name in names)


def gather(matches: Iterable[Match], modalities: Sequence[str], stray: Sequence[Path] = ()) -> Contents:
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
    return Contents(cases, problems, list(stray))


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
