"""Patterns of file paths with ``{case}``, as mapping files write them."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from nnunetv2_d2net.base.errors import UserError

_TOKEN = re.compile(r"\{case\}|\*\*/|\*|\?|\{|\}")
_TEXT_OF = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}


class PatternMatch(NamedTuple):
    """The case of a path, and what the wildcards in the folders above its name stand for."""

    case: str
    place: tuple[str, ...]


@dataclass(frozen=True)
class Pattern:
    """A pattern, ready to be compared with paths.

    Attributes:
        text: As it was written.
        regex: Of the whole path.
        n_place: How many of its wildcards stand in folders before the first ``{case}``.
    """

    text: str
    regex: re.Pattern[str]
    n_place: int

    def match(self, path: PurePosixPath) -> PatternMatch | None:
        """Compare with a path relative to the source; None where it does not fit."""
        found = self.regex.fullmatch(str(path))
        if found is None:
            return None
        wildcards = [text for key, text in enumerate(found.groups(), 1) if key != self.regex.groupindex["case"]]
        return PatternMatch(found["case"], tuple(wildcards[: self.n_place]))


def compile_pattern(text: str) -> Pattern:
    """Read a pattern such as ``*/{case}/{case}_flair.nii.gz``.

    ``{case}`` stands for the name of the case, the same wherever it stands; ``*`` for any part of one name, ``?`` for
    one character, ``**/`` for any folders, also none. Upper and lower case differ.

    Raises:
        UserError: It has no ``{case}``, other braces, or a wildcard beside ``{case}``; the message names no file.

    Example:
        >>> compile_pattern("*/{case}/{case}_t1.nii.gz").match(PurePosixPath("HGG/p 1/p 1_t1.nii.gz"))
        PatternMatch(case='p 1', place=('HGG',))
    """
    if "{case}" not in text:
        raise UserError(f"pattern {text!r} has no {{case}}: put it where the name of the case stands")
    if re.search(r"[*?]\{case\}|\{case\}[*?]", text):
        raise UserError(f"pattern {text!r} has a wildcard beside {{case}}: put something between them, such as _")
    if not text.lower().endswith((".nii", ".nii.gz", ".nii*")):
        raise UserError(f"pattern {text!r} does not end in .nii, .nii.gz or .nii*: other formats are not read")
    parts, position, seen = [], 0, False
    for token in _TOKEN.finditer(text):
        parts.append(re.escape(text[position : token.start()]))
        position = token.end()
        if token[0] in "{}":
            raise UserError(f"pattern {text!r} has braces that are not {{case}}: remove them")
        if token[0] == "{case}":
            parts.append("(?P=case)" if seen else "(?P<case>[^/]+)")
            seen = True
        else:
            parts.append(_TEXT_OF[token[0]])
    folders = text[: text.index("{case}")].rpartition("/")[0] + "/"
    n_place = sum(token[0] in _TEXT_OF for token in _TOKEN.finditer(folders))
    return Pattern(text, re.compile("".join([*parts, re.escape(text[position:])])), n_place)
