"""The training cases of a raw data set: which there are, and whether each can be used."""

import contextlib
import functools
import io
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from nnunetv2_d2net.base.dataset import CaseFiles, Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import file_state, read_json_or, write_json
from nnunetv2_d2net.base.images import ROUNDED, Image, ImageError, differences, label_counts, read_image
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.base.text import counted, listed
from nnunetv2_d2net.plugin.preprocessing.cohort import changed_since
from nnunetv2_d2net.plugin.preprocessing.reading import CaseImages, read_case

CHECKED = "d2net_checked.json"
"""Beside the plans: of which raw files the training cases were found in order."""

_LOG = logging.getLogger("nnunetv2_d2net")

T = TypeVar("T")


class TrainingCase(NamedTuple):
    """One case as read.

    Attributes:
        read: Its images.
        label: Its segmentation, ``(1, *spatial)``, whole numbers that the data set knows.
    """

    read: CaseImages
    label: Image


def training_cases(folder: Path, dataset: Dataset) -> dict[str, CaseFiles]:
    """List the cases that nnU-Net trains on, with what is wrong about their names.

    Args:
        folder: Of the raw data set.
        dataset: What its dataset.json says.

    Raises:
        UserError: ``imagesTr`` cannot be read, or there is no case.
    """
    is_listed = "dataset" in dataset.content
    cases = dataset.cases(folder, "Tr") if is_listed else _cases_of_folder(folder, dataset)
    if not cases:
        raise UserError(f"{folder} has no training case: put images into imagesTr and segmentations into labelsTr")
    return name_problems(cases, dataset)


def _cases_of_folder(folder: Path, dataset: Dataset) -> dict[str, CaseFiles]:
    """Cases by nnU-Net's rule: every file of ``imagesTr`` is CASE_XXXX; labels without images are passed over."""
    ending, images, strays = dataset.file_ending, dict[str, list[str]](), dict[str, list[str]]()
    try:
        names = sorted(path.name for path in (folder / "imagesTr").iterdir())
    except OSError as error:
        raise UserError(f"{folder / 'imagesTr'} cannot be read ({error.strerror}): put the images there") from error
    for name in names:
        if name.lower().endswith(ending.lower()):
            match = re.fullmatch(r"(.+)_\d{4}", name[: -len(ending)], re.DOTALL)
            case = match[1] if match else re.sub(r"_\d*$", "", name[: -len(ending)])
            kind = images if match and name.endswith(ending) else strays
            kind.setdefault(case, []).append(str(folder / "imagesTr" / name))
    cases = {}
    for case in sorted(images | strays):
        label, problem = folder / "labelsTr" / f"{case}{ending}", ""
        if case in strays:
            first, *others = strays[case]
            more = f" (and {counted(len(others), 'file')} more like it)" if others else ""
            stem = Path(first).name[: -len(ending)]
            name = f"{stem}{ending}" if re.search(r"_\d{4}$", stem) else f"{case}_0000{ending} or the like"
            problem = (
                f"{first}{more} is not CASE_XXXX{ending}, XXXX being four digits, so nnU-Net does not see it: "
                f"name it {name}"
            )
        elif not label.is_file():
            problem = f"{label} is not there: add it, or take the case's images out of imagesTr"
        cases[case] = CaseFiles(tuple(images.get(case, ())), str(label), problem)
    alone = [case for case in dataset.segmentations(folder / "labelsTr") if case not in cases]
    if alone:
        _LOG.warning("no image in imagesTr, so not trained on: %s of labelsTr", listed(alone))
    return cases


def name_problems(cases: dict[str, CaseFiles], dataset: Dataset) -> dict[str, CaseFiles]:
    """Refuse incomplete cases whose files cannot be told apart.

    nnU-Net takes the files of a case in their order, whatever they are called. Only where that is what the names say,
    too, a name tells which modality a file of an incomplete case holds.

    Args:
        cases: By name.
        dataset: What its dataset.json says.

    Returns:
        The cases, with this problem where they have it and no other.
    """
    n = len(dataset.channels)
    named, numbers = dataset.numbers, {case: _numbers(files, dataset) for case, files in cases.items()}
    odd = [case for case, files in cases.items() if len(files.images) == n and numbers[case] != list(named)]
    if not odd:
        return cases
    problem = (
        f"its files cannot be told apart: they are not {n}, and names do not count, as those of {odd[0]!r} are not "
        f"numbered {', '.join(f'{number:04d}' for number in named)} in their order: name all files CASE_XXXX so"
    )
    return {
        case: files if files.problem or len(files.images) == n else files._replace(problem=problem)
        for case, files in cases.items()
    }


