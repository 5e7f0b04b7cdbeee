"""The trainers of a benchmark: whether they exist, and whether they train alike."""

import ast
import contextlib
import difflib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.registration import TRAINERS_VARIABLE, nnunet_folder
from nnunetv2_d2net.plugin.training import variants
from nnunetv2_d2net.study.benchmark.setup import Setup, read_json_or

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
    known = known_trainers()
    for arm in arms:
        if arm not in known and not _found_by_nnunet(arm):
            near = difflib.get_close_matches(arm, sorted(known), n=4, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"for instance {', '.join(ARMS)}"
            raise UserError(f"no trainer is called {arm}: {hint} (folders of your own go into {TRAINERS_VARIABLE})")
    twice = [arm for arm in arms if list(arms).count(arm) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice: name each arm once")


def known_trainers() -> set[str]:
    """List the trainers of nnU-Net, of this package, and of the folders that ``nnUNet_extTrainer`` names."""
    folders = [nnunet_folder() / "training" / "nnUNetTrainer"]
    folders += [Path(folder) for folder in os.environ.get(TRAINERS_VARIABLE, "").split(os.pathsep) if folder]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return set(variants.__all__) | {name for path in files for name in _classes(path)}


def describe_arms(setup: Setup) -> list[dict[str, Any]]:
    """Say how each arm trains: what its training noted, or what its trainer says before one."""
    return [_describe(setup, arm) for arm in setup.arms]


def differences(arms: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line for each setting in which arms differ.

    Example:
        >>> differences([{"name": "A", "epochs": 10}, {"name": "B", "epochs": 20}])
        ['epochs differ: A 10, B 20']
    """
    lines = []
    for key, words in _COMPARED.items():
        values = {arm["name"]: arm[key] for arm in arms if arm.get(key) is not None}
        if len(set(map(str, values.values()))) > 1:
            lines.append(f"{words} differ: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    return lines


def facts_of(trainer: Any) -> dict[str, Any]:  # noqa: ANN401 - nnU-Net's trainer
    """Return how a trainer trains: epochs, steps, batch and patch."""
    configuration = trainer.configuration_manager
    return {
        "epochs": trainer.num_epochs,
        "steps_per_epoch": trainer.num_iterations_per_epoch,
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
    }


def use_device(device: torch.device) -> None:
    """Set torch up as nnU-Net's command does for a training on this device."""
    if device.type == "cuda":
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True


@contextlib.contextmanager
def trainer_of(setup: Setup, arm: str) -> Iterator[Any]:
    """Construct a trainer whose files go to a folder that nobody keeps."""
    before = {name: os.environ.get(name) for name in ("nnUNet_results", "nnUNet_wandb_enabled")}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.environ.update(nnUNet_results=folder, nnUNet_wandb_enabled="0")
        fold = setup.folds[0]
        try:
            yield get_trainer_from_args(
                setup.dataset,
                setup.configuration,
                fold if fold == "all" else int(fold),  # pyright: ignore[reportArgumentType] - nnU-Net takes both
                arm,
                setup.plans,
                device=torch.device(setup.device),
            )
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _describe(setup: Setup, arm: str) -> dict[str, Any]:
    description = {"name": arm, "plans": setup.plans, "folds": list(setup.folds)}
    noted = [read_json_or(training_note(setup, arm, fold), None) for fold in setup.folds]
    if noted[0]:
        return description | noted[0]
    with trainer_of(setup, arm) as trainer:
        return description | facts_of(trainer)


def training_note(setup: Setup, arm: str, fold: str) -> Path:
    """Return the file in which a finished training says how it trained."""
    return setup.out / arm / f"training_fold_{fold}.json"


def _found_by_nnunet(arm: str) -> bool:
    """Look for a trainer that no class statement names; this imports the files of nnU-Net and of the user."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            recursive_find_trainer_class_by_name(arm)
    except RuntimeError as error:
        if not str(error).startswith("Could not find requested nnunet trainer"):
            raise
        return False
    return True


def _classes(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
