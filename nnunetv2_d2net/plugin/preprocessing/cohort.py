"""Which modalities the training cases of a preprocessed data set have."""

import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, write_text
from nnunetv2_d2net.base.orientation import orientation_of
from nnunetv2_d2net.base.text import counted, last_line, listed

REFERENCES = "gt_segmentations"
"""nnU-Net's folder, beside those of the preprocessed cases, of the labels that the final validation compares with."""

AVAILABLE = "available_modalities"
"""Key of nnU-Net's case properties under which the M flags travel."""


def availability_file(folder: Path) -> Path:
    """Return the file beside a folder of preprocessed cases that names the modalities and has M flags for every case.

    nnU-Net allows no JSON in the folder itself.
    """
    return folder.with_name(f"{folder.name}.available_modalities.json")


def write_availability(
    folder: Path, names: Sequence[str], sizes: Mapping[str, Mapping[str, int]]
) -> dict[str, list[bool]]:
    """Gather what preprocessing found out about each case into one file.

    Args:
        folder: Of the preprocessed cases; each has its properties in ``CASE.pkl``.
        names: M names of the modalities.
        sizes: Of the raw files that each case was made from, by their paths below the raw data set's folder.

    Returns:
        M flags by case.

    Raises:
        UserError: No case has one of the modalities, so that nothing could be learned about it.
    """
    flags = {case: properties[AVAILABLE] for case, properties in _each_case(folder)}
    check_every_modality(flags, names)
    lines = [f"    {json.dumps(case)}: {json.dumps(available)}" for case, available in flags.items()]
    raw = [f"    {json.dumps(case)}: {json.dumps(of_case)}" for case, of_case in sizes.items()]
    text = '{{\n  "modalities": {},\n  "available": {{\n{}\n  }},\n  "raw_sizes": {{\n{}\n  }}\n}}\n'.format(
        json.dumps(list(names)), ",\n".join(lines), ",\n".join(raw)
    )
    write_text(availability_file(folder), text)
    return flags


def orientations_of(folder: Path) -> Counter[str]:
    """Count how preprocessed cases lie, see :func:`.orientation_of`."""
    return Counter(orientation_of(properties) for _, properties in _each_case(folder))


def _each_case(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and properties of preprocessed cases."""
    for path in sorted(folder.glob("*.pkl")):
        with path.open("rb") as file:
            yield path.stem, pickle.load(file)  # written by preprocessing, as nnU-Net reads it, too


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
    return _read(folder)["available"]


def _read(folder: Path) -> dict[str, Any]:
    path, remedy = availability_file(folder), "preprocess again with d2net preprocess"
    if not path.is_file():
        return {"available": {}}
    content = read_json(path, remedy, {"modalities": list, "available": dict})
    n_modalities = len(content["modalities"])
    for case, available in content["available"].items():
        known = isinstance(available, list) and len(available) == n_modalities
        if not known or not all(isinstance(flag, bool) for flag in available) or not any(available):
            raise UserError(f"{path}: {case!r} has no {n_modalities} flags of which one is true: {remedy}")
    return content


ShapeOf = Callable[[Mapping[str, Any]], Sequence[int] | None]
"""From nnU-Net's properties of a case to the shape that the plans give it; None where nobody knows."""


def check_preprocessed(
    folder: Path, names: Sequence[str], remedy: str, shape_of: ShapeOf = lambda _: None
) -> list[str]:
    """Refuse preprocessed data that are not what this package makes, or whose note speaks of other data.

    Args:
        folder: Of the preprocessed cases.
        names: M names of the modalities.
        remedy: What to do.
        shape_of: By the plans.

    Returns:
        Names of the cases.

    Raises:
        UserError: There is no case, one has not M channels or another shape than planned, the note is of other data,
            or a case with a note has no label for the final validation.
    """
    cases, content = sorted(path.stem for path in folder.glob("*.pkl")), _read(folder)
    if not cases:
        raise UserError(f"{folder} holds no preprocessed case: {remedy}")
    flags, note = content["available"], availability_file(folder)
    if flags and content["modalities"] != list(names):
        raise UserError(f"{note} speaks of other modalities ({listed(content['modalities'])}): {remedy}")
    if flags and sorted(flags) != cases:
        raise UserError(f"{note} speaks of other cases ({listed(sorted(set(flags) ^ set(cases)))}): {remedy}")
    for case, (shape, properties) in zip(cases, _each_stored(folder, cases, remedy), strict=True):
        if shape[0] != len(names):
            raise UserError(
                f"{case} of {folder} has {counted(shape[0], 'channel')}, not {len(names)}, as nnU-Net preprocesses "
                f"incomplete cases: {remedy}"
            )
        if properties.get(AVAILABLE) != flags.get(case):
            raise UserError(f"{note} does not say what {case} was preprocessed from: {remedy}")
        _check_shape(f"{case} of {folder}", shape[1:], shape_of(properties), remedy)
    references = folder.parent / REFERENCES
    lacking = set(cases) - {case for path in references.glob("*") for case in cases if path.name.startswith(f"{case}.")}
    if flags and lacking:  # nnU-Net copies them after all else, which may have been interrupted
        raise UserError(
            f"{references} lacks {listed(sorted(lacking), 5)}, with which the final validation compares: {remedy}"
        )
    return cases


def _check_shape(case: str, shape: Sequence[int], planned: Sequence[int] | None, remedy: str) -> None:
    if planned is not None and list(planned) != shape:
        sizes = " and not ".join(" x ".join(map(str, size)) for size in (shape, planned))
        raise UserError(f"{case} has {sizes} voxels, as other plans made it: {remedy}")


def _each_stored(folder: Path, cases: Sequence[str], remedy: str) -> Iterator[tuple[Sequence[int], dict[str, Any]]]:
    """Shape of each preprocessed case, channels first, and its properties."""
    try:
        dataset = infer_dataset_class(str(folder))(str(folder), list(cases))
        for case in cases:
            data, _, _, properties = cast(Any, dataset.load_case(case))
            yield [int(n) for n in data.shape], properties
    except Exception as error:  # readers raise what they like
        raise UserError(f"{folder} cannot be read ({last_line(error)}): {remedy}") from error


def changed_since(folder: Path, sizes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Name the training cases whose raw files are not those that were preprocessed; none where nobody noted it.

    Args:
        folder: Of the preprocessed cases.
        sizes: Of the raw files that there are now, see :func:`write_availability`.
    """
    before = _read(folder).get("raw_sizes")
    if not isinstance(before, dict):
        return []
    return sorted(case for case in before.keys() | sizes.keys() if before.get(case) != sizes.get(case))