def _numbers(files: CaseFiles, dataset: Dataset) -> list[int]:
    stems = [Path(file).name.removesuffix(dataset.file_ending) for file in files.images]
    return [int(stem[-4:]) if re.search(r"_\d{4}$", stem) else -1 for stem in stems]


def channels_in_training(files: CaseFiles, dataset: Dataset) -> list[int]:
    """Tell which modality each file of a training case holds: where there are all, nnU-Net's order decides.

    Raises:
        UserError: Fewer files that do not say it.
    """
    n_modalities = len(dataset.channels)
    complete = len(files.images) == n_modalities
    return list(range(n_modalities)) if complete else dataset.assign_channels(files.images)


def read_training_case(files: CaseFiles, reader: type[BaseReaderWriter], dataset: Dataset) -> TrainingCase:
    """Read and check one training case.

    Raises:
        UserError: A file cannot be used, or images and segmentation differ in size or spacing.
    """
    if files.problem:
        raise UserError(files.problem)
    read = read_case(files.images, reader(), len(dataset.channels), channels=channels_in_training(files, dataset))
    label = read_label(files.label or "", reader(), dataset)
    ways = differences(label, Image(Path(files.images[0]), read.images, read.properties), ROUNDED)
    wrong = [way for way in ways if way.startswith(("shape", "spacing"))]
    if wrong:
        raise UserError(
            f"{files.label} and {files.images[0]} differ in {' and '.join(wrong)}: resample them onto each other"
        )
    if ways:  # as nnU-Net's check has it: told, for the voxels count
        _LOG.warning(
            "%s lies elsewhere than %s by its header, %s; voxels are taken in their order: see that they fit",
            *(files.label, files.images[0], ", ".join(ways)),
        )
    return TrainingCase(read, label)


def read_label(path: Path | str, reader: BaseReaderWriter, dataset: Dataset) -> Image:
    """Read the segmentation of a training case as whole numbers.

    Raises:
        ImageError: It cannot be read, or holds NaN, fractions or values that dataset.json does not know.
    """
    label = read_image(path, reader.read_seg, is_label=True)
    known = dataset.known_values
    unknown = [value for value in label_counts(path, label.voxels) if value not in known]
    if unknown:
        reason = f"holds label values that dataset.json does not know ({listed(unknown)})"
        raise ImageError(path, "labels", reason, f"it knows {listed(known, 20)}; mend the label, or name them there")
    return label._replace(voxels=np.rint(label.voxels)) if label.voxels.dtype.kind == "f" else label


def reader_of(dataset: Dataset, images: Sequence[str]) -> type[BaseReaderWriter]:
    """Choose nnU-Net's reader as nnU-Net does, by an image that it tries to read: the first that is not damaged.

    Raises:
        UserError: nnU-Net has none for such files, or none of the name that dataset.json asks for: nnU-Net would choose
            another, which may turn the images otherwise.
    """
    content = dict(dataset.content)
    named, found = content.get("overwrite_image_reader_writer", "None"), None
    for example in (*images, None):  # without an example nnU-Net goes by the file ending
        # it prints every reader's traceback
        with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
            found = determine_reader_writer_from_dataset_json(content, example, verbose=False)  # pyright: ignore[reportArgumentType]
            break
    if named not in ("None", getattr(found, "__name__", "")):
        raise UserError(
            f'{dataset.source}: "overwrite_image_reader_writer" is {named!r}, which is no reader of nnU-Net: '
            "name one, such as SimpleITKIO, or leave it out"
        )
    if found is not None:
        return found
    raise UserError(
        f"{dataset.source}: nnU-Net has no reader for {dataset.file_ending}: "
        "mend file_ending or overwrite_image_reader_writer"
    )


def lean(dataset: Dataset) -> Dataset:
    """Leave out what may list all files, so that little goes to a process with every case."""
    return replace(dataset, content={})


