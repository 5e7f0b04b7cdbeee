"""Converting a source, or only checking it: in parallel, resumable, with dataset.json written last."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.base.dataset import dataset_folder_name, folder_of, refuse_taken_number
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import UNFINISHED, explaining_disk_errors, locked_folder, write_json
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.data.convert.cases import CaseReport, Contents, Layout, Problem, SourceCase
from nnunetv2_d2net.data.convert.doubts import refuse_foreign_labels
from nnunetv2_d2net.data.convert.layouts import AUTO, find_cases, layout_of
from nnunetv2_d2net.data.convert.one_case import ENDING, Leniency, convert_case, label_values
from nnunetv2_d2net.data.convert.record import Record, open_record

_PLAIN_SHARE = 0.5
"""How much of a plain NIfTI file compression leaves at most, for the estimate of the disk space."""

_SUBFOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


class Space(NamedTuple):
    """Room for a data set: the folder, about how many bytes are needed on its disk, and how many are free."""

    folder: Path
    needed: int
    free: int

    def __str__(self) -> str:
        return f"about {self.needed / 1e6:,.0f} MB needed, {self.free / 1e6:,.0f} MB free"

    def check(self) -> None:
        """Refuse a disk that is too small.

        Raises:
            UserError: It is.
        """
        if self.needed > self.free:
            raise UserError(f"{self.folder}: the disk is too small, {self}: make room, or pass --link to copy no image")


class Checked(NamedTuple):
    """What a source holds, read and not converted.

    Attributes:
        reports: Of the cases that were read, also of those with a problem.
        problems: Of all cases that cannot be converted, sorted.
        stray: Image files that belong to no case.
        space: What the data set needs; None where it is not known which disk it will be on.
    """

    layout: Layout
    reports: list[CaseReport]
    problems: list[Problem]
    stray: list[Path]
    space: Space | None


class Converted(NamedTuple):
    """What came of a conversion.

    Attributes:
        reports: Of all cases that are in the data set now.
        problems: Of those that are not, sorted.
        stray: Image files that belong to no case.
        n_done: How many cases an earlier run had converted.
        vanished: Cases that an earlier run had converted and that are no longer in the source; they stay.
    """

    layout: Layout
    reports: list[CaseReport]
    problems: list[Problem]
    stray: list[Path]
    folder: Path
    n_done: int
    vanished: list[str]

    @property
    def n_train(self) -> int:
        """How many cases there are to train on; with none, dataset.json is not written."""
        return sum(report.split == "Tr" for report in self.reports)


def check_folder(  # noqa: PLR0913 - all but the first have defaults
    source: Path | str,
    *,
    layout: str = AUTO,
    test: Path | str | None = None,
    raw: Path | str | None = None,
    link: bool = False,
    resample: bool = False,
    nan_outside_as_zero: bool = False,
    label_header_from_images: bool = False,
    labels: str | None = None,
    processes: int = 1,
    progress: bool = False,
) -> Checked:
    """Read every case of a source and write nothing: ``d2net convert --check``.

    The arguments are those of :func:`convert_folder`. Without ``raw`` or ``nnUNet_raw`` the space is not known.

    Raises:
        UserError: The source is not usable at all, or a process was killed.
    """
    known, contents = _look_into(Path(source), Path(test) if test else None, layout, labels)
    how = Leniency(resample, nan_outside_as_zero, label_header_from_images)
    read = partial(convert_case, layout=known, how=how)
    results = run_all(read, contents.cases, processes, title="check", progress=progress)
    by_name = {case.name: report for case, report in results}
    reports = [by_name[case.name] for case in contents.cases]
    problems = [*contents.problems, *(report.problem for report in reports if report.problem)]
    folder = raw or os.environ.get("nnUNet_raw")
    space = _space_for(contents.cases, Path(folder), link=link) if folder else None
    return Checked(known, reports, sorted(problems), contents.stray, space)


def convert_folder(  # noqa: PLR0913 - all but the first three have defaults
    source: Path | str,
    dataset_id: int,
    name: str,
    *,
    raw: Path | str | None = None,
    layout: str = AUTO,
    test: Path | str | None = None,
    link: bool = False,
    resample: bool = False,
    nan_outside_as_zero: bool = False,
    label_header_from_images: bool = False,
    labels: str | None = None,
    processes: int = 1,
    progress: bool = False,
) -> Converted:
    """Convert all cases that can be, as ``d2net convert`` does; go on where an earlier run of the source has stopped.

    Args:
        source: Folder that holds the cases, at any depth; it is only read.
        dataset_id: nnU-Net's number of the data set, 1 to 999.
        name: The folder is ``DatasetXXX_NAME``.
        raw: nnU-Net's folder of raw data sets; None for ``nnUNet_raw``.
        layout: Name of a known layout, path of a mapping file, or ``auto``.
        test: A second folder of the same layout, whose cases are all for testing.
        link: Link to images that need no change instead of copying them.
        resample: Resample images that lie elsewhere than the others of their case, instead of refusing the case.
        nan_outside_as_zero: Take NaN outside an image's field of view as 0, instead of refusing the case.
        label_header_from_images: Put segmentations that lie elsewhere than the images of their case, but have as many
            voxels, onto the images' grid as they are.
        labels: The layout of BraTS whose label values the files have, whatever their names say.
        processes: How many cases at a time; with 1 no process is started.
        progress: Show a bar.

    Raises:
        UserError: The source is not usable at all, the folder is another data set's or is being converted by another
            process, the disk is too small or full, or a process was killed. Whatever was converted stays, and the same
            call goes on with it.
    """
    root = Path(raw) if raw else folder_of("nnUNet_raw")
    folder = root / dataset_folder_name(dataset_id, name)
    refuse_taken_number([root], folder.name)
    sources = {"Tr": Path(source)} | ({"Ts": Path(test)} if test else {})
    known, contents = _look_into(sources["Tr"], sources.get("Ts"), layout, labels)
    how = Leniency(resample, nan_outside_as_zero, label_header_from_images)
    convert = partial(convert_case, layout=known, folder=folder, how=how, link=link)
    with locked_folder(folder), explaining_disk_errors(folder):
        refuse_taken_number([root], folder.name)  # again: another conversion may just have begun
        record = open_record(folder, known, sources)
        pending = [case for case in contents.cases if not record.is_complete(case)]
        _open_folder(record, contents, pending, link=link)
        n_done = len(contents.cases) - len(pending)
        results = run_all(convert, pending, processes, title=folder.name, n_done=n_done, progress=progress)
        problems = [*contents.problems, *_take_in(record, (report for _, report in results))]
        record.finish({problem.case: problem.line for problem in problems})
        vanished = sorted(record.cases.keys() - {case.name for case in contents.cases})
        converted = Converted(known, record.reports(), sorted(problems), contents.stray, folder, n_done, vanished)
        _finish(converted)
    return converted


def _look_into(source: Path, test: Path | None, layout: str, labels: str | None) -> tuple[Layout, Contents]:
    """Recognize a source and list its cases; refuse labels of unknown meaning before any image is read."""
    known = layout_of(source, layout, labels)
    contents = find_cases(known, source, test)
    refuse_foreign_labels(source, known, ((case.name, label_values(case)) for case in contents.cases))
    return known, contents


def _space_for(cases: Sequence[SourceCase], folder: Path, *, link: bool) -> Space:
    """Estimate the space that cases need on a disk, and ask how much is free."""
    needed = 0.0
    for path in (path for case in cases for path in case.files()):
        size = path.stat().st_size
        plain = path.name.lower().endswith(".nii")
        needed += size * _PLAIN_SHARE if plain else 0 if link else size
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return Space(folder, int(needed), shutil.disk_usage(existing).free)


def _open_folder(record: Record, contents: Contents, pending: Sequence[SourceCase], *, link: bool) -> None:
    """Make the folders; take out of an existing data set what is to be converted again or has become unusable."""
    if pending:
        _space_for(pending, record.folder, link=link).check()
    record.touch()
    stale = [*(case.name for case in pending), *(problem.case for problem in contents.problems)]
    if pending or any(name in record.cases for name in stale):
        (record.folder / "dataset.json").unlink(missing_ok=True)  # it would describe other cases than there are
    for name in _SUBFOLDERS:
        (record.folder / name).mkdir(exist_ok=True)
    for name in stale:
        record.remove(name)


def _take_in(record: Record, reports: Iterable[CaseReport]) -> Iterator[Problem]:
    """Note the cases that are complete; yield what is wrong with the others."""
    for report in reports:
        if report.problem:
            yield report.problem
        else:
            record.add(report)


def _finish(converted: Converted) -> None:
    """Remove what processes that were killed have left, and empty folders; describe the data set."""
    folder, layout = converted.folder, converted.layout
    for name in _SUBFOLDERS:
        shutil.rmtree(folder / name / UNFINISHED, ignore_errors=True)
    for name in ("imagesTs", "labelsTs"):
        with suppress(OSError):  # which it raises where there is a file in it
            (folder / name).rmdir()
    if converted.n_train:
        content = {
            "name": folder.name,
            "description": f"Converted from {layout.title}.",
            "channel_names": {str(channel): name for channel, name in enumerate(layout.modalities)},
            **layout.scheme.described({value for report in converted.reports for value in report.voxels}),
            "numTraining": converted.n_train,
            "file_ending": ENDING,
        }
        # Last: without it nnU-Net refuses the folder, so a data set that it accepts is complete.
        write_json(folder / "dataset.json", content)
