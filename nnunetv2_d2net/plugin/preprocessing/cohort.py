"""Which modalities the training cases of a preprocessed data set have."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, write_text

AVAILABLE = "available_modalities"
"""Key of nnU-Net's case properties under which the M flags travel."""


def availability_file(folder: Path) -> Path:
    """Return the file beside a folder of preprocessed cases that names the modalities and has M flags for every case.

    nnU-Net allows no JSON in the folder itself.
    """
    return folder.with_name(f"{folder.name}.available_modalities.json")


def write_availability(folder: Path, names: Sequence[str]) -> dict[str, list[bool]]:
    """Gather what preprocessing found out about each case into one file.

    Args:
        folder: Of the preprocessed cases; each has its properties in ``CASE.pkl``.
        names: M names of the modalities.

    Returns:
        M flags by case.

    Raises:
        UserError: No case has one of the modalities, so that nothing could be learned about it.
    """
    flags = {}
    for path in sorted(folder.glob("*.pkl")):
        with path.open("rb") as file:
            flags[path.stem] = pickle.load(file)[AVAILABLE]  # written a moment ago by this very program
    check_every_modality(flags, names)
    lines = [f"    {json.dumps(case)}: {json.dumps(available)}" for case, available in flags.items()]
    text = '{{\n  "modalities": {},\n  "available": {{\n{}\n  }}\n}}\n'.format(
        json.dumps(list(names)), ",\n".join(lines)
    )
    write_text(availability_file(folder), text)
    return flags


def check_every_modality(flags: Mapping[str, Sequence[bool]], names: Sequence[str]) -> None:
    """Refuse a cohort in which nobody has one of the modalities.

    Args:
        flags: M flags by case.
        names: M names of the modalities.

    Raises:
        UserError: There is such a modality.
    """
    never = [name for m, name in enumerate(names) if not any(available[m] for available in flags.values())]
    if never:
        raise UserError(
            f"no training case has {', '.join(never)}: add such images to imagesTr, or remove the modality from "
            "dataset.json's channel_names and renumber the others"
        )


def read_availability(folder: Path) -> dict[str, list[bool]]:
    """Return the M flags of each preprocessed case; empty where stock nnU-Net has preprocessed, which needs all files.

    Raises:
        UserError: The file holds something else.
    """
    path, remedy = availability_file(folder), "preprocess again with d2net plan_and_preprocess"
    if not path.is_file():
        return {}
    content = read_json(path, remedy, {"modalities": list, "available": dict})
    n_modalities = len(content["modalities"])
    for case, available in content["available"].items():
        known = isinstance(available, list) and len(available) == n_modalities
        if not known or not all(isinstance(flag, bool) for flag in available) or not any(available):
            raise UserError(f"{path}: {case!r} has no {n_modalities} flags of which one is true: {remedy}")
    return content["available"]
