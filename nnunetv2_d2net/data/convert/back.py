"""Turning predictions into the label values of the source that their model's data set was converted from."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import explaining_disk_errors, locked_folder, make_folder, read_json_or, write_json
from nnunetv2_d2net.base.images import ImageError, write_sitk
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.data.convert.cases import Problem, nifti_stem
from nnunetv2_d2net.data.convert.mapping import read_mapping
from nnunetv2_d2net.data.convert.one_case import read_volume, relabel
from nnunetv2_d2net.data.convert.record import read_record
from nnunetv2_d2net.data.convert.scheme import inverse_of

_NOTE = "convert_back.json"


class BackResult(NamedTuple):
    """What came of it: how many were written, how many were there already, and what is wrong."""

    n_written: int
    n_done: int
    problems: list[Problem]


def read_back_values(path: Path) -> dict[int, int]:
    """Read which value of the source each value of the data set stands for.

    Args:
        path: A ``conversion.json`` or a mapping file.

    Raises:
        UserError: It is neither.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        return inverse_of(read_mapping(path).scheme.values)
    values = read_record(path).get("label_values")
    try:
        return inverse_of({int(source): int(target) for source, target in (values or {}).items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged in label_values: convert again") from error


def convert_back(
    predictions: Path, output: Path, values: Mapping[int, int], processes: int = 1, *, progress: bool = False
) -> BackResult:
    """Rewrite every segmentation of a folder, or of its subset folders, with other label values.

    Args:
        predictions: A folder of segmentations, or of folders of them, as ``d2net predict --all_subsets`` writes.
        output: For files of the same names; those that are there and no older are kept.
        values: The source's value of each value.
        processes: How many at a time; with 1 no process is started.
        progress: Show a bar.

    Raises:
        UserError: Nothing to convert, or the output is not usable.
    """
    jobs = [(path, output / path.relative_to(predictions)) for path in _segmentations(predictions)]
    if output.resolve() == predictions.resolve() or predictions.resolve() in output.resolve().parents:
        raise UserError(f"{output} lies in the predictions themselves: pass another -o")
    with locked_folder(output):
        return _convert_all(jobs, output, values, processes, progress=progress)


def _convert_all(
    jobs: Sequence[tuple[Path, Path]], output: Path, values: Mapping[int, int], processes: int, *, progress: bool
) -> BackResult:
    _note_values(output, values)
    pending = [job for job in jobs if not _is_done(*job)]
    n_done = len(jobs) - len(pending)
    convert = partial(_convert_one, dict(values))
    results = run_all(convert, pending, processes, title="convert back", unit="file", n_done=n_done, progress=progress)
    problems = sorted(problem for _, problem in results if problem)
    return BackResult(len(pending) - len(problems), n_done, problems)


def _segmentations(predictions: Path) -> list[Path]:
    try:
        entries = sorted(predictions.iterdir())
    except OSError as error:
        raise UserError(f"{predictions} cannot be read ({error.strerror}): pass a folder of predictions") from error
    folders = [predictions, *(path for path in entries if path.is_dir() and not path.name.startswith("."))]
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if nifti_stem(path.name)]
    if not paths:
        raise UserError(f"{predictions} holds no .nii.gz: pass what d2net predict has written")
    return paths


def _note_values(output: Path, values: Mapping[int, int]) -> None:
    """Refuse a folder of segmentations with other label values; otherwise say which these are."""
    note, content = output / _NOTE, {"label_values": {str(ours): theirs for ours, theirs in sorted(values.items())}}
    if note.is_file():
        if read_json_or(note, None) != content:
            raise UserError(f"{output} holds segmentations with other label values, see {note}: pass another -o")
    elif output.is_dir() and any(nifti_stem(path.name) for path in output.rglob("*")):
        raise UserError(f"{output} holds other images already: pass another -o")
    make_folder(output)
    write_json(note, content)


def _is_done(source: Path, target: Path) -> bool:
    return target.is_file() and target.stat().st_mtime_ns == source.stat().st_mtime_ns


def _convert_one(values: Mapping[int, int], job: tuple[Path, Path]) -> Problem | None:
    source, target = job
    try:
        image, _ = relabel(source, read_volume(source, is_label=True), values, "is it another model's prediction?")
    except ImageError as error:
        return Problem.of(source.name, error)
    write_sitk(image, target, place_of=source)
    with explaining_disk_errors(target):
        times = source.stat()
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))  # how a later run knows what it is made from
    return None
