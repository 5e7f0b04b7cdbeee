"""nnU-Net's planning and preprocessing, for data sets whose cases may lack modalities."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import nnunetv2
from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin import seams
from nnunetv2_d2net.plugin.planning import planner as ours
from nnunetv2_d2net.plugin.planning.fingerprint import D2NetFingerprintExtractor
from nnunetv2_d2net.plugin.preprocessing.preprocessor import MissingModalityPlansManager
from nnunetv2_d2net.plugin.preprocessing.reading import read_case


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
def incomplete_cases(planner: str) -> Iterator[str]:
    """Let nnU-Net's commands plan with a planner of this package, and read and preprocess cases as they are.

    Args:
        planner: Its name.

    Yields:
        Name of the fingerprint extractor to use, for ``-fpe``.
    """
    with (
        seams.planner_seam(getattr(ours, planner)),
        seams.fingerprint_seam(D2NetFingerprintExtractor),
        seams.integrity_seam(check_case),
        seams.plans_seam(MissingModalityPlansManager),
    ):
        yield D2NetFingerprintExtractor.__name__


def check_case(image_files: Sequence[str], label_file: str, n_modalities: int, reader: type[BaseReaderWriter]) -> bool:
    """Check one case as nnU-Net does, but for the number of its images.

    Args:
        image_files: Those it has.
        label_file: Its segmentation.
        n_modalities: M.
        reader: nnU-Net's.

    Returns:
        False if something is wrong, which is printed.
    """
    try:
        read_case(image_files, reader(), n_modalities)
    except UserError as error:
        print(f"Error: {error}")  # noqa: T201 - beside what nnU-Net prints
        return False
    return check_cases(list(image_files), label_file, len(image_files), reader)
