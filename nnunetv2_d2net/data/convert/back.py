"""Turning predictions into the label values of the source that their model's data set was converted from."""

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.cases import Problem, Volume
from nnunetv2_d2net.data.convert.mapping import read_mapping
from nnunetv2_d2net.data.convert.parallel import run_all
from nnunetv2_d2net.data.convert.read_case import read_volume
from nnunetv2_d2net.data.convert.record import read_record, write_json
from nnunetv2_d2net.data.convert.relabel import whole_values
from nnunetv2_d2net.data.convert.report import CaseProblemError
from nnunetv2_d2net.data.convert.source_files import nifti_stem
from nnunetv2_d2net.data.convert.write_case import UNFINISHED, write_image

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
        return read_mapping(path).scheme.back()
    values = read_record(path).get("label_values")
    try:
        inverse: dict[int, int] = {}
        for source, target in (values or {}).items():
            inverse.setdefault(int(target), int(source))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged in label_values: convert again") from error
    return inverse | {0: 0}


def convert_back(predictions: Path, output: Path, values: Mapping[int, int], processes: int) -> BackResult:
    """Rewrite every segmentation of a folder, or of its subset folders, with other label values.

    Args:
        predictions: A folder of segmentations, or of folders of them, as ``d2net predict --all_subsets`` writes.
        output: For files of the same names; those that are there and no older are kept.
        values: The source's value of each value.
        processes: How many at a time; with 1 no process is started.

    Raises:
        UserError: Nothing to convert, or the output is not usable.
    """
    jobs = [(path, output / path.relative_to(predictions)) for path in _segmentations(predictions)]
    if output.resolve() == predictions.resolve() or predictions.resolve() in output.resolve().parents:
        raise UserError(f"{output} lies in the predictions themselves: pass another -o")
    try:
        _note_values(output, values)
        pending = [job for job in jobs if not _is_done(*job)]
        for folder in {target.parent for _, target in pending}:
            (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
        results = run_all(partial(_convert_one, dict(values)), pending, processes)
        done = len(jobs) - len(pending)
        found = list(tqdm(results, total=len(jobs), initial=done, desc="convert back", unit="file"))
        for folder in {target.parent for _, target in pending}:
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {output} ({error.strerror}): make room or mend it, then run again") from error
    problems = sorted(problem for _, problem in found if problem)
    return BackResult(len(pending) - len(problems), done, problems)


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
        try:
            same = json.loads(note.read_text(encoding="utf-8")) == content
        except ValueError:
            same = False
        if not same:
            raise UserError(f"{output} holds segmentations with other label values, see {note}: pass another -o")
    elif output.is_dir() and any(nifti_stem(path.name) for path in output.rglob("*")):
        raise UserError(f"{output} holds other images already: pass another -o")
    output.mkdir(parents=True, exist_ok=True)
    write_json(note, content)


def _is_done(source: Path, target: Path) -> bool:
    return target.is_file() and target.stat().st_mtime_ns == source.stat().st_mtime_ns


def _convert_one(values: dict[int, int], job: tuple[Path, Path]) -> Problem | None:
    source, target = job
    try:
        image = read_volume(source.name, Volume(source))
        voxels = sitk.GetArrayViewFromImage(image)
        present = list(whole_values(source.name, source, voxels))
    except CaseProblemError as error:
        return error.problem
    unknown = [value for value in present if value not in values]
    if unknown:
        known = ", ".join(map(str, sorted(values)))
        line = f"{source} holds label value {unknown[0]}, the data set has {known}: is it another model's prediction?"
        return Problem(source.name, "unknown labels", line)
    table = np.array([values[value] for value in present])
    voxels = table[np.searchsorted(present, np.rint(voxels))]
    small = table.min() >= 0 and table.max() <= 255
    converted = sitk.GetImageFromArray(voxels.astype(np.uint8 if small else np.int32))
    converted.CopyInformation(image)
    temporary = target.parent / UNFINISHED / f"{os.getpid()}_{target.name}"
    try:
        write_image(converted, temporary)
        times = source.stat()
        os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))  # how a later run knows what it is made from
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return None
