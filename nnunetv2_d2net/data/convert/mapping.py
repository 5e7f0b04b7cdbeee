"""The mapping file: a YAML file that says which file of any folder is which modality, and what labels mean."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_d2net.base.dataset import can_name_folder
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import whole_name
from nnunetv2_d2net.base.modality_names import LABEL
from nnunetv2_d2net.data.convert.cases import Contents, Layout, Match, Volume, gather, nifti_files, nifti_stem
from nnunetv2_d2net.data.convert.scheme import LabelScheme, make_scheme

_KEYS = {"modalities", "label", "labels", "regions"}
_REMEDY = "d2net help data has an example"
_TOKEN = re.compile(r"(\{case\}|\*\*/|\*|\?|\{|\})")
_CASE = "(?P<case>[^/]+)"
_WILDCARDS = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}


def compile_pattern(text: str) -> re.Pattern[str]:
    """Read a pattern such as ``*/{case}/{case}_flair.nii.gz``.

    ``{case}`` stands for the name of the case, the same wherever it stands; ``*`` for any part of one name, ``?`` for
    one character, ``**/`` for any folders, also none. Upper and lower case differ.

    Returns:
        For paths relative to the source. Its groups are what the wildcards in the folders above the first ``{case}``
        stand for, then the case.

    Raises:
        UserError: It has no ``{case}``, other braces, or a wildcard beside ``{case}``; the message names no file.

    Example:
        >>> compile_pattern("*/{case}/{case}_t1.nii.gz").fullmatch("HGG/p 1/p 1_t1.nii.gz").groups()
        ('HGG', 'p 1')
    """
    if "{case}" not in text:
        raise UserError(f"pattern {text!r} has no {{case}}: put it where the name of the case stands")
    if re.search(r"[*?]\{case\}|\{case\}[*?]", text):
        raise UserError(f"pattern {text!r} has a wildcard beside {{case}}: put something between them, such as _")
    if not text.lower().endswith((".nii", ".nii.gz", ".nii*")):
        raise UserError(f"pattern {text!r} does not end in .nii, .nii.gz or .nii*: other formats are not read")
    end_of_folders = text[: text.index("{case}")].rfind("/") + 1
    parts, position = [], 0
    for token in _TOKEN.split(text):
        if token in ("{", "}"):
            raise UserError(f"pattern {text!r} has braces that are not {{case}}: remove them")
        if token == "{case}":
            parts.append("(?P=case)" if _CASE in parts else _CASE)
        elif token in _WILDCARDS:
            parts.append(f"({_WILDCARDS[token]})" if position < end_of_folders else _WILDCARDS[token])
        else:
            parts.append(re.escape(token))
        position += len(token)
    return re.compile("".join(parts))


def read_mapping(path: Path) -> Layout:
    """Read a mapping file.

    Raises:
        UserError: It cannot be read or does not say what it must.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): pass a known layout or a mapping file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 (UTF-16, as Windows writes?): save it as UTF-8") from error
    except yaml.YAMLError as error:
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
        keys = sorted(map(str, unknown or missing))
        what = "unknown" if unknown else "missing"
        raise UserError(f"{what} key {keys[0]!r}, it knows {', '.join(sorted(_KEYS))}: {_REMEDY}")
    slots = _modalities(content["modalities"])
    modalities = tuple(slots)
    texts = [(slot, text) for slot, value in slots.items() for text in _texts(slot, value)]
    if content.get("label") is not None:
        texts += [(LABEL, text) for text in _texts("label", content["label"])]
    looks_like = ", ".join(text for _, text in texts)
    find = partial(_find, patterns=[(slot, compile_pattern(text)) for slot, text in texts], modalities=modalities)
    return Layout(
        str(path), f"mapping file {path}", modalities, _scheme(content), looks_like, find, labels_are_known=True
    )


def _modalities(value: Any) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict) or not value:
        raise UserError(f"modalities must map each modality to its pattern: {_REMEDY}")
    for name in value:
        if not isinstance(name, str) or name == LABEL or not can_name_folder(name):
            raise UserError(f"modality {name!r} cannot name a folder: use letters, digits and -")
    return value


def _texts(name: str, value: Any) -> list[str]:  # noqa: ANN401
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name} needs a pattern such as '{{case}}/{{case}}_flair.nii.gz', or a list of them")
    backslash = next((text for text in texts if "\\" in text), None)
    if backslash:
        raise UserError(f"pattern {backslash!r} has a backslash: write / between folders")
    return texts


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
        isinstance(region, str) and isinstance(members, list) and all(isinstance(name, str) for name in members)
        for region, members in regions.items()
    ):
        raise UserError(f"regions must map each region to a list of label names: {_REMEDY}")
    return make_scheme(labels, regions)


def _find(source: Path, patterns: Sequence[tuple[str, re.Pattern[str]]], modalities: Sequence[str]) -> Contents:
    files: dict[Path, list[Match]] = {}
    for path in nifti_files(source):
        fitting: dict[str, Match] = {}  # by slot, of the first pattern that fits
        stem = nifti_stem(path.name) or ""
        ending = whole_name(path.name)[len(stem) :].lower()
        name = path.relative_to(source).with_name(stem + ending).as_posix()
        for slot, pattern in patterns:
            match = pattern.fullmatch(name)
            if match:
                fitting.setdefault(slot, Match(match["case"], slot, Volume(path), match.groups()[:-1]))
        shortest = min((len(match.case) for match in fitting.values()), default=0)
        # of two patterns the one that says more: the other takes ce-gadolinium for a part of the case's name
        fitting = {slot: match for slot, match in fitting.items() if len(match.case) == shortest}
        if len(fitting) > 1:
            both = " and ".join(fitting)
            raise UserError(f"{path} fits the patterns of {both}: make the patterns of the mapping file stricter")
        files[path] = list(fitting.values())
    return gather(files, modalities)
