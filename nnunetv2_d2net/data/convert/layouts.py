"""The layouts that are known, BraTS of every year and Task01 of the Decathlon, and which of them a source has."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.base.modality_names import BRATS2023_TOKENS, BRATS_TOKENS, LABEL, MODALITIES, MSD_NAMES
from nnunetv2_d2net.data.convert.cases import (
    Contents,
    Layout,
    Match,
    Problem,
    SourceCase,
    Volume,
    gather,
    nifti_files,
    nifti_stem,
)
from nnunetv2_d2net.data.convert.doubts import is_of_no_tumor, refuse_lost_files
from nnunetv2_d2net.data.convert.mapping import read_mapping
from nnunetv2_d2net.data.convert.scheme import CAVITY, CORE, EDEMA, ENHANCING, LabelScheme, make_scheme

AUTO, MSD = "auto", "msd"
REGIONS = {"whole tumor": [CORE, EDEMA, ENHANCING], "tumor core": [CORE, ENHANCING], "enhancing tumor": [ENHANCING]}

_NO_SEGMENTATION = "has no segmentation: it goes to imagesTs"


def layout_of(source: Path, wanted: str = AUTO, labels: str | None = None) -> Layout:
    """Return the layout of a source.

    Args:
        source: The folder.
        wanted: Name of a known layout, path of a mapping file, or ``auto``.
        labels: The layout of BraTS whose label values the files have, whatever they are called; None for its own.

    Raises:
        UserError: The folder or the mapping file is unusable, or no layout or several were recognized.
    """
    layout = _layout_of(source, wanted)
    if labels is None:
        return layout
    if labels not in _BRATS or layout.name not in _BRATS:
        raise UserError(f"--labels takes {', '.join(_BRATS)}, and only for these: a mapping file names its own labels")
    return dataclasses.replace(layout, scheme=_BRATS[labels].scheme, labels_are_known=True)


def _layout_of(source: Path, wanted: str) -> Layout:
    if not source.is_dir():
        raise UserError(f"{source} is no folder: pass the folder that holds the cases")
    if wanted in _BRATS:
        return _BRATS[wanted]
    if wanted == MSD:
        return _read_decathlon(source)
    if wanted != AUTO:
        return read_mapping(Path(wanted))
    if (source / "dataset.json").is_file() and (source / "imagesTr").is_dir():
        return _read_decathlon(source)
    return _recognize_brats(source)


def find_cases(layout: Layout, source: Path, test: Path | None) -> Contents:
    """List the cases of a source, and of a second one whose cases are all for testing.

    Raises:
        UserError: A folder is unusable, or holds nothing of this layout.
    """
    contents = _contents(layout, source)
    if test is None:
        return contents
    held_out = _contents(layout, test)
    for case in held_out.cases:
        case.split = "Ts"
        case.notes = [note for note in case.notes if _NO_SEGMENTATION not in note]
    twice = sorted({case.name for case in contents.cases} & {case.name for case in held_out.cases})
    where = f"is in {source} and in {test}: rename one, or remove it from one"
    problems = [Problem(name, "colliding name", f"case {name!r} {where}") for name in twice]
    cases = [case for case in (*contents.cases, *held_out.cases) if case.name not in twice]
    return Contents(cases, [*contents.problems, *held_out.problems, *problems], [*contents.stray, *held_out.stray])


def _contents(layout: Layout, source: Path) -> Contents:
    contents = layout.find(source)
    if not contents.cases and not contents.problems:
        raise UserError(f"{source} holds nothing like {layout.looks_like}: check the folder and --layout")
    return contents


# BraTS


_OLD_NAME = re.compile(rf"(?P<case>.+)_(?P<token>{'|'.join(BRATS_TOKENS)})", re.IGNORECASE | re.DOTALL)
_NEW_NAME = re.compile(rf"(?P<case>.+)-(?P<token>{'|'.join(BRATS2023_TOKENS)})", re.IGNORECASE | re.DOTALL)


def _find_brats(source: Path, name: re.Pattern[str], tokens: Mapping[str, str]) -> Contents:
    files: dict[Path, list[Match]] = {path: [] for path in nifti_files(source)}
    for path, matches in files.items():
        match = name.fullmatch(nifti_stem(path.name) or "")
        if match:
            matches.append(Match(match["case"], tokens[match["token"].lower()], Volume(path), (str(path.parent),)))
    misnamed = _misnamed_segmentations(files)
    contents = gather(files | misnamed, MODALITIES)
    if not contents.cases and {problem.kind for problem in contents.problems} == {"colliding name", "no image"}:
        reason, *_ = contents.problems[0].line.rpartition(": ")
        raise UserError(f"{source} has no usable case: {reason}, and so on: write a mapping file, see d2net help data")
    refuse_lost_files(source, contents, MODALITIES)
    training = {_collection(case) for case in contents.cases if case.label}
    for case in contents.cases:
        if case.label in misnamed:
            case.notes.append(f"{case.label} is taken for the segmentation of {case.name!r}")
        elif case.label is None and _collection(case) in training:  # its neighbors have one
            case.notes.append(f"{case.name!r} {_NO_SEGMENTATION}")
    return contents


def _misnamed_segmentations(files: Mapping[Path, Sequence[Match]]) -> dict[Path, list[Match]]:
    """Find segmentations that are called otherwise, alone with one case: W39_1998.09.19_Segm.nii of BraTS 2020."""
    misnamed = {}
    for _, group in groupby(sorted(files, key=attrgetter("parent")), attrgetter("parent")):
        paths = list(group)
        matches = [match for path in paths for match in files[path]]
        candidates = [p for p in paths if not files[p] and "seg" in p.name.lower() and not is_of_no_tumor(p.name)]
        candidates = [path for path in candidates if re.search("tumou?r|lesion", path.name.lower())] or candidates
        is_one_case = len({match.case for match in matches}) == 1 and all(match.slot != LABEL for match in matches)
        if is_one_case and len(candidates) == 1:
            misnamed[candidates[0]] = [matches[0]._replace(slot=LABEL, volume=Volume(candidates[0]))]
    return misnamed


def _collection(case: SourceCase) -> Path:
    """Return the folder that holds the case among others: its own folder's parent, unless cases share a folder."""
    folder = next(iter(case.images.values())).path.parent
    return folder.parent if folder.name == case.name else folder


