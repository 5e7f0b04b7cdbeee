"""The trainers of a benchmark: whether they exist, and whether they train alike."""

import contextlib
import difflib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json_or
from nnunetv2_d2net.plugin.registration import TRAINERS_VARIABLE, nnunet_folder
from nnunetv2_d2net.plugin.training import variants
from nnunetv2_d2net.study.benchmark.setup import Setup
from nnunetv2_d2net.study.pipeline import Trainer, passing_trainer

ARMS = ("nnUNetTrainer", "nnUNetTrainerModalityDropout", "D2NetTrainer")

_COMPARED = {
    "epochs": "epochs",
    "steps_per_epoch": "steps per epoch",
    "batch_size": "batch size",
    "patch_size": "patch",
}


def check_arms(arms: Sequence[str]) -> None:
    """Refuse a trainer that nnU-Net would not find, or one that is named twice.

    Raises:
        UserError: There is no such trainer; near names are listed.
    """
    for arm in arms:
        if not hasattr(variants, arm) and not _is_found_by_nnunet(arm):
            near = difflib.get_close_matches(arm, sorted(_trainer_files()), n=4, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"for instance {', '.join(ARMS)}"
            raise UserError(f"no trainer is called {arm}: {hint} (folders of your own go into {TRAINERS_VARIABLE})")
    twice = [arm for arm in arms if list(arms).count(arm) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice: name each arm once")


def describe_arms(setup: Setup) -> list[dict[str, Any]]:
    """Say how each arm trains: what its training noted, or what its trainer says before one."""
    shared = {"plans": setup.plans, "folds": list(setup.folds)}
    return [{"name": arm, **shared, **_schedule(setup, arm)} for arm in setup.arms]


def differences(arms: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line for each setting in which arms differ.

    Example:
        >>> differences([{"name": "A", "epochs": 10}, {"name": "B", "epochs": 20}])
        ['epochs differ: A 10, B 20']
    """
    lines = []
    for key, title in _COMPARED.items():
        values = {arm["name"]: arm[key] for arm in arms if arm.get(key) is not None}
        if len(set(map(str, values.values()))) > 1:
            lines.append(f"{title} differ: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    return lines


def schedule_of(trainer: Trainer) -> dict[str, Any]:
    """Return how a trainer trains: epochs, steps, batch and patch."""
    configuration = trainer.configuration_manager
    return {
        "epochs": trainer.num_epochs,
        "steps_per_epoch": trainer.num_iterations_per_epoch,
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
    }


def training_note(setup: Setup, arm: str, fold: str) -> Path:
    """Return the file in which a training says how it trained."""
    return setup.out / arm / f"training_fold_{fold}.json"


def _schedule(setup: Setup, arm: str) -> dict[str, Any]:
    if noted := read_json_or(training_note(setup, arm, setup.folds[0]), {}):
        return noted
    with passing_trainer(setup.model(arm), setup.folds[0], torch.device(setup.device)) as trainer:
        return schedule_of(trainer)


def _trainer_files() -> set[str]:
    """Name this package's trainers, and files of nnU-Net's and of the user's, most of which are called like theirs."""
    folders = [nnunet_folder() / "training" / "nnUNetTrainer"]
    folders += [Path(folder) for folder in os.environ.get(TRAINERS_VARIABLE, "").split(os.pathsep) if folder]
    return set(variants.__all__) | {path.stem for folder in folders for path in folder.rglob("*.py")}


def _is_found_by_nnunet(arm: str) -> bool:
    """Let nnU-Net look for a trainer, which imports its files and those of the user."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            recursive_find_trainer_class_by_name(arm)
    except RuntimeError as error:
        if not str(error).startswith("Could not find requested nnunet trainer"):
            raise
        return False
    return True
