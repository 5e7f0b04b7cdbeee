"""Looks at every case of a cohort in parallel, and at the cohort as a whole; goes on where it was stopped."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.inspect.duplicates import find_duplicates
from nnunetv2_d2net.data.inspect.one_case import CaseJob, inspect_case
from nnunetv2_d2net.data.inspect.outliers import find_outliers
from nnunetv2_d2net.data.inspect.raw_dataset import CaseFiles, RawCohort
from nnunetv2_d2net.data.inspect.record import CaseRecord, Finding
from nnunetv2_d2net.data.inspect.swaps import find_swaps

_REVISION = 1  # raised when the same files start to give another record


class Inspection(NamedTuple):
    """What was seen.

    Attributes:
        names: M names of the modalities.
        regions: Names of the classes or regions.
        records: All cases, by pattern: the most frequent first.
        findings: All suspicions, by kind and case.
    """

    names: list[str]
    regions: list[str]
    records: list[CaseRecord]
    findings: list[Finding]


def inspect_cohort(
    cohort: RawCohort,
    cache: Path,
    *,
    processes: int = 1,
    progress: bool = True,
    other_split: Sequence[CaseRecord] = (),
) -> Inspection:
    """Look at all cases.

    Args:
        cohort: The data set.
        cache: File that keeps what is known of each case, until one of its files has another size or date.
        processes: Cases at a time; 1 starts no process.
        progress: Show a bar.
        other_split: Cases that must not be among those of the cohort.

    Raises:
        UserError: A process was killed.
    """
    known = read_cases(cohort, cache, processes=processes, progress=progress)
    frequent = Counter(record.pattern for record in known)
    records = sorted(known, key=lambda r: (-frequent[r.pattern], tuple(not flag for flag in r.pattern), r.case))
    findings = [finding for record in known for finding in record.findings]
    findings += find_duplicates(known, cohort.names, other_split)
    findings += find_swaps(known, cohort.names) + find_outliers(known)
    return Inspection(cohort.names, list(cohort.regions), records, sorted(findings, key=lambda f: (f.kind, f.case)))


def read_cases(cohort: RawCohort, cache: Path, *, processes: int = 1, progress: bool = True) -> list[CaseRecord]:
    """Look at each case on its own, with the arguments and errors of :func:`inspect_cohort`; sorted by name."""
    keys = {case: _key(files, cohort) for case, files in cohort.cases.items()}
    known = _read_cache(cache, keys)
    jobs = [
        CaseJob(case, files, cohort._replace(cases={})) for case, files in cohort.cases.items() if case not in known
    ]
    with cache.open("a", encoding="utf-8") as file:
        for record in tqdm(_run(jobs, processes), "inspect", len(jobs), disable=not progress or not jobs, unit="case"):
            known[record.case] = record
            file.write(f"\n{keys[record.case]} {record.to_json()}")  # ahead: a torn line spoils no other
            file.flush()
    return sorted(known.values(), key=lambda record: record.case)


def _key(files: CaseFiles, cohort: RawCohort) -> str:
    """Changes when a file of the case does, or what the data set says of labels and modalities."""
    paths = [Path(file) for file in (*files.images, files.label) if file]
    stats = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else str(path) for path in paths
    ]
    said = (_REVISION, files.problem, stats, cohort._replace(cases={}, reader=cohort.reader.__name__))
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def _read_cache(path: Path, keys: dict[str, str]) -> dict[str, CaseRecord]:
    """Records that still hold; a line that was cut short when a run was stopped is passed over."""
    if not path.is_file():
        return {}
    known = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, text = line.partition(" ")
        try:
            record = CaseRecord.from_json(text)
        except (ValueError, TypeError):
            continue
        if keys.get(record.case) == key:
            known[record.case] = record
    return known


def _run(jobs: Sequence[CaseJob], processes: int) -> Iterator[CaseRecord]:
    if processes <= 1 or len(jobs) <= 1:
        yield from map(inspect_case, jobs)
        return
    # forking a process that has threads can hang, spawning cannot
    with ProcessPoolExecutor(min(processes, len(jobs)), get_context("spawn")) as pool:
        pending = [pool.submit(inspect_case, job) for job in jobs]
        try:
            for future in as_completed(pending):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process was killed, perhaps for lack of memory: run again with a smaller -np; what is known is kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