def _recognize_brats(source: Path) -> Layout:
    stems = [nifti_stem(path.name) or "" for path in nifti_files(source) if not path.is_dir()]
    old = [match["case"] for stem in stems if (match := _OLD_NAME.fullmatch(stem))]
    new = [match["case"] for stem in stems if (match := _NEW_NAME.fullmatch(stem))]
    if old and new:
        raise UserError(
            f"{source} holds {len(old)} files named as in BraTS 2017 to 2021, such as those of {old[0]!r}, and "
            f"{len(new)} as in BraTS 2023, such as those of {new[0]!r}: pass --layout, or convert folder by folder"
        )
    if new:
        pediatric = next((case for case in new if case.upper().startswith("BRATS-PED")), None)
        if pediatric:
            raise UserError(
                f"{source} holds pediatric cases such as {pediatric}, whose label numbers changed after 2023: pass "
                "--layout brats2023 for those of 2023, else a mapping file (d2net help data)"
            )
        return BRATS2023
    if old:
        return BRATS2021 if all(case.lower().startswith("brats2021") for case in old) else BRATS2018
    looked_for = f"{BRATS2018.looks_like}; {BRATS2023.looks_like}; {_MSD_LOOKS_LIKE}"
    raise UserError(f"{source} has no known layout, looked for {looked_for}: pass --layout with a mapping file")


def _brats(name: str, title: str, pattern: re.Pattern[str], tokens: Mapping[str, str], scheme: LabelScheme) -> Layout:
    separator = "_" if pattern is _OLD_NAME else "-"
    looks_like = ", ".join(
        f"CASE{separator}{token}.nii.gz" for token in tokens if token not in ("t1gd", "t1c" if separator == "_" else "")
    )
    return Layout(name, title, MODALITIES, scheme, looks_like, partial(_find_brats, name=pattern, tokens=tokens))


