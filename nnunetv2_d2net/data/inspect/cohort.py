"""Looks at every case of a cohort in parallel, and at the cohort as a whole; goes on where it was stopped."""

import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import append_json_line, file_state, locked_folder, make_folder, read_json_lines
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.data.inspect.one_case import CaseJob, inspect_case
from nnunetv2_d2net.data.inspect.pictures import draw_pictures
from nnunetv2_d2net.data.inspect.record import CaseRecord, Finding, Inspection
from nnunetv2_d2net.data.inspect.suspicions import find_cut, find_duplicates, find_outliers
from nnunetv2_d2net.data.inspect.swaps import find_swaps
from nnunetv2_d2net.data.inspect.tables import write_tables
from nnunetv2_d2net.plugin.preprocessing.training_cases import lean, name_problems, reader_of

_LOG = logging.getLogger("nnunetv2_d2net")
_OTHER = {"Tr": "Ts", "Ts": "Tr"}
_REVISION = 6  # raised when the same files start to give another record


def inspect_dataset(
    folder: Path | str,
    output: Path | str | None = None,
    *,
    split: str = "Tr",
    processes: int = 1,
    progress: bool = False,
) -> Inspection:
    """Look at all cases of a raw data set, complete or not, as ``d2net inspect`` does; nothing in it is changed.

    Args:
        folder: ``DatasetXXX_NAME`` with dataset.json.
        output: Folder for tables, pictures and what is known of each case, so that a run that was stopped goes on, and
            the next one reads only what has changed; None to write nothing.
        split: ``Tr`` for training cases, ``Ts`` for test cases; the others are searched for copies of them.
        processes: Cases at a time; 1 starts no process.
        progress: Show a bar.

    Raises:
        UserError: dataset.json or an image folder cannot be used, ``output`` lies in the data set, cannot be written or
            is in use, or a process was killed. Files of cases that cannot be read are among the findings.
    """
    folder, output = Path(folder), None if output is None else Path(output)
    if split not in _OTHER:
        raise UserError(f"there is no split {split!r}: choose Tr or Ts")
    dataset = Dataset.read(folder / "dataset.json")
    if output is not None and output.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{output} is inside the data set, where nothing is written: pass another folder")
    jobs, other_jobs = _find_jobs(folder, dataset, split), _find_other_jobs(folder, dataset, _OTHER[split])
    look = partial(_inspect_cases, processes=processes, progress=progress)
    if output is None:
        return _inspect_all(folder, split, dataset, look(jobs), look(other_jobs))
    make_folder(output)
    with locked_folder(output):
        other_split = look(other_jobs, output / f"cache_images{_OTHER[split]}.jsonl")
        records = look(jobs, output / "cache.jsonl")
        inspection = _inspect_all(folder, split, dataset, records, other_split)
        write_tables(inspection, output)
        draw_pictures(inspection, output)
    return inspection


def _find_jobs(folder: Path, dataset: Dataset, split: str) -> list[CaseJob]:
    """List the cases of one split."""
    cases = dataset.cases(folder, split)
    if split == "Tr":
        cases = name_problems(cases, dataset)
    images = [image for files in cases.values() for image in files.images]
    if not images:
        problem = next((files.problem for files in cases.values() if files.problem), "add images")
        raise UserError(f"{folder / f'images{split}'} holds no image that can be used: {problem}")
    reader, known = reader_of(dataset, images), lean(dataset)
    labeled = split == "Tr" or any(files.label for files in cases.values())
    return [CaseJob(case, files, known, reader, labeled, split == "Tr") for case, files in cases.items()]


def _find_other_jobs(folder: Path, dataset: Dataset, split: str) -> list[CaseJob]:
    """List what must not be among the cases inspected: figures of test cases that were trained on are worthless."""
    try:
        return _find_jobs(folder, dataset, split)
    except UserError as error:
        if (folder / f"images{split}").is_dir():
            _LOG.warning("images%s is not searched for duplicates: %s", split, error)
        return []


def _inspect_cases(
    jobs: Sequence[CaseJob], cache: Path | None = None, *, processes: int, progress: bool
) -> list[CaseRecord]:
    """Look at each case on its own, unless the cache still knows it; sorted by name."""
    keys, known = {job.case: _key(job) for job in jobs}, {}
    for line in read_json_lines(cache) if cache else ():
        with contextlib.suppress(KeyError, TypeError):  # written by another version
            record = CaseRecord(**line["record"])
            record.findings = [Finding(*finding) for finding in record.findings]
            if keys.get(record.case) == line["key"]:
                known[record.case] = record
    unknown = [job for job in jobs if job.case not in known]
    for job, record in run_all(inspect_case, unknown, processes, title="inspect", progress=progress):
        known[job.case] = record
        if cache is not None:
            append_json_line(cache, {"key": keys[job.case], "record": asdict(record)})
    return sorted(known.values(), key=lambda record: record.case)


def _key(job: CaseJob) -> str:
    """Changes when a file of the case does, or what the data set says of labels and modalities."""
    states = [file_state(Path(file)) for file in (*job.files.images, job.files.label) if file]
    return hashlib.blake2b(repr((_REVISION, states, job)).encode(), digest_size=16).hexdigest()


def _inspect_all(
    folder: Path, split: str, dataset: Dataset, records: Sequence[CaseRecord], other_split: Sequence[CaseRecord]
) -> Inspection:
    """Look at the cohort as a whole."""
    findings = [finding for record in records for finding in record.findings]
    findings += find_duplicates(records, dataset.channels, other_split)
    findings += find_swaps(records, dataset.channels) + find_outliers(records, dataset.regions)
    findings += find_cut(records)
    frequent = Counter(record.pattern for record in records)
    by_pattern = sorted(records, key=lambda r: (-frequent[r.pattern], tuple(not flag for flag in r.pattern), r.case))
    return Inspection(folder, split, dataset, by_pattern, sorted(findings, key=lambda f: (f.kind, f.case)))
