"""Which modalities the training cases of a preprocessed data set have."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError

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
    path = availability_file(folder)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
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
    path = availability_file(folder)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        n_modalities = len(content["modalities"])
        flags = {case: [bool(flag) for flag in available] for case, available in content["available"].items()}
        if any(len(available) != n_modalities or not any(available) for available in flags.values()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: preprocess again with d2net plan_and_preprocess") from error
    return flags
