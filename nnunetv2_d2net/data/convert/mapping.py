"""The mapping file: a YAML file that says which file of any folder is which modality, and what labels mean."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.cases import LABEL, Found, Match, Volume, gather
from nnunetv2_d2net.data.convert.layouts import Layout
from nnunetv2_d2net.data.convert.patterns import Pattern, compile_pattern
from nnunetv2_d2net.data.convert.scheme import LabelScheme, make_scheme
from nnunetv2_d2net.data.convert.source_files import nifti_files

_KEYS = {"modalities", "label", "labels", "regions"}
_REMEDY = "see docs/data.md for an example"


def read_mapping(path: Path) -> Layout:
    """Read a mapping file.

    Raises:
        UserError: It cannot be read or does not say what it must.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): pass a known layout or a mapping file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path} is no YAML{where}: mend it, {_REMEDY}") from error
    try:
        return _layout_of(content, path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _layout_of(content: Any, path: Path) -> Layout:  # noqa: ANN401 - whatever the file holds
    if not isinstance(content, dict):
        raise UserError(f"it holds no keys: {_REMEDY}")
    unknown, missing = set(content) - _KEYS, {"modalities", "labels"} - set(content)
    if unknown or missing:
        words = sorted(map(str, unknown or missing))
        what = "unknown" if unknown else "missing"
        raise UserError(f"{what} key {words[0]!r}, it knows {', '.join(sorted(_KEYS))}: {_REMEDY}")
    slots = {name: _patterns(name, text) for name, text in _modalities(content["modalities"]).items()}
    modalities = tuple(slots)
    if content.get("label") is not None:
        slots[LABEL] = _patterns("label", content["label"])
    looks_like = ", ".join(pattern.text for patterns in slots.values() for pattern in patterns)
    return Layout(
        str(path), f"mapping file {path}", modalities, _scheme(content), looks_like, lambda source: _find(source, slots)
    )


def _modalities(value: Any) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict) or not value:
        raise UserError(f"modalities must map each modality to its pattern: {_REMEDY}")
    for name in value:
        if not isinstance(name, str) or not name or name == LABEL or {"/", "\\", "+"} & set(name) or name[0] == ".":
            raise UserError(f"modality {name!r} cannot name a folder: use letters, digits and -")
    return value


def _patterns(name: str, value: Any) -> list[Pattern]:  # noqa: ANN401
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name} needs a pattern such as '{{case}}/{{case}}_flair.nii.gz', or a list of them")
    return [compile_pattern(text) for text in texts]


def _scheme(content: dict) -> LabelScheme:
    labels, regions = content["labels"], content.get("regions")
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"labels must map each label value to its name: {_REMEDY}")
    for value, name in labels.items():
        if isinstance(value, bool) or not isinstance(value, int) or not isinstance(name, str):
            raise UserError(f"label {value!r}: {name!r} is not a whole number and a name: {_REMEDY}")
    if regions is None:
        return make_scheme(labels)
    if not isinstance(regions, dict) or not all(
        isinstance(region, str) and isinstance(members, list) for region, members in regions.items()
    ):
        raise UserError(f"regions must map each region to a list of label names: {_REMEDY}")
    return make_scheme(labels, regions)


def _find(source: Path, slots: dict[str, list[Pattern]]) -> Found:
    matches, stray = [], []
    for path in nifti_files(source):
        fitting = _matches(path, PurePosixPath(path.relative_to(source).as_posix()), slots)
        matches += fitting[:1]
        if len(fitting) > 1:
            both = " and ".join(dict.fromkeys(match.slot for match in fitting))
            raise UserError(f"{path} fits the patterns of {both}: make the patterns of the mapping file stricter")
        if not fitting:
            stray.append(path)
    return gather(matches, [slot for slot in slots if slot != LABEL], stray)


def _matches(path: Path, relative: PurePosixPath, slots: dict[str, list[Pattern]]) -> Sequence[Match]:
    found = {}
    for slot, patterns in slots.items():
        for pattern in patterns:
            match = pattern.match(relative)
            if match:
                found.setdefault(slot, Match(match.case, slot, Volume(path), match.place))
    return list(found.values())
