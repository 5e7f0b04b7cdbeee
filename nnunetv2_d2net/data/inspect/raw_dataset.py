"""The cases of a raw data set of nnU-Net's, complete or not."""

from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunetv2_d2net.base.case_files import find_cases
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import modality_names
from nnunetv2_d2net.plugin.preprocessing.reading import last_line
from nnunetv2_d2net.study.scores.subset_table import regions_of


class CaseFiles(NamedTuple):
    """Files of one case.

    Attributes:
        images: Those there are.
        label: Of its segmentation; None if there is none.
        problem: Why its images cannot be told apart; empty if they can.
    """

    images: tuple[str, ...]
    label: str | None
    problem: str = ""


class RawCohort(NamedTuple):
    """What a raw data set says of itself.

    Attributes:
        names: M names of the modalities.
        regions: Label values of each class or region.
        known_values: Label values that may occur, background and ignored ones included.
        ignore: Value of voxels without an annotation; None if there is no such.
        reader: nnU-Net's.
        cases: Files by case, sorted.
        labeled: A segmentation is expected for every case.
    """

    names: list[str]
    regions: dict[str, tuple[int, ...]]
    known_values: tuple[int, ...]
    ignore: int | None
    reader: type[BaseReaderWriter]
    cases: dict[str, CaseFiles]
    labeled: bool


def open_cohort(folder: Path, dataset_json: dict[str, Any], split: str) -> RawCohort:
    """Find the cases of one split.

    Args:
        folder: ``DatasetXXX_NAME``.
        dataset_json: Content of its dataset.json.
        split: ``Tr`` or ``Ts``.

    Raises:
        UserError: dataset.json lacks something, or there is no image.
    """
    lacking = [key for key in ("labels", "file_ending") if key not in dataset_json]
    if lacking:
        raise UserError(f"{folder / 'dataset.json'} lacks {' and '.join(lacking)}: add it as nnU-Net's format says")
    names, regions = modality_names(dataset_json), regions_of(dataset_json)
    ignore = dataset_json["labels"].get("ignore")
    cases = _find(folder, dataset_json, split, len(names))
    example = next((files.images[0] for files in cases.values() if files.images and not files.problem), None)
    if example is None:
        raise UserError(f"{folder / f'images{split}'} holds no image that can be used: {_first_problem(cases)}")
    known = {0, *(value for values in regions.values() for value in values)} | ({ignore} - {None})
    labeled = split == "Tr" or any(files.label for files in cases.values())
    reader = _reader(folder, dataset_json, example)
    return RawCohort(names, regions, tuple(sorted(known)), ignore, reader, dict(sorted(cases.items())), labeled)


def _find(folder: Path, dataset_json: dict[str, Any], split: str, n_modalities: int) -> dict[str, CaseFiles]:
    if split == "Tr" and "dataset" in dataset_json:  # its own list of files, which may lie anywhere
        listed = get_filenames_of_train_images_and_targets(str(folder), dataset_json)
        return {str(case): CaseFiles(tuple(files["images"]), files["label"]) for case, files in listed.items()}
    ending = dataset_json["file_ending"]
    found = find_cases(folder / f"images{split}", ending, n_modalities)
    labels = {
        path.name.removesuffix(ending): str(path)
        for path in (folder / f"labels{split}").glob(f"*{ending}")
        if not path.name.startswith(".")
    }
    cases = {case: CaseFiles(tuple(files), labels.get(case)) for case, files in found.files.items()}
    cases |= {case: CaseFiles((), labels.get(case), problem) for case, problem in found.problems.items()}
    return {case: CaseFiles((), label) for case, label in labels.items()} | cases


def _first_problem(cases: dict[str, CaseFiles]) -> str:
    return next((files.problem for files in cases.values() if files.problem), "add images")


def _reader(folder: Path, dataset_json: dict[str, Any], example: str) -> type[BaseReaderWriter]:
    try:
        return determine_reader_writer_from_dataset_json(dataset_json, example, verbose=False)
    except Exception as error:  # nnU-Net asserts, or raises what it likes
        raise UserError(
            f"{folder / 'dataset.json'}: nnU-Net has no reader for {example} ({last_line(error)}): mend file_ending or "
            "overwrite_image_reader_writer"
        ) from error
