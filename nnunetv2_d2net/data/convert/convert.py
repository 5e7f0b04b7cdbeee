"""Converting a source, or only checking it: in parallel, resumable, with dataset.json written last."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.cases import Found, Problem, SourceCase
from nnunetv2_d2net.data.convert.layouts import Layout
from nnunetv2_d2net.data.convert.parallel import run_all
from nnunetv2_d2net.data.convert.read_case import load_case
from nnunetv2_d2net.data.convert.record import Record, open_record, write_json
from nnunetv2_d2net.data.convert.report import CaseProblemError, CaseReport
from nnunetv2_d2net.data.convert.scheme import LabelScheme
from nnunetv2_d2net.data.convert.summary import Space
from nnunetv2_d2net.data.convert.write_case import ENDING, UNFINISHED, case_targets, remove_case, write_case

_PLAIN_SHARE = 0.5
"""How much of a plain NIfTI file compression leaves at most, for the estimate of the disk space."""


@dataclass(frozen=True)
class Work:
    """How every case is converted.

    Attributes:
        scheme: Its label values.
        modalities: In the order of the channels.
        resample: Resample images onto the grid of their case.
        link: Link instead of copying.
        folder: Of the data set; None reads and writes nothing.
    """

    scheme: LabelScheme
    modalities: tuple[str, ...]
    resample: bool = False
    link: bool = False
    folder: Path | None = None


class Converted(NamedTuple):
    """What came of a conversion.

    Attributes:
        reports: Of all cases that are in the data set now.
        problems: Of those that are not.
        n_done: How many an earlier run had converted.
        vanished: Cases that an earlier run had converted and that are no longer in the source; they stay.
    """

    reports: list[CaseReport]
    problems: list[Problem]
    n_done: int
    vanished: list[str]


def target_folder(roots: Sequence[Path], dataset_id: int, name: str) -> Path:
    """Return the folder of a new data set below the first of nnU-Net's roots.

    Raises:
        UserError: The number or the name is out of range, or the number is another data set's.
    """
    if not 1 <= dataset_id <= 999:
        raise UserError(f"data set ID {dataset_id} is out of range: choose -d between 1 and 999")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"name {name!r} cannot be a folder's: choose --name of letters, digits, - and _")
    folder = roots[0] / f"Dataset{dataset_id:03d}_{name}"
    for root in roots:
        for other in sorted(root.glob(f"Dataset{dataset_id:03d}_*")):
            if other.name != folder.name:
                raise UserError(f"{other} has the number {dataset_id} already: choose another -d, or remove it")
    return folder


def check(found: Found, work: Work, processes: int) -> list[CaseReport]:
    """Read every case and write nothing; the reports are in the order of the cases."""
    results = {case.name: report for case, report in _process_all(work, found.cases, processes, "check")}
    return [results[case.name] for case in found.cases]


def space_for(cases: Sequence[SourceCase], folder: Path, *, link: bool) -> Space:
    """Estimate the space that cases need on a disk, and ask how much is free."""
    needed = 0.0
    for path in (path for case in cases for path in case.files()):
        size = path.stat().st_size
        plain = path.name.lower().endswith(".nii")
        needed += size * _PLAIN_SHARE if plain else 0 if link else size
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return Space(int(needed), shutil.disk_usage(existing).free)


def convert(found: Found, layout: Layout, work: Work, sources: dict[str, Path], processes: int) -> Converted:
    """Convert all cases that can be; go on where an earlier run of the same source has stopped.

    Args:
        found: The cases.
        layout: Of the source.
        work: How; with a folder.
        sources: Folder of the training and, where given, of the test cases.
        processes: How many cases at a time; with 1 no process is started.

    Raises:
        UserError: The folder is another data set's, the disk is too small or full, or a process was killed. Whatever
            was converted stays, and the same command goes on with it.
    """
    folder = work.folder
    if folder is None:
        raise ValueError("converting needs a folder")
    record = open_record(folder, layout, sources)
    done = [case for case in found.cases if _is_done(record, case)]
    names = {case.name for case in done}
    pending = [case for case in found.cases if case.name not in names]
    space = space_for(pending, folder, link=work.link)
    if pending and space.needed > space.free:
        raise UserError(f"{folder}: the disk is too small, {space}: make room, or pass --link to copy no image")
    with _explaining_disk_errors(folder):
        _open_folder(folder, found, record, pending)
        problems = list(found.problems)
        for case, report in _process_all(work, pending, processes, folder.name, len(done)):
            if report.problem:
                problems.append(report.problem)
            else:
                record.add(case, report)
        reports = [_report_of(name, entry) for name, entry in sorted(record.cases.items())]
        _finish(record, work, layout, reports, problems)
    in_source = {case.name for case in found.cases}
    vanished = [report.case for report in reports if report.case not in in_source]
    return Converted(reports, sorted(problems), len(done), vanished)


def _is_done(record: Record, case: SourceCase) -> bool:
    return record.same_source(case) and all(path.is_file() for path in _recorded_targets(record, case.name))


def _recorded_targets(record: Record, name: str) -> list[Path]:
    entry = record.cases[name]
    channels = [record.settings["modalities"].index(modality) for modality in entry["modalities"]]
    return case_targets(record.folder, name, entry["split"], channels, label=entry["label"] is not None)


def _open_folder(folder: Path, found: Found, record: Record, pending: Sequence[SourceCase]) -> None:
    """Make the folders; take out of an existing data set what is to be converted again or has become unusable."""
    stale = [*(case.name for case in pending), *(problem.case for problem in found.problems)]
    if pending or any(name in record.cases for name in stale):
        (folder / "dataset.json").unlink(missing_ok=True)  # it would describe other cases than there are
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs", UNFINISHED):
        (folder / name).mkdir(parents=True, exist_ok=True)
    record.touch()
    for name in stale:
        if record.cases.pop(name, None) is not None:
            remove_case(folder, name, record.settings["modalities"])


def _finish(
    record: Record, work: Work, layout: Layout, reports: Sequence[CaseReport], problems: Sequence[Problem]
) -> None:
    folder = record.folder
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    for name in ("imagesTs", "labelsTs"):
        with suppress(OSError):  # which it raises where there is a file in it
            (folder / name).rmdir()
    record.finish({problem.case: problem.line for problem in problems})
    n_train = sum(report.split == "Tr" for report in reports)
    if n_train:
        seen = {value for report in reports for value in report.counts}
        # Last: without it nnU-Net refuses the folder, so a data set that it accepts is complete.
        write_json(
            folder / "dataset.json",
            {
                "name": folder.name,
                "description": f"Converted from {layout.title}.",
                "channel_names": {str(channel): name for channel, name in enumerate(work.modalities)},
                **work.scheme.described(seen),
                "numTraining": n_train,
                "file_ending": ENDING,
            },
        )


def _report_of(name: str, entry: dict) -> CaseReport:
    counts = {int(value): n for value, n in entry["voxels"].items()}
    return CaseReport(
        name, entry["split"], entry["modalities"], counts, entry["geometry"], entry["notes"], entry["digests"]
    )


def _process_all(
    work: Work, cases: Sequence[SourceCase], processes: int, what: str, n_done: int = 0
) -> Iterator[tuple[SourceCase, CaseReport]]:
    results = run_all(partial(process_case, work), cases, processes)
    yield from tqdm(results, total=n_done + len(cases), initial=n_done, desc=what, unit="case")


def process_case(work: Work, case: SourceCase) -> CaseReport:
    """Read a case and, where there is a folder, write it.

    Raises:
        OSError: It could not be written.
    """
    try:
        loaded = load_case(case, work.scheme, resample=work.resample)
    except CaseProblemError as error:
        return CaseReport(case.name, case.split, problem=error.problem)
    if work.folder is not None:
        write_case(loaded, work.folder, work.modalities, link=work.link)
    return loaded.report


@contextmanager
def _explaining_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise UserError(f"cannot write {folder} ({reason}): make room or mend it, then run again") from error
