"""What the commands share that plan and preprocess."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nnunetv2_d2net.base.dataset import Dataset, folder_of
from nnunetv2_d2net.base.errors import UsageError, UserError
from nnunetv2_d2net.base.files import locked_folder, read_json_or
from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.cli._checks import dataset_folder
from nnunetv2_d2net.cli._words import value_of, values_of
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


def plans_of(words: Sequence[str]) -> str:
    """Return the plans that a planner writes; empty where only nnU-Net knows."""
    planner = value_of(words, "-pl", "D2NetPlanner")
    own = f"{planner.removesuffix('Planner')}Plans" if re.fullmatch(r"D2Net\w*Planner", planner) else ""
    return value_of(words, "-overwrite_plans_name", own)


def check_preprocessed_for(datasets: Iterable[Path], words: Sequence[str]) -> None:
    """Say which configurations of ``-c`` the new plans do not have, which nnU-Net leaves out.

    Args:
        datasets: Folders of the raw data.
        words: Of the command that has planned and preprocessed.

    Raises:
        UserError: None of them, so nothing was preprocessed.
    """
    wanted, plans = values_of(words, "-c") or (), plans_of(words)
    for folder in datasets if wanted and plans and "--no_pp" not in words else ():
        file = folder_of("nnUNet_preprocessed") / folder.name / f"{plans}.json"
        planned = read_json_or(file, {}).get("configurations", {})
        there = ", ".join(planned)
        if planned and not set(wanted) & set(planned):
            absent = " or ".join(wanted)
            raise UserError(f"{file} has no configuration {absent}, so nothing was preprocessed: it has {there}")
        for configuration in (name for name in wanted if planned and name not in planned):
            _LOG.warning("%s has no configuration %s, so nothing is preprocessed for it", file, configuration)


def refuse_one_modality(datasets: dict[Path, Dataset]) -> None:
    """Refuse data sets that have nothing to be missing.

    Raises:
        UserError: There is one.
    """
    for folder, dataset in datasets.items():
        remedy = "plan with -pl ExperimentPlanner and train nnUNetTrainer"
        check_modalities(dataset.channels, folder / "dataset.json", remedy)
