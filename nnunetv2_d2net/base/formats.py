"""What a file is by its first bytes, and what to do where its name says something else."""

import re
from pathlib import Path

_STEM = re.compile(r"(\.nii)?\.\w+$", re.IGNORECASE)
_PACKED = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gzip"}
_FORMATS = {
    re.compile(rb"NRRD"): ("NRRD", (".nrrd", ".nhdr")),
    re.compile(rb"\s*(ObjectType|NDims)\s*="): ("a MetaImage", (".mha", ".mhd")),
    re.compile(rb".{344}n\+1\0", re.DOTALL): ("NIfTI", (".nii", ".nii.gz")),
    re.compile(rb"\0\0\0\x01(\0\0..){4}\0\0\0[\x00\x01\x03\x04]", re.DOTALL): ("FreeSurfer's MGH", (".mgz", ".mgh")),
}


def misnamed(path: Path, head: bytes, *, is_gzip: bool) -> tuple[str, str] | None:
    """Say what a file is that is no image of the kind that its name says, and what to do; None for others.

    Args:
        path: The file.
        head: Its first bytes, unpacked where it is gzip.
        is_gzip: Whether it is.
    """
    for magic, program in _PACKED.items():
        if head.startswith(magic):
            what, pipe = (f"{program} twice", "") if program == "gzip" else (program, "| gzip ")
            remedy = f"{program} -dc < {path.name} {pipe}> whole.nii.gz"
            return f"cannot be read (it is packed with {what})", f"unpack it ({remedy}), and put that in its place"
    for beginning, (what, endings) in _FORMATS.items():
        if beginning.match(head) and not path.name.lower().endswith(endings):
            name = _STEM.sub("", path.name) + endings[is_gzip and what == "NIfTI"]
            then = "" if what == "NIfTI" else ", and convert it to NIfTI where only that is read"
            return f"cannot be read (it is {what}, and its name does not say so)", f"call it {name}{then}"
    return None
