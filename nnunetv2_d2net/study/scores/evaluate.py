"""Scores every case, subset and region of a folder of predictions into metrics.csv, where it left off."""

import contextlib
import csv
import dataclasses
import functools
import io
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import (
    append_text,
    file_state,
    locked_folder,
    make_folder,
    read_json,
    read_json_or,
    write_json,
    write_text,
)
from nnunetv2_d2net.base.images import ROUNDED, Image, differences, header_oddities, label_counts, read_image
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.base.text import listed, reason_of
from nnunetv2_d2net.study.scores.metrics import TOLERANCE_MM, CaseScore, score_labels
from nnunetv2_d2net.study.scores.tables import MEAN_REGION

ALL_GIVEN = "all given"
"""Subset of predictions that lie in one plain folder: whatever each case had."""

_TABLE, _NOTE = "metrics.csv", "metrics.json"  # the note says what the rows of the table were made from
_FIRST_TABLE = "tables.json"
_LOG = logging.getLogger("nnunetv2_d2net")


class Evaluation(NamedTuple):
    """What was scored and what was not.

    Attributes:
        scores: By case, then subset, then region.
        failures: One line for each case and subset that could not be scored.
        absent: How many of the cases each subset lacks, where it lacks any: cases without one of its modalities.
        unpredicted: References for which no subset has a prediction.
        modalities: The data set's, in the order of the channels; empty if they are not named.
    """

    scores: list[CaseScore]
    failures: list[str]
    absent: dict[str, int]
    unpredicted: list[str]
    modalities: list[str]


class Job(NamedTuple):
    """One case and subset to score: its segmentations, the data set that names their labels, and the tolerance."""

    case: str
    subset: str
    prediction: Path
    reference: Path
    dataset: Dataset
    tolerance_mm: float


class Scored(NamedTuple):
    """What came of a job: its rows, or why there are none; and what is odd about the headers, by file."""

    scores: list[CaseScore]
    failure: str
    oddities: list[tuple[Path, str]]


def evaluate_folder(
    predictions: Path | str,
    references: Path | str,
    out: Path | str | None = None,
    *,
    tolerance_mm: float = TOLERANCE_MM,
    processes: int = 1,
    progress: bool = False,
) -> Evaluation:
    """Score predictions, into ``out/metrics.csv`` row by row as they come; what is there already is kept.

    A row is computed again if its prediction or reference is another file than it was (by size and time of its last
    change), or if regions or tolerance are others. What is wrong with a single case is logged, too, and, once a case,
    what is odd about the headers of those that are scored now.

    Args:
        predictions: Folders of segmentations, one per subset, each with dataset.json; or one folder of segmentations,
            with dataset.json in it or beside the references' folder.
        references: Folder of segmentations of the same names.
        out: Folder for the results; None writes nothing.
        tolerance_mm: Of the surface Dice.
        processes: Cases and subsets at a time; 1 starts no process.
        progress: Show a bar.

    Raises:
        UserError: A folder or dataset.json is missing, the tolerance is out of range, there is nothing to score, the
            results cannot be written or are of other folders, or a process was killed. What is wrong with a single case
            is among the failures.
    """
    folders, references = _subset_folders(Path(predictions)), Path(references)
    if not references.is_dir():
        raise UserError(f"{references} is no folder: name the folder of the reference segmentations")
    dataset = _read_dataset(next(iter(folders.values())), references)
    _check_folders(Path(predictions), folders, dataset)
    jobs = _jobs(folders, references, dataset, tolerance_mm)
    if not jobs:
        raise UserError(f"{predictions} holds no segmentation {dataset.file_ending}: predict first")
    out = None if out is None else Path(out)
    if out is not None:
        make_folder(out)
    with contextlib.nullcontext() if out is None else locked_folder(out):
        scored = {"predictions": str(Path(predictions).resolve()), "references": str(references.resolve())}
        if out is not None:
            _refuse_others(out, scored)
        rows, failures = _score_jobs(jobs, scored, out, processes, progress=progress)
    scores = [row for job in jobs for row in rows.get(job[:2], ())]
    cases, counts = {job.case for job in jobs}, Counter(job.subset for job in jobs)
    return Evaluation(
        scores,
        sorted(failures),
        {subset: len(cases) - counts[subset] for subset in folders if counts[subset] < len(cases)},
        sorted(dataset.segmentations(references).keys() - cases),
        list(dataset.channels),
    )