def images_of(cases: Mapping[str, CaseFiles]) -> list[str]:
    """List the images of all cases."""
    return [file for files in cases.values() for file in files.images]


def for_each_case(
    work: Callable[[CaseFiles], T],
    cases: Mapping[str, CaseFiles],
    processes: int,
    title: str = "check",
    *,
    progress: bool = False,
) -> dict[str, T]:
    """Do something with every training case.

    Args:
        work: Can be pickled.
        cases: By name.
        processes: Cases at a time.
        title: Of the bar.
        progress: Show a bar.

    Raises:
        UserError: Cases that cannot be used, after each has been logged with its reason.
    """
    attempt = functools.partial(_attempt, work)
    results = dict(run_all(attempt, list(cases.items()), processes, title=title, progress=progress))
    by_name = {name: results[name, files] for name, files in cases.items()}
    problems = {name: problem for name, (problem, _) in by_name.items() if problem}
    for name, problem in problems.items():
        _LOG.error("training case %r: %s", name, problem)
    if problems:
        raise UserError(
            f"{len(problems)} of {len(cases)} training cases cannot be used ({listed(list(problems))}): "
            "mend what is said above, or take their files out of imagesTr and labelsTr"
        )
    return {name: result for name, (_, result) in by_name.items()}


def _attempt(work: Callable[[CaseFiles], T], item: tuple[str, CaseFiles]) -> tuple[str, Any]:
    try:
        return "", work(item[1])
    except UserError as error:
        return str(error), None


def check_training_cases(
    folder: Path,
    dataset: Dataset,
    reader: type[BaseReaderWriter],
    note: Path,
    processes: int,
    *,
    progress: bool = False,
) -> None:
    """Check every training case, unless a note says that these very files were in order; write this note.

    Args:
        folder: Of the raw data set.
        dataset: What its dataset.json says.
        reader: nnU-Net's.
        note: :data:`CHECKED` in the folder of preprocessed data.
        processes: Cases at a time.
        progress: Show a bar.

    Raises:
        UserError: Cases that cannot be used, after each has been logged with its reason.
    """
    cases = training_cases(folder, dataset)
    state = state_of(folder, dataset, cases)
    before = read_json_or(note, {})
    if {key: before.get(key) for key in state} == state:
        return
    for_each_case(
        functools.partial(check_one, reader=reader, dataset=lean(dataset)), cases, processes, progress=progress
    )
    write_json(note, state, indent=None)


def check_one(files: CaseFiles, reader: type[BaseReaderWriter], dataset: Dataset) -> None:
    """Check one training case, and return nothing, so that no voxels travel between processes.

    Raises:
        UserError: It cannot be used.
    """
    read_training_case(files, reader, dataset)


def state_of(folder: Path, dataset: Dataset, cases: Mapping[str, CaseFiles]) -> dict[str, Any]:
    """Say by which files, of which sizes and times, and by which channels and labels the cases are known."""
    return {
        "channels": list(dataset.channels),
        "labels": list(dataset.known_values),
        "files": {
            case: {os.path.relpath(file, folder): file_state(Path(file)) for file in (*files.images, files.label or "")}
            for case, files in cases.items()
        },
    }


def sizes_of(folder: Path, cases: Mapping[str, CaseFiles]) -> dict[str, dict[str, int]]:
    """Return the size of each file of each case, by path below the data set's folder; of those that are there."""
    return {
        case: {
            os.path.relpath(file, folder): state[0]
            for file in (*files.images, files.label or "")
            if (state := file_state(Path(file)))
        }
        for case, files in cases.items()
    }


def check_unchanged(data: Path, raw: Path, remedy: str) -> None:
    """Refuse preprocessed data that were made from other raw files than those that are there now.

    Args:
        data: Folder of the preprocessed cases.
        raw: Of the raw data set; where it is not there, nothing is compared.
        remedy: What to do.

    Raises:
        UserError: They were.
    """
    if not (raw / "dataset.json").is_file():
        return
    changed = changed_since(data, sizes_of(raw, training_cases(raw, Dataset.read(raw / "dataset.json"))))
    if changed:
        raise UserError(f"{raw} has changed since {data} was preprocessed ({listed(changed)}): {remedy}")
