"""What the header of a MetaImage or NRRD file, which is text, says about an image's place, and where its voxels are."""

import re
from typing import BinaryIO

import numpy as np

from nnunetv2_d2net.base.headers import NOT_KNOWN, HeaderError

_STEP, _LONGEST = 2**14, 2**22  # bytes that are read at once, and of a header at most

_SPACES = re.compile(r"(right|left)[-](anterior|posterior)[-]superior([-]time)?|[RL][AP]ST?", re.IGNORECASE)
"""Those of NRRD that name the patient's sides; ITK takes any other as left-posterior-superior."""

_NO_MM = re.compile(r'"([cdkun]|\xb5|\xc2\xb5)?m"|(?<!milli)(meter|metre)|micron|inch', re.IGNORECASE)
_NO_SIZE = "does not say how large its voxels are along every axis: 1 mm is assumed"
_TRUE = re.compile("[Tt1]")
_FROM_SOURCE = "write it anew from its source"

_NRRD, _META = b"NRRD", re.compile(rb"\s*(ObjectType|NDims|Comment)\s*=")
_NRRD_END = re.compile(rb"\n\r?\n")
_META_END = re.compile(rb"^ElementDataFile(?!\s*=\s*LIST)[^\n]*\n", re.MULTILINE)  # a list of files is text, too

_BYTES = {"char|8": 1, "short|16": 2, "long.?long|double|64": 8, "int|long|float|32": 4}  # by the type's first match


def read_beginning(stream: BinaryIO, n_bytes: int) -> bytes:
    """Return a file's first bytes, and all of its header if that is a MetaImage's or NRRD's."""
    head = stream.read(n_bytes)
    while _end_of(head) is None and len(head) < _LONGEST and (more := stream.read(_STEP)):
        head += more
    return head


def _end_of(head: bytes) -> int | None:
    """Return where a text header ends; None if it goes on, 0 for other formats."""
    ends = _NRRD_END if head.startswith(_NRRD) else _META_END if _META.match(head) else None
    return 0 if ends is None else found.end() if (found := ends.search(head)) else None


def check_text_header(head: bytes) -> list[str]:
    """Say what is odd about a file's beginning, in a few words that follow its name; nothing for other formats.

    Raises:
        HeaderError: Sizes that are not positive or not in mm, a place that is no number, or voxels that ITK invents.
    """
    if _end_of(head) == 0:
        return []
    fields = _fields(head)
    for name in ("sizes", "DimSize"):
        if (_numbers(fields.get(name, "")) < 1).any():
            raise HeaderError(f"says {name} = {fields[name]}, which is no voxel", _FROM_SOURCE)
    notes = _odd_nrrd(fields) if head.startswith(_NRRD) else _odd_meta(head, fields)
    return [note for note, is_odd in notes.items() if is_odd]


def _odd_nrrd(fields: dict[str, str]) -> dict[str, bool]:
    if _NO_MM.search(units := " ".join(fields.get(name, "") for name in ("space units", "units")).strip()):
        raise HeaderError(f"gives lengths in {units}, taken for mm by programs", "write place, spacing and units in mm")
    is_known = _SPACES.fullmatch(fields.get("space", "")) and "space directions" in fields
    kinds = fields.get("kinds", "").lower().split() or ["space"] * _whole(fields.get("dimension", ""), 3)
    n_axes = min(3, sum(kind in {"domain", "space", "???", "none"} for kind in kinds))  # those of channels have no size
    sizes = re.findall(r"\([^)]*\)", fields.get("space directions", ""))
    sizes = sizes or [size for size in fields.get("spacings", "").split() if np.isfinite(_numbers(size))]
    return {f"names no space of the patient: {NOT_KNOWN}": not is_known, _NO_SIZE: len(sizes) < n_axes}


def _odd_meta(head: bytes, fields: dict[str, str]) -> dict[str, bool]:
    for name in ("Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation"):
        if not np.isfinite(_numbers(fields.get(name, ""))).all():
            raise HeaderError(f"says {name} = {fields[name]}, so its place is lost", "write it anew")
    for name in ("ElementSpacing", "ElementSize"):
        if not (_numbers(fields.get(name, "")) > 0).all():
            what = f"says {name} = {fields[name]} mm, of which programs make different images"
            raise HeaderError(what, "write the right spacing into its header, in mm")
    file, n_slices = fields.get("ElementDataFile", ""), (fields.get("DimSize", "").split() or ["1"])[-1]
    if file.upper() == "LOCAL" and _TRUE.match(fields.get("CompressedData", "")) and "CompressedDataSize" not in fields:
        raise HeaderError("has compressed voxels of no CompressedDataSize, which ITK cannot unpack", _FROM_SOURCE)
    n_files = len(head.partition(b"ElementDataFile")[2].split(b"\n", 1)[-1].split())
    if file.startswith("LIST") and n_files < (_whole(n_slices, 1) if file == "LIST" else 1):
        raise HeaderError(f"lists {n_files} files of voxels for {n_slices} slices", _FROM_SOURCE)
    is_known = fields.keys() & {"TransformMatrix", "Rotation", "Orientation"}
    is_sized = fields.keys() & {"ElementSpacing", "ElementSize"}
    return {f"has no TransformMatrix: {NOT_KNOWN}": not is_known, _NO_SIZE: not is_sized}


def voxels_of(head: bytes) -> tuple[str, int, int, int | None] | None:
    """Return where voxels are, if that is clear: the file ("" for this one), the first byte, and how many they are.

    The last number is that of their compressed bytes, -1 for all that follow, or None if they are not compressed.
    """
    if not (begin := _end_of(head)):
        return None
    fields = _fields(head)
    kind = fields.get("type") or fields.get("ElementType", "")
    of_voxel = next((n for words, n in _BYTES.items() if re.search(words, kind, re.IGNORECASE)), 0)
    n_values = float(_numbers(fields.get("sizes") or fields.get("DimSize", "")).prod())
    n_bytes = of_voxel * n_values * _whole(fields.get("ElementNumberOfChannels", ""), 1)
    file, skipped = fields.get("ElementDataFile", "LOCAL"), _whole(fields.get("HeaderSize", ""), 0)
    is_raw = fields.get("encoding") == "raw" and not any(re.search("file|skip", name) for name in fields)
    if not n_bytes > 0 or skipped < 0 or "%" in file or not (is_raw or _TRUE.match(fields.get("BinaryData", ""))):
        return None
    is_own, is_packed = file.upper() == "LOCAL", _TRUE.match(fields.get("CompressedData", ""))
    n_packed = _whole(fields.get("CompressedDataSize", ""), -1) if is_packed else None
    return "" if is_own else file, max(skipped, begin * is_own), int(n_bytes), n_packed


def _whole(text: str, default: int) -> int:
    return int(text) if re.fullmatch(r"-?\d+", text) else default


def _fields(head: bytes) -> dict[str, str]:
    lines, separator = head[: _end_of(head)].decode("latin-1").splitlines(), ":" if head.startswith(_NRRD) else "="
    pairs = (line.partition(separator) for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _numbers(text: str) -> np.ndarray:
    try:
        return np.array(text.split(), float)
    except ValueError:
        return np.array([np.nan])