def _refuse_others(out: Path, scored: Mapping[str, str]) -> None:
    """Refuse to replace the scores of other folders that are still there, unless one lies in the other: a copy does."""
    if not ((out / _TABLE).is_file() and read_scores(out / _TABLE)):
        return
    before, here = read_json_or(out / _NOTE, {}).get("scored"), out.resolve()
    for kind, folder in scored.items():
        other = str(before.get(kind, folder)) if isinstance(before, dict) else folder
        together = here.is_relative_to(folder) or Path(folder).is_relative_to(here)
        if other != folder and Path(other).is_dir() and not together:
            raise UserError(f"{out} holds the scores of the {kind} in {other}: pass another -o, or move it away")


def _score_jobs(
    jobs: Sequence[Job], scored: Mapping[str, str], out: Path | None, processes: int, *, progress: bool
) -> tuple[dict[tuple[str, str], list[CaseScore]], list[str]]:
    """Return the rows of each case and subset, those of an earlier run included, and what could not be scored."""
    rows = {} if out is None else _take_up(out, jobs, scored)
    failures, logged = [], set()
    todo = [job for job in jobs if job[:2] not in rows]
    for job, result in run_all(score_case, todo, processes, title="evaluate", unit="segmentation", progress=progress):
        _log_oddities(job.case, result.oddities, logged)
        if result.failure:
            _LOG.error(result.failure)
            failures.append(result.failure)
            continue
        rows[job[:2]] = result.scores
        if out is not None:
            append_text(out / _TABLE, _csv(result.scores))
    if out is not None:
        replace_scores(out / _TABLE, [row for job in jobs for row in rows.get(job[:2], ())])
    return rows, failures


def _log_oddities(case: str, oddities: Iterable[tuple[Path, str]], logged: set[tuple[str, str]]) -> None:
    """Say what is odd about a case's headers, unless that was said for another subset."""
    for file, oddity in oddities:
        if (case, oddity) not in logged:
            _LOG.warning("case %r: %s %s", case, file, oddity)
        logged.add((case, oddity))


def _subset_folders(predictions: Path) -> dict[str, Path]:
    """Find the folder of each subset; a plain folder of segmentations is one subset, :data:`ALL_GIVEN`."""
    if not predictions.is_dir():
        raise UserError(f"{predictions} is no folder: name the folder of the predictions")
    folders = sorted(path.parent for path in predictions.glob("*/dataset.json"))
    return {folder.name: folder for folder in folders} or {ALL_GIVEN: predictions}


def _check_folders(predictions: Path, folders: dict[str, Path], dataset: Dataset) -> None:
    """Refuse segmentations that nobody would look at, and a region of the name that the mean over regions has."""
    others = [path for path in (predictions, *sorted(predictions.glob("*"))) if path not in folders.values()]
    for folder in (path for path in others if path.is_dir() and dataset.segmentations(path)):
        raise UserError(
            f"{folder} holds segmentations and no dataset.json, beside folders that have one: "
            "copy it into this folder, or move the folder away"
            if folder != predictions
            else f"{folder} holds segmentations, and so do subfolders: move one or the other away"
        )
    if MEAN_REGION in dataset.regions and len(dataset.regions) > 1:
        raise UserError(f"a label is called {MEAN_REGION}, as the mean over labels is: rename it in dataset.json")


def _read_dataset(folder: Path, references: Path) -> Dataset:
    places = [path for path in (folder / "dataset.json", references.parent / "dataset.json") if path.is_file()]
    if not places:
        raise UserError(f"{folder} has no dataset.json, which names regions and labels: copy the data set's into it")
    remedy = "copy the data set's"
    return Dataset.of(read_json(places[0], remedy), str(places[0]), remedy, only_labels=True)


def _jobs(folders: dict[str, Path], references: Path, dataset: Dataset, tolerance_mm: float) -> list[Job]:
    """One job per case and subset, the subsets of a case together."""
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise UserError(f"a tolerance of {tolerance_mm} is none: choose a distance in mm, such as 1")
    dataset = dataclasses.replace(dataset, content={})  # which can list thousands of files; a job goes to a process
    jobs = [
        Job(case, subset, path, references / path.name, dataset, tolerance_mm)
        for subset, folder in folders.items()
        for case, path in dataset.segmentations(folder).items()
    ]
    return sorted(jobs)  # no two have the same case and subset, which come first


