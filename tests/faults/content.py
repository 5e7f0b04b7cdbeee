"""What a folder holds, whatever file it is in: voxels, tables, weights; neither times nor bytes of archives."""

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import SimpleITK as sitk
import torch

_PASSING = {"started", "machine", "seconds", "checkpoints", "inputs", "files", "versions", "checked"}
_PASSING |= {"training_seconds", "checkpoints (sha256)"}
"""Keys of JSON files that hold times, or digests of files that hold times."""

_ONLY_THERE = (".txt", ".png", ".html", ".lock", "predict_from_raw_data_args.json")
"""Files that say when or with which words something was done: they must be there."""

_TIME = re.compile(r"\d{4}_\d{1,2}_\d{1,2}_\d{2}_\d{2}_\d{2}")
_TIME_IN_REPORT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|\| +[\d.]+ (s|min|h) +(?=\|)")
UNREADABLE = "cannot be read"


def content_of(place: Path, outputs: Iterable[str], *, only_names: bool = False) -> dict[str, str]:
    """Digest every file of the outputs, by its path, in which times are left out.

    Args:
        place: The workplace.
        outputs: Folders and files in it.
        only_names: Leave the digests empty.
    """
    roots = [place / output for output in outputs]
    files = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
    found = {}
    for path in files:
        if path.is_file():
            name = _TIME.sub("TIME", str(path.relative_to(place)))
            found[name] = "" if only_names else digest_of(path)
        elif path.name == ".unfinished":
            found[str(path.relative_to(place))] = "a folder of unfinished files"
    return found


def digest_of(path: Path) -> str:
    """Digest what a file holds."""
    if path.name.endswith(_ONLY_THERE):
        return ""
    read = next((read for ending, read in _READERS.items() if path.name.endswith(ending)), Path.read_bytes)
    try:
        return hashlib.sha256(_canonical(read(path)).encode()).hexdigest()
    except Exception as error:
        return f"{UNREADABLE} ({type(error).__name__})"


def _image(path: Path) -> Any:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def _checkpoint(path: Path) -> Any:
    content = torch.load(path, map_location="cpu", weights_only=False)
    return content["network_weights"], content["current_epoch"], content["optimizer_state"]


def _json(path: Path) -> Any:
    return _lasting(json.loads(path.read_text(encoding="utf-8")))


def _report(path: Path) -> Any:
    return _TIME_IN_REPORT.sub("TIME", path.read_text(encoding="utf-8"))


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(part) for key, part in value.items() if key not in _PASSING}
    return [_lasting(part) for part in value] if isinstance(value, list) else value


_READERS: dict[str, Callable[[Path], Any]] = {
    ".nii.gz": _image,
    ".b2nd": lambda path: blosc2.open(str(path), mode="r")[:],
    ".npz": lambda path: dict(np.load(path)),
    ".pkl": lambda path: pickle.loads(path.read_bytes()),
    ".pth": _checkpoint,
    "d2net_checked.json": lambda path: sorted(json.loads(path.read_text(encoding="utf-8"))),
    "debug.json": lambda _: "",
    ".json": _json,
    "report.md": _report,
}


def _canonical(value: Any) -> str:
    """Say all of a value: arrays by their bytes."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key!r}:{_canonical(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return repr(value)
