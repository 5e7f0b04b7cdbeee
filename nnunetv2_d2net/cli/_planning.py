"""What the commands share that plan and preprocess."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nnunetv2_d2net.base.dataset import Dataset, folder_of
from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.cli._checks import dataset_folder
from nnunetv2_d2net.cli._words import values_of
from nnunetv2_d2net.plugin.planning.plans import check_modalities

_LOG = logging.getLogger("nnunetv2_d2net")


def data_sets(command: str, words: Sequence[str]) -> dict[Path, Dataset]:
    """Read the data sets that ``-d`` names.

    Args:
        command: Ours.
        words: Its arguments.

    Returns:
        What each dataset.json says, by the folder of the raw data.

    Raises:
        UserError: None is named, one is not there, or a variable is not set.
    """
    numbers = values_of(words, "-d")
    if not numbers:
        raise UsageError(f"no data set given: d2net {command} -d ID")
    folder_of("nnUNet_preprocessed")
    folders = [dataset_folder(number, "nnUNet_raw", "it needs the raw data") for number in numbers]
    return {folder: Dataset.read(folder / "dataset.json") for folder in folders}


@contextmanager
def writing_preprocessed(datasets: Mapping[Path, Dataset], done: str) -> Iterator[None]:
    """Let one process at a time plan and preprocess a data set, and say at its end of how many cases it was.

    Args:
        datasets: By the folder of the raw data.
        done: What is done with the cases, in a word or two.

    Raises:
        UserError: Another process does.
    """
    with ExitStack() as locks:
        for folder in datasets:
            locks.enter_context(locked_folder(folder_of("nnUNet_preprocessed") / folder.name))
        yield
    for folder, dataset in datasets.items():
        _LOG.info("%s: %s %s", folder.name, counted(len(dataset.training_cases(folder)), "training case"), done)


def refuse_one_modality(datasets: dict[Path, Dataset]) -> None:
    """Refuse data sets that have nothing to be missing.

    Raises:
        UserError: There is one.
    """
    for folder, dataset in datasets.items():
        remedy = "plan with -pl ExperimentPlanner and train nnUNetTrainer"
        check_modalities(dataset.channels, folder / "dataset.json", remedy)