def _take_up(out: Path, jobs: Sequence[Job], scored: Mapping[str, str]) -> dict[tuple[str, str], list[CaseScore]]:
    """Return, by case and subset, the rows of an earlier run that still hold, and leave only those in metrics.csv."""
    regions = {name: list(values) for name, values in jobs[0].dataset.regions.items()}
    settings = {"tolerance_mm": jobs[0].tolerance_mm, "regions": regions}
    files = {f"{job.case}/{job.subset}": [file_state(job.prediction), file_state(job.reference)] for job in jobs}
    before = read_json_or(out / _NOTE, {})
    foreign = out / _NOTE if (out / _NOTE).is_file() and "settings" not in before else out / _FIRST_TABLE
    if foreign.is_file() and not (out / _TABLE).is_file():  # which is written first
        raise UserError(f"{foreign} was not written by d2net evaluate: pass another -o, or move it away")
    rows: dict[tuple[str, str], list[CaseScore]] = {}
    written = read_scores(out / _TABLE) if (out / _TABLE).is_file() else []  # refused if it is somebody else's
    if before.get("settings") == settings:
        same = {key for key, states in before.get("files", {}).items() if states == files.get(key)}
        for row in written:
            if f"{row.case}/{row.subset}" in same:
                rows.setdefault(row[:2], []).append(row)
    rows = {key: part for key, part in rows.items() if [row.region for row in part] == list(regions)}
    replace_scores(out / _TABLE, [row for part in rows.values() for row in part])
    note = {"settings": settings, "scored": scored, "files": files}
    write_json(out / _NOTE, note, indent=1)  # only now: all rows left agree with it
    return rows


def read_scores(path: Path) -> list[CaseScore]:
    """Read metrics.csv; a last line that was not written to its end is left out.

    Raises:
        UserError: It cannot be read, or is another file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        header, *rows = [*csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))] or [CaseScore._fields]
        if tuple(header) != CaseScore._fields:
            raise ValueError("other columns")
        return [CaseScore._make([*cells[:3], *map(float, cells[3:7]), *map(int, cells[7:])]) for cells in rows]
    except (OSError, ValueError, TypeError) as error:
        reason = f"{path} can be read as no table of d2net evaluate ({reason_of(error)})"
        raise UserError(f"{reason}: write elsewhere with -o, or remove it and evaluate again") from error


def replace_scores(path: Path, scores: Iterable[CaseScore]) -> None:
    """Write metrics.csv anew, whole or not at all."""
    write_text(path, _csv([CaseScore._fields, *scores]))


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def score_case(job: Job) -> Scored:
    """Score the regions of one case and subset, or say in one line why that cannot be done."""
    try:
        prediction, reference = _read_pair(job)
    except UserError as error:
        return Scored([], f"case {job.case!r}, {job.subset}: {error}", [])
    pair, spacing = (prediction.voxels[0], reference.voxels[0]), prediction.properties["spacing"][::-1]
    settings = {"ignore": job.dataset.ignore, "tolerance_mm": job.tolerance_mm}
    scores = score_labels(*pair, spacing, job.dataset.regions, **settings)
    rows = [
        CaseScore._make([job.case, job.subset, region, *(round(figure, 6) for figure in figures)])
        for region, figures in scores.items()
    ]
    return Scored(rows, "", header_oddities([reference, prediction]))


def _read_pair(job: Job) -> tuple[Image, Image]:
    """Read prediction and reference, and check that they belong together."""
    state, dataset = file_state(job.reference), job.dataset
    if state is None:
        raise UserError(f"{job.reference} does not exist: provide it, or remove {job.prediction}")
    predictable = tuple(value for value in dataset.known_values if value != dataset.ignore)
    prediction = _read_labels(job.prediction, predictable)
    reference = _read_reference(job.reference, tuple(state), dataset.known_values)
    if ways := differences(prediction, reference, ROUNDED):
        pair = f"{job.prediction} and {job.reference}"
        raise UserError(f"{pair} differ in {listed(ways)}: resample one of them onto the other")
    return prediction, reference


@functools.lru_cache(maxsize=1)
def _read_reference(path: Path, state: tuple[int, ...], known: tuple[int, ...]) -> Image:
    """Read a reference once for all subsets of its case, which follow one another."""
    del state
    return _read_labels(path, known)


def _read_labels(path: Path, known: tuple[int, ...]) -> Image:
    """Read a segmentation as whole numbers."""
    image = read_image(path, is_label=True)
    if len(image.voxels) != 1:
        raise UserError(f"{path} holds {len(image.voxels)} channels: one of labels is needed")
    if image.voxels[0].ndim > 3:
        raise UserError(f"{path} has {image.voxels[0].ndim} dimensions: one point in time is needed")
    if unknown := [value for value in label_counts(path, image.voxels) if value not in known]:
        raise UserError(f"{path} holds {listed(unknown)}, no label of dataset.json: use the labels it names")
    whole = image.voxels.dtype.kind in "iu"
    return image if whole else image._replace(voxels=np.rint(image.voxels).astype(np.int32))
