"""The layouts that are known: BraTS 2017 to 2021, BraTS 2023 and later, and Task01 of the Decathlon."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_d2net.data.convert.cases import LABEL, Found, Match, SourceCase, Volume, gather
from nnunetv2_d2net.data.convert.scheme import LabelScheme, make_scheme
from nnunetv2_d2net.data.convert.source_files import nifti_files, nifti_stem

MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
"""Of the data sets made from known layouts, in the order of the channels."""

CORE, EDEMA, ENHANCING, CAVITY = (
    "necrotic or non-enhancing core",
    "edema",
    "enhancing tumor",
    "resection cavity",
)
REGIONS = {"whole tumor": [CORE, EDEMA, ENHANCING], "tumor core": [CORE, ENHANCING], "enhancing tumor": [ENHANCING]}


@dataclass(frozen=True)
class Layout:
    """How a source is laid out.

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
    find: Callable[[Path], Found]


_OLD_TOKENS = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t1gd": "T1ce", "t2": "T2", "seg": LABEL}
_NEW_TOKENS = {"t2f": "FLAIR", "t1n": "T1", "t1c": "T1ce", "t2w": "T2", "seg": LABEL}
OLD_NAME = re.compile(rf"(?P<case>.+)_(?P<token>{'|'.join(_OLD_TOKENS)})", re.IGNORECASE | re.DOTALL)
NEW_NAME = re.compile(rf"(?P<case>.+)-(?P<token>{'|'.join(_NEW_TOKENS)})", re.IGNORECASE | re.DOTALL)


def match_name(path: Path, name: re.Pattern[str], tokens: Mapping[str, str]) -> Match | None:
    """Read case and modality from a file's name."""
    found = name.fullmatch(nifti_stem(path.name) or "")
    if found is None:
        return None
    return Match(found["case"], tokens[found["token"].lower()], Volume(path), (str(path.parent),))


def _find_brats(source: Path, name: re.Pattern[str], tokens: Mapping[str, str]) -> Found:
    paths = nifti_files(source)
    named = {path: match_name(path, name, tokens) for path in paths}
    matches = [match for match in named.values() if match]
    misnamed = _misnamed_segmentations([path for path, match in named.items() if not match], matches)
    stray = [path for path, match in named.items() if not match and path not in misnamed]
    found = gather([*matches, *misnamed.values()], MODALITIES, stray)
    taken = {match.case: path for path, match in misnamed.items()}
    for case in found.cases:
        if case.name in taken:
            case.notes.append(f"{taken[case.name]} is taken for the segmentation of {case.name!r}")
    _note_missing_segmentations(found.cases)
    return found


def _misnamed_segmentations(paths: Iterable[Path], matches: Sequence[Match]) -> dict[Path, Match]:
    """Find segmentations that are called otherwise, alone with one case: W39_1998.09.19_Segm.nii of BraTS 2020."""
    by_folder: dict[Path, list[Match]] = {}
    for match in matches:
        by_folder.setdefault(match.volume.path.parent, []).append(match)
    called: dict[Path, list[Path]] = {}
    for path in paths:
        if "seg" in path.name.lower():
            called.setdefault(path.parent, []).append(path)
    found = {}
    for folder, candidates in called.items():
        beside = by_folder.get(folder, [])
        alone = len(candidates) == 1 and len({match.case for match in beside}) == 1
        if alone and all(match.slot != LABEL for match in beside):
            found[candidates[0]] = beside[0]._replace(slot=LABEL, volume=Volume(candidates[0]))
    return found


def _note_missing_segmentations(cases: Sequence[SourceCase]) -> None:
    """Say which cases lack the segmentation that their neighbors have."""
    training = {_collection(case, cases) for case in cases if case.label}
    for case in cases:
        if case.label is None and _collection(case, cases) in training:
            case.notes.append(f"{case.name!r} has no segmentation: it goes to imagesTs")


def _collection(case: SourceCase, cases: Sequence[SourceCase]) -> Path:
    """Return the folder that holds the case among others: its own folder's parent, unless cases share a folder."""
    folder = next(iter(case.images.values())).path.parent
    return folder.parent if folder.name == case.name else folder


def _brats(name: str, title: str, pattern: re.Pattern[str], tokens: Mapping[str, str], scheme: LabelScheme) -> Layout:
    separator = "_" if pattern is OLD_NAME else "-"
    looks_like = ", ".join(f"CASE{separator}{token}.nii.gz" for token in tokens if token != "t1gd")
    return Layout(name, title, MODALITIES, scheme, looks_like, lambda source: _find_brats(source, pattern, tokens))


_OLD_SCHEME = make_scheme({1: CORE, 2: EDEMA, 4: ENHANCING}, REGIONS)
_NEW_SCHEME = make_scheme({1: CORE, 2: EDEMA, 3: ENHANCING, 4: CAVITY}, REGIONS | {CAVITY: [CAVITY]}, optional=[CAVITY])

BRATS2018 = _brats("brats2018", "BraTS 2017 to 2020", OLD_NAME, _OLD_TOKENS, _OLD_SCHEME)
BRATS2021 = _brats("brats2021", "BraTS 2021", OLD_NAME, _OLD_TOKENS, _OLD_SCHEME)
BRATS2023 = _brats("brats2023", "BraTS 2023 and later", NEW_NAME, _NEW_TOKENS, _NEW_SCHEME)
