"""What the header of a MetaImage or NRRD file, which is text, says about an image's place, and whether it is whole."""

import re

import numpy as np

from nnunetv2_d2net.base.headers import NOT_KNOWN, HeaderError

LONGEST = 2**14  # bytes that are looked at; what follows are voxels or a scanner's own notes

_SPACES = re.compile(r"(right|left)[-](anterior|posterior)[-]superior([-]time)?|[RL][AP]ST?", re.IGNORECASE)
"""Those of NRRD that name the patient's sides; ITK takes any other as left-posterior-superior."""

_NRRD, _META = b"NRRD", re.compile(rb"\s*(ObjectType|NDims|Comment)\s*=")


def check_text_header(head: bytes) -> list[str]:
    """Say what is odd about a file's beginning, in a few words that follow its name; nothing for other formats.

    Raises:
        HeaderError: Voxel sizes that are not positive, or a place that is no number.
    """
    if head.startswith(_NRRD):
        fields = _fields(head.partition(b"\n\n")[0].partition(b"\r\n\r\n")[0], ":")
        is_known = _SPACES.fullmatch(fields.get("space", "")) and "space directions" in fields
        return [] if is_known else [f"names no space of the patient: {NOT_KNOWN}"]
    if not _META.match(head):
        return []
    fields = _fields(head.partition(b"ElementDataFile")[0], "=")
    for name in ("Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation"):
        if not np.isfinite(_numbers(fields.get(name, ""))).all():
            raise HeaderError(f"says {name} = {fields[name]}, so its place is lost", "write it anew")
    for name in ("ElementSpacing", "ElementSize"):
        if not (_numbers(fields.get(name, "")) > 0).all():
            what = f"says {name} = {fields[name]} mm, of which programs make different images"
            raise HeaderError(what, "write the right spacing into its header, in mm")
    is_known = fields.keys() & {"TransformMatrix", "Rotation", "Orientation"}
    return [] if is_known else [f"has no TransformMatrix: {NOT_KNOWN}"]


def _fields(text: bytes, separator: str) -> dict[str, str]:
    pairs = (line.partition(separator) for line in text.decode("latin-1").splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _numbers(text: str) -> np.ndarray:
    try:
        return np.array(text.split(), float)
    except ValueError:
        return np.array([np.nan])
