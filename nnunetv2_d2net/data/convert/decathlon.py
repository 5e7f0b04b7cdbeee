"""Task01_BrainTumour of the Medical Segmentation Decathlon: all modalities of a case in one file."""

import json
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.cases import LABEL, Found, Match, Problem, Volume, gather
from nnunetv2_d2net.data.convert.layouts import CORE, EDEMA, ENHANCING, MODALITIES, REGIONS, Layout
from nnunetv2_d2net.data.convert.scheme import make_scheme
from nnunetv2_d2net.data.convert.source_files import nifti_files, nifti_stem

LOOKS_LIKE = "dataset.json with imagesTr, labelsTr and imagesTs"
_MODALITIES = {"flair": "FLAIR", "t1w": "T1", "t1": "T1", "t1gd": "T1ce", "t1ce": "T1ce", "t2w": "T2", "t2": "T2"}
_LABELS = {"edema": EDEMA, "non-enhancing tumor": CORE, "enhancing tumor": ENHANCING}


def read_decathlon(source: Path) -> Layout:
    """Read order of the channels and numbers of the labels from the source's own dataset.json.

    Raises:
        UserError: It is missing or damaged, of another task, or of nnU-Net.
    """
    path = source / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy it again from Task01_BrainTumour") from error
    if isinstance(content, dict) and "channel_names" in content:
        raise UserError(f"{source} is a data set of nnU-Net already: put it into nnUNet_raw and plan")
    try:
        channels = [_MODALITIES[content["modality"][str(i)].lower()] for i in range(len(content["modality"]))]
        spelled = {int(value): name.lower().replace("tumour", "tumor") for value, name in content["labels"].items()}
        names = {value: _LABELS[name] for value, name in spelled.items() if value != 0}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} does not describe Task01_BrainTumour (FLAIR, T1w, t1gd, T2w; edema, non-enhancing tumor, "
            "enhancing tumour): write a mapping file for other data, see docs/data.md"
        ) from error
    if sorted(channels) != sorted(MODALITIES) or sorted(names.values()) != sorted(_LABELS.values()):
        raise UserError(f"{path} lacks a modality or label of Task01_BrainTumour, or names one twice: mend it")
    ordered = sorted(names.items(), key=lambda item: [CORE, EDEMA, ENHANCING].index(item[1]))
    scheme = make_scheme(dict(ordered), REGIONS)
    title = "Medical Segmentation Decathlon, Task01_BrainTumour"
    return Layout("msd", title, MODALITIES, scheme, LOOKS_LIKE, lambda folder: _find(folder, channels))


def _find(source: Path, channels: list[str]) -> Found:
    matches, stray = [], []
    found_at: dict[str, str] = {}
    problems = []
    for path in nifti_files(source):
        name, folder = nifti_stem(path.name) or "", path.parent.name
        known = path.parent.parent == source
        if known and folder in ("imagesTr", "imagesTs"):
            other = found_at.setdefault(name, folder)
            if other != folder:
                line = f"{path} has a namesake in {other}: rename one"
                problems.append(Problem(name, "colliding name", line))
                continue
            matches += [Match(name, channel, Volume(path, i), ()) for i, channel in enumerate(channels)]
        elif known and folder in ("labelsTr", "labelsTs"):
            matches.append(Match(name, LABEL, Volume(path), ()))
        else:
            stray.append(path)
    bad = {problem.case for problem in problems}
    found = gather([match for match in matches if match.case not in bad], MODALITIES, stray)
    for case in found.cases:
        case.split = "Ts" if found_at[case.name] == "imagesTs" or case.label is None else "Tr"
        if case.label is None and found_at[case.name] == "imagesTr":
            case.notes.append(f"{case.name!r} has no segmentation: it goes to imagesTs")
    return Found(found.cases, [*problems, *found.problems], stray)
