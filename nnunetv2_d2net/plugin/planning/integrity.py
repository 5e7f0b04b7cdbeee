"""nnU-Net's check of a training case, for cases that may lack modalities."""

from collections.abc import Sequence

from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.reading import read_case


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
