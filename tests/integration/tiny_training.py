"""Trainers whose steps take a few hundredths of a second."""

import json
import random
from copy import deepcopy

import numpy as np
import torch

from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.conftest import REGIONS_3D
from tests.integration.conftest import read_plans

FEATURES = (4, 6, 8)
PATCH = (4, 16, 16)


def tiny_settings(plans) -> dict:
    """What makes the plans' network and patches tiny."""
    architecture = deepcopy(plans["configurations"]["3d_fullres"]["architecture"])
    architecture["arch_kwargs"]["features_per_stage"] = list(FEATURES)
    return {"architecture": architecture, "patch_size": list(PATCH)}


def make_tiny_trainer(root, trainer=D2NetTrainer, *, seed=0, device="cpu"):
    """Construct a trainer on them as nnU-Net does; everything random follows from the seed, if there is one."""
    plans = read_plans(root, REGIONS_3D, "D2NetPlans") | {"continue_training": False}
    plans["configurations"]["3d_fullres"].update(tiny_settings(plans))
    dataset_json = json.loads(
        (root / "preprocessed" / REGIONS_3D.folder_name / "dataset.json").read_text(encoding="utf-8")
    )
    if seed is not None:
        seed_all(seed)
    return trainer(plans, "3d_fullres", 0, dataset_json, torch.device(device))


def seed_all(seed: int) -> None:
    """Seed what nnU-Net draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def ready_to_step(trainer):
    """Begin the first epoch, without the diagnostics of its first step."""
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.train_step_index = 1
    return trainer
