"""Scores every case, subset and region of a folder of predictions into metrics.csv, where it left off."""

import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.reading import last_line
from nnunetv2_d2net.study.scores.metrics import TOLERANCE_MM, CaseScore
from nnunetv2_d2net.study.scores.one_case import Job, score_case
from nnunetv2_d2net.study.scores.score_file import append_scores, read_scores, replace_scores
from nnunetv2_d2net.study.scores.subset_table import regions_of

ALL_GIVEN = "all given"
"""Subset of predictions that lie in one plain folder: whatever each case had."""


class Evaluation(NamedTuple):
    """What was scored and what was not.

    Attributes:
        scores: All rows of metrics.csv: by case, then subset, then region.
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


def evaluate_folder(
    predictions: Path,
    references: Path,
    out: Path,
    *,
    tolerance_mm: float = TOLERANCE_MM,
    processes: int = 1,
    progress: bool = True,
) -> Evaluation:
    """Score predictions into ``out/metrics.csv``, row by row as they come; what is there already is kept.

    A row is computed again if its prediction or reference is another file than it was (by size and time of its last
    change), or if regions or tolerance are others.

    Args:
        predictions: Folders of segmentations, one per subset, each with dataset.json; or one folder of segmentations,
            with dataset.json in it or beside the references' folder.
        references: Folder of segmentations of the same names.
        out: Folder for the results.
        tolerance_mm: Of the surface Dice.
        processes: Cases and subsets at a time; 1 starts no process.
        progress: Show a bar.

    Raises:
        UserError: A folder or dataset.json is missing, there is nothing to score, or a process was killed. What is
            wrong with a single case is among the failures.
    """
    folders = subset_folders(predictions)
    if not references.is_dir():
        raise UserError(f"{references} is no folder: name the folder of the reference segmentations")
    dataset = _dataset_json(next(iter(folders.values())), references)
    ending = dataset["file_ending"]
    jobs = _jobs(folders, references, dataset, tolerance_mm)
    if not jobs:
        raise UserError(f"{predictions} holds no segmentation {ending}: predict first")
    out.mkdir(parents=True, exist_ok=True)
    table = out / "metrics.csv"
    made_from = _made_from(jobs, {"tolerance_mm": tolerance_mm, "regions": regions_of(dataset)})
    kept = _kept(table, jobs, made_from)
    replace_scores(table, [row for rows in kept.values() for row in rows])
    _note(table).write_text(json.dumps(made_from, indent=1), encoding="utf-8")  # only now: all rows left agree with it
    todo = [job for job in jobs if (job.case, job.subset) not in kept]
    failures = []
    for result in tqdm(_run(todo, processes), total=len(todo), desc="evaluate", disable=not progress or not todo):
        if isinstance(result, str):
            failures.append(result)
            tqdm.write(f"d2net: error: {result}", file=sys.stderr)
        else:
            kept[result[0].case, result[0].subset] = result
            append_scores(table, result)
    scores = [row for job in jobs for row in kept.get((job.case, job.subset), ())]
    replace_scores(table, scores)
    cases = {job.case for job in jobs}
    counts = {subset: sum(job.subset == subset for job in jobs) for subset in folders}
    return Evaluation(
        scores,
        sorted(failures),
        {subset: len(cases) - n for subset, n in counts.items() if n < len(cases)},
        sorted(_cases(references, ending).keys() - cases),
        _modalities(dataset),
    )


def subset_folders(predictions: Path) -> dict[str, Path]:
    """Find the folder of each subset; a plain folder of segmentations is one subset, :data:`ALL_GIVEN`.

    Raises:
        UserError: No such folder.
    """
    if not predictions.is_dir():
        raise UserError(f"{predictions} is no folder: name the folder of the predictions")
    folders = sorted(path.parent for path in predictions.glob("*/dataset.json"))
    return {folder.name: folder for folder in folders} or {ALL_GIVEN: predictions}


def _jobs(folders: dict[str, Path], references: Path, dataset: dict, tolerance_mm: float) -> list[Job]:
    """One job per case and subset, the subsets of a case together."""
    regions, ending, ignore = regions_of(dataset), dataset["file_ending"], dataset["labels"].get("ignore")
    known = {0, *(value for values in regions.values() for value in values)} | (
        {ignore} if ignore is not None else set()
    )
    jobs = [
        Job(case, subset, path, references / path.name, regions, tuple(sorted(known)), ignore, tolerance_mm)
        for subset, folder in folders.items()
        for case, path in _cases(folder, ending).items()
    ]
    return sorted(jobs, key=lambda job: (job.case, job.subset))


def _cases(folder: Path, ending: str) -> dict[str, Path]:
    files = sorted(
        p for p in folder.iterdir() if p.name.endswith(ending) and not p.name.startswith(".") and p.is_file()
    )
    return {path.name.removesuffix(ending): path for path in files}


def _dataset_json(folder: Path, references: Path) -> dict:
    places = [path for path in (folder / "dataset.json", references.parent / "dataset.json") if path.is_file()]
    if not places:
        raise UserError(f"{folder} has no dataset.json, which names regions and labels: copy the data set's into it")
    try:
        content = json.loads(places[0].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{places[0]} cannot be read ({last_line(error)}): copy the data set's") from error
    lacking = [key for key in ("labels", "file_ending") if key not in content]
    if lacking:
        raise UserError(f"{places[0]} lacks {' and '.join(lacking)}: copy the data set's")
    return content


def _modalities(dataset: dict) -> list[str]:
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    return [channels[number] for number in sorted(channels, key=int)]


def _note(table: Path) -> Path:
    """Return the file beside metrics.csv that says what its rows were made from."""
    return table.with_name("metrics.json")


def _made_from(jobs: Sequence[Job], settings: dict) -> dict:
    """Return settings, and size and time of both files of each row, as JSON would give them back."""
    files = {
        f"{job.case}/{job.subset}": [
            [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None
            for path in (job.prediction, job.reference)
        ]
        for job in jobs
    }
    return json.loads(json.dumps({"settings": settings, "files": files}))


def _kept(table: Path, jobs: Sequence[Job], made_from: dict) -> dict[tuple[str, str], list[CaseScore]]:
    """Rows of an earlier run that still hold, by case and subset."""
    before = _read_note(_note(table))
    if not table.is_file() or before.get("settings") != made_from["settings"]:
        return {}
    rows: dict[tuple[str, str], list[CaseScore]] = {}
    for row in read_scores(table):
        rows.setdefault((row.case, row.subset), []).append(row)
    same = {key for key, files in made_from["files"].items() if before.get("files", {}).get(key) == files}
    return {
        (job.case, job.subset): rows[job.case, job.subset]
        for job in jobs
        if [row.region for row in rows.get((job.case, job.subset), ())] == list(job.regions)
        and f"{job.case}/{job.subset}" in same
    }


def _read_note(path: Path) -> dict:
    """Read what an earlier run noted; nothing if there is none, or it was cut short."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _run(jobs: Sequence[Job], processes: int) -> Iterator[list[CaseScore] | str]:
    """Score jobs, in any order."""
    if processes <= 1 or len(jobs) <= 1:
        yield from map(score_case, jobs)
        return
    # forking a process that has threads can hang, spawning cannot
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        pending = [pool.submit(score_case, job) for job in jobs]
        try:
            for future in as_completed(pending):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process was killed, perhaps for lack of memory: run again with fewer processes; rows so far are kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
