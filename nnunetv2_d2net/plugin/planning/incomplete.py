"""nnU-Net's planning and preprocessing, for data sets whose cases may lack modalities."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import nnunetv2
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.plugin import seams
from nnunetv2_d2net.plugin.planning import planner as ours
from nnunetv2_d2net.plugin.planning.fingerprint import D2NetFingerprintExtractor
from nnunetv2_d2net.plugin.planning.plans import check_count
from nnunetv2_d2net.plugin.preprocessing.preprocessor import MissingModalityPlansManager
from nnunetv2_d2net.plugin.preprocessing.training_cases import (
    check_one,
    for_each_case,
    images_of,
    lean,
    reader_of,
    training_cases,
)


def is_our_planner(name: str) -> bool:
    """Tell whether a planner is one of this package's, or else nnU-Net's.

    Raises:
        UserError: It is neither.
    """
    if name in ours.__all__:
        return True
    folder = f"{nnunetv2.__path__[0]}/experiment_planning"
    if recursive_find_python_class(folder, name, "nnunetv2.experiment_planning") is None:
        raise UserError(f"no planner is called {name}: pass -pl with nnU-Net's, or one of {', '.join(ours.__all__)}")
    return False


@contextmanager
def incomplete_cases(planner: str | None = None) -> Iterator[str]:
    """Let nnU-Net's commands plan with a planner of this package, and read, check and preprocess cases as they are.

    Args:
        planner: Its name; None where none plans.

    Yields:
        Name of the fingerprint extractor to use, for ``-fpe``.
    """
    with (
        nullcontext() if planner is None else seams.planner_seam(getattr(ours, planner)),
        seams.fingerprint_seam(D2NetFingerprintExtractor),
        seams.integrity_seam(check_integrity),
        seams.plans_seam(MissingModalityPlansManager),
    ):
        yield D2NetFingerprintExtractor.__name__


def check_integrity(folder: str, num_processes: int = 8) -> None:
    """Check a raw data set as nnU-Net does, but for the number of a case's images.

    Args:
        folder: Of the raw data set.
        num_processes: Cases at a time.

    Raises:
        UserError: dataset.json counts other cases or numbers labels with gaps, or a case cannot be used.
    """
    path = Path(folder) / "dataset.json"
    dataset = Dataset.read(path)
    cases, expected = training_cases(Path(folder), dataset), dataset.content.get("numTraining")
    if expected != len(cases):
        raise UserError(f'{path}: "numTraining" is {expected}, and there are {len(cases)} training cases: correct it')
    values = dataset.known_values
    if values != tuple(range(len(values))):
        raise UserError(f'{path}: "labels" are not numbered from 0 without gaps ({listed(values, 20)}): renumber them')
    work = partial(check_one, reader=reader_of(dataset, images_of(cases)), dataset=lean(dataset))
    for_each_case(work, cases, num_processes, progress=True)


def check_complete(folder: Path, dataset: Dataset) -> None:
    """Refuse what nnU-Net's own planners cannot do with: incomplete cases, and channels out of order.

    Raises:
        UserError: There are incomplete cases, or some whose files cannot be told apart, or dataset.json does not say
            how many there are, or names channels in another order than that of their numbers.
    """
    check_count(dataset.content, dataset.source)
    given = dataset.content.get("channel_names", dataset.content.get("modality", {}))
    if tuple(given.values()) != dataset.channels:
        raise UserError(
            f'{dataset.source}: "channel_names" are no texts in the order of their numbers, by which nnU-Net\'s own '
            "planners choose normalizations: write them so"
        )
    cases = training_cases(folder, dataset)
    numbers = Counter(len(files.images) for files in cases.values())
    usual = max(numbers)
    odd = [case for case, files in cases.items() if len(files.images) != usual or files.problem]
    if odd:
        raise UserError(
            f"{folder} has cases that lack images ({listed(odd)}), with which nnU-Net's own planners cannot do: "
            "plan with -pl D2NetPlanner"
        )
