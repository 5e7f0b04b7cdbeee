"""What a source holds: its files, which of them belong to which case, and what is known of a case once it is read."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import file_state, is_left_over, no_file, whole_name
from nnunetv2_d2net.base.images import ImageError
from nnunetv2_d2net.base.modality_names import LABEL
from nnunetv2_d2net.data.convert.scheme import LabelScheme

_ENDINGS = (".nii.gz", ".nii")
_OTHER_ENDINGS = (
    *(".mha", ".mhd", ".nrrd", ".nhdr", ".hdr", ".img", ".mgz", ".mgh", ".mnc", ".minc", ".par", ".mif", ".dcm"),
    *(".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".mif.gz", ".mnc.gz", ".nii.bz2", ".nii.xz", ".nii.zst"),
)
_JUNK = "__MACOSX"
_KINDS = {"missing": "unreadable", "labels": "unknown labels"}


class Volume(NamedTuple):
    """One image: a file, or one volume of a file that holds several."""

    path: Path
    channel: int | None = None

    def __str__(self) -> str:
        return str(self.path.absolute()) + ("" if self.channel is None else f"[{self.channel}]")


@dataclass
class SourceCase:
    """One case of a source, not yet read: its images by modality, and one-line notes for the user.

    Its name is that in the source and in nnU-Net; the split is ``Tr`` for training and ``Ts`` for test cases.
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
    """Why a case cannot be converted: its kind, such as ``geometry``, and a line that names the file and the remedy."""

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
        images: Where each modality comes from.
        label: Where its segmentation comes from.
        files: Size and time of each file, which tell whether it has changed.
        modalities: Those with a real image.
        voxels: How many of each label value of the source; empty without segmentation.
        geometry: Size, spacing and orientation, in words.
        digests: A digest of the voxels of each image.
    """

    case: str
    split: str
    images: dict[str, str]
    label: str | None
    files: dict[str, list[int] | None]
    modalities: list[str] = field(default_factory=list)
    voxels: dict[int, int] = field(default_factory=dict)
    geometry: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    problem: Problem | None = None

    @classmethod
    def of(cls, case: SourceCase, problem: Problem | None = None) -> "CaseReport":
        """Say what is known of a case before it is read."""
        images = {modality: str(volume) for modality, volume in case.images.items()}
        label = None if case.label is None else str(case.label.absolute())
        files = {str(path.absolute()): file_state(path) for path in case.files()}
        return cls(case.name, case.split, images, label, files, notes=list(case.notes), problem=problem)


class Contents(NamedTuple):
    """What a source holds: cases that can be read, sorted by name, those that cannot, and images of no case."""

    cases: list[SourceCase]
    problems: list[Problem]
    stray: list[Path]


@dataclass(frozen=True)
class Layout:
    """How a source is laid out; can be pickled.

    Attributes:
        name: For ``--layout``; the title is for people.
        modalities: In the order of the channels.
        looks_like: Names of its files, for messages.
        find: Lists the cases below a folder.
        labels_are_known: Whether the source or the user says what the label values mean, and not names alone.
    """

    name: str
    title: str
    modalities: tuple[str, ...]
    scheme: LabelScheme
    looks_like: str
    find: Callable[[Path], Contents]
    labels_are_known: bool = False


class Match(NamedTuple):
    """What a file is: the slot is a modality or ``LABEL``.

    The place is where the case lies; files of one name that lie in several places are of different cases.
    """

    case: str
    slot: str
    volume: Volume
    place: tuple[str, ...]


def nifti_files(source: Path) -> list[Path]:
    """List the NIfTI files below a folder, links followed, sorted, and what stands in the place of one.

    That is a folder that is called so, and a file with something behind its ending, of which there is no whole one.
    What macOS leaves behind (``._name``, ``__MACOSX``) and other hidden files and folders are passed over.

    Raises:
        UserError: The folder is not there, cannot be read, or holds no such file.
    """
    if not source.is_dir():
        raise UserError(f"{source} is no folder: pass the folder that holds the cases")
    found = (path for path in walk(source, folders=True) if nifti_stem(path.name) is not None)
    paths = sorted(path for path in found if not is_left_over(path))
    if not paths:
        others = other_images(source)
        holds = f", but {others[0]} and the like: convert them with SimpleITK, or" if others else ":"
        raise UserError(
            f"{source} holds no file that ends in .nii or .nii.gz{holds} pass the folder that holds the cases"
        )
    return paths


def other_images(source: Path) -> list[Path]:
    """List the images of other formats below a folder, and archives, which are not read."""
    return sorted(path for path in walk(source) if whole_name(path.name).lower().endswith(_OTHER_ENDINGS))


def nifti_stem(name: str) -> str | None:
    """Return a file's name without its NIfTI ending, in upper or lower case; None for other and hidden files.

    What stands behind the ending is left out, too, see :func:`whole_name`.

    Example:
        >>> nifti_stem("a_FLAIR.NII.GZ"), nifti_stem("._a.nii")
        ('a_FLAIR', None)
    """
    name = whole_name(name)
    ending = next((e for e in _ENDINGS if name.lower().endswith(e)), None)
    return None if ending is None or name.startswith(".") else name[: -len(ending)]


def walk(source: Path, *, folders: bool = False) -> Iterator[Path]:
    """List the files, and folders if wanted, below a folder, links followed.

    Hidden folders and what macOS leaves behind are passed over.

    Raises:
        UserError: A folder cannot be read.
    """

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
        yield from (Path(folder, name) for name in (*names, *(subfolders if folders else ())))


def gather(files: Mapping[Path, Sequence[Match]], modalities: Sequence[str]) -> Contents:
    """Make cases of files; refuse those that cannot be told apart.

    Args:
        files: Every image file, and what it is; nothing for one that belongs to no case.
        modalities: In the order of the channels.
    """
    cases, problems = [], []
    opened = {folder for path, matches in files.items() if matches for folder in path.parents}
    files = {path: matches for path, matches in files.items() if path not in opened and (matches or not path.is_dir())}
    matches = sorted(itertools.chain.from_iterable(files.values()), key=attrgetter("case"))
    for name, group in itertools.groupby(matches, attrgetter("case")):
        of_case = list(group)
        problem = next(_problems(name, of_case), None)
        if problem:
            problems.append(Problem(name, *problem))
            continue
        slots = {match.slot: match.volume for match in of_case}
        label = slots[LABEL].path if LABEL in slots else None
        images = {modality: slots[modality] for modality in modalities if modality in slots}
        cases.append(SourceCase(name, "Tr" if label else "Ts", images, label))
    return Contents(cases, problems, [path for path, matches in files.items() if not matches])


def _problems(name: str, files: Sequence[Match]) -> Iterator[tuple[str, str]]:
    """Say why files are not one usable case, each time as kind and line."""
    first, path = files[0], files[0].volume.path
    for match in files:
        if len(match.place) == len(first.place) and match.place != first.place:
            both = f"{path} and {match.volume.path}"
            yield "colliding name", f"{both} give the same case name {name!r}: rename the files of one"
    seen: dict[str, Match] = {}
    for match in files:
        twin = seen.setdefault(match.slot, match)
        if twin is not match:
            both = f"{twin.volume.path} and {match.volume.path} are both the {match.slot} of {name!r}"
            is_copy = match.slot != LABEL or nifti_stem(twin.volume.path.name) == nifti_stem(match.volume.path.name)
            remedy = "remove one" if is_copy else "put all classes into one file, with a value for each"
            yield "duplicate file", f"{both}: {remedy}"
    if not name.isprintable() or name != name.strip() or name.startswith("."):
        yield "bad name", f"{str(path)!r} gives the case name {name!r}: rename the file"
    yield from (("unreadable", lacking) for match in files if (lacking := no_file(match.volume.path)))
    if seen.keys() == {LABEL}:
        yield "no image", f"{path} is a segmentation without any image: add one, or remove it"
