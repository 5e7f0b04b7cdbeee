"""A trained model's folder, looked at before nnU-Net unpickles its checkpoints and calls what its plans name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.base.text import last_line
from nnunetv2_d2net.plugin.checkpoints import read_folds
from nnunetv2_d2net.plugin.planning.plans import MISSING_IN_MODEL, check_networks
from nnunetv2_d2net.plugin.training.same_plans import check_same_plans

UNUSABLE = (RuntimeError, AssertionError, TypeError, ValueError, LookupError, AttributeError)
"""What nnU-Net and torch raise where files do not belong together."""

_OF_ITS_TRAINING = (
    "train this fold anew, or put plans.json and dataset.json of its training back into the model's folder"
)


def read_model(folder: Path, checkpoints: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the checkpoints of a model with which something can be predicted.

    Args:
        folder: ``TRAINER__PLANS__CONFIGURATION``.
        checkpoints: One of each fold.

    Returns:
        Their content.

    Raises:
        UserError: plans.json, dataset.json or a checkpoint is missing, damaged, hostile, or of another model.
    """
    plans = check_networks(folder / "plans.json")
    Dataset.read(folder / "dataset.json", MISSING_IN_MODEL)
    content = read_json(folder / "dataset.json", MISSING_IN_MODEL)
    if not checkpoints:
        raise UserError(f"{folder} has no fold with this checkpoint: finish the training, or name another checkpoint")
    folds = read_folds(checkpoints)
    configuration = folds[0]["init_args"]["configuration"]
    if configuration not in plans["configurations"]:
        raise UserError(
            f"{folder / 'plans.json'} has no configuration {configuration}, with which {checkpoints[0]} was trained: "
            f"{MISSING_IN_MODEL}"
        )
    for path, fold in zip(checkpoints, folds, strict=True):
        check_same_plans(path, fold["init_args"], plans, content, _OF_ITS_TRAINING)
    return folds


def unusable(folder: Path, checkpoint: Path, error: Exception) -> UserError:
    """Say why nnU-Net cannot build a model whose files are whole, each for itself.

    Args:
        folder: Of the model.
        checkpoint: The first one.
        error: nnU-Net's or torch's.
    """
    if "state_dict" in str(error):
        return UserError(
            f"{checkpoint} does not fit the network of {folder / 'plans.json'} and {folder / 'dataset.json'}: "
            "take all three from the same training"
        )
    if "requested nnunet trainer" in str(error):
        return UserError(
            f"{checkpoint} is of a trainer that nnU-Net does not find: "
            "set nnUNet_extTrainer to the folder that holds it, or install its package"
        )
    reason = f"{type(error).__name__}: {last_line(error)}"
    return UserError(
        f"{folder}: nnU-Net can build nothing from its plans.json and dataset.json ({reason}): {MISSING_IN_MODEL}"
    )