_OLD_SCHEME = make_scheme({1: CORE, 2: EDEMA, 4: ENHANCING}, REGIONS)
_NEW_SCHEME = make_scheme({1: CORE, 2: EDEMA, 3: ENHANCING, 4: CAVITY}, REGIONS | {CAVITY: [CAVITY]}, optional=[CAVITY])

BRATS2018 = _brats("brats2018", "BraTS 2017 to 2020", _OLD_NAME, BRATS_TOKENS, _OLD_SCHEME)
BRATS2021 = _brats("brats2021", "BraTS 2021", _OLD_NAME, BRATS_TOKENS, _OLD_SCHEME)
BRATS2023 = _brats("brats2023", "BraTS 2023 and later", _NEW_NAME, BRATS2023_TOKENS, _NEW_SCHEME)
_BRATS = {layout.name: layout for layout in (BRATS2018, BRATS2021, BRATS2023)}


# Task01_BrainTumour of the Medical Segmentation Decathlon: all modalities of a case in one file


_MSD_LOOKS_LIKE = "dataset.json with imagesTr, labelsTr and imagesTs"
_MSD_LABELS = {"edema": EDEMA, "non-enhancing tumor": CORE, "enhancing tumor": ENHANCING}


def _read_decathlon(source: Path) -> Layout:
    """Read order of the channels and numbers of the labels from the source's own dataset.json.

    Raises:
        UserError: It is missing or damaged, of another task, or of nnU-Net.
    """
    path = source / "dataset.json"
    content = read_json(path, "it should be as in Task01_BrainTumour")
    if next((source / "imagesTr").glob("*_0000.nii.gz"), None) and "channel_names" not in content:
        raise UserError(
            f"{source} is a raw data set of nnU-Net v1: convert it by nnU-Net's own command, "
            f"nnUNetv2_convert_old_nnUNet_dataset {source} DatasetXXX_NAME"
        )
    if "channel_names" in content:
        raise UserError(f"{source} is a data set of nnU-Net already: put it into nnUNet_raw and plan")
    try:
        numbers = range(len(content["modality"]))
        channels = [MSD_NAMES[content["modality"][str(i)].lower()] for i in numbers]
        spelled = {int(value): name.lower().replace("tumour", "tumor") for value, name in content["labels"].items()}
        names = {value: _MSD_LABELS[name] for value, name in spelled.items() if value != 0}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} does not describe Task01_BrainTumour (FLAIR, T1w, t1gd, T2w; edema, non-enhancing tumor, "
            "enhancing tumour): write a mapping file for other data, see d2net help data"
        ) from error
    if sorted(channels) != sorted(MODALITIES) or sorted(names.values()) != sorted(_MSD_LABELS.values()):
        raise UserError(f"{path} lacks a modality or label of Task01_BrainTumour, or names one twice: mend it")
    order = [CORE, EDEMA, ENHANCING]
    scheme = make_scheme(dict(sorted(names.items(), key=lambda item: order.index(item[1]))), REGIONS)
    title = "Medical Segmentation Decathlon, Task01_BrainTumour"
    find = partial(_find_decathlon, channels=channels)
    return Layout(MSD, title, MODALITIES, scheme, _MSD_LOOKS_LIKE, find, labels_are_known=True)


def _find_decathlon(source: Path, channels: Sequence[str]) -> Contents:
    files: dict[Path, list[Match]] = {}
    for path in nifti_files(source):
        name, folder = nifti_stem(path.name) or "", path.parent.name if path.parent.parent == source else ""
        if folder in ("imagesTr", "imagesTs"):
            files[path] = [Match(name, channel, Volume(path, i), (folder,)) for i, channel in enumerate(channels)]
        else:
            files[path] = [Match(name, LABEL, Volume(path), ())] if folder in ("labelsTr", "labelsTs") else []
    contents = gather(files, MODALITIES)
    for case in contents.cases:
        folder = next(iter(case.images.values())).path.parent.name
        case.split = "Ts" if folder == "imagesTs" or case.label is None else "Tr"
        if case.label is None and folder == "imagesTr":
            case.notes.append(f"{case.name!r} {_NO_SEGMENTATION}")
    return contents
