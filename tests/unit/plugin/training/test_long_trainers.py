"""Trainers of 40 epochs, for docs/results.md: nnU-Net finds them by the names of the command, as long as they say."""

import inspect
from pathlib import Path

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_d2net.plugin.training.variants import find_trainer

FOLDER = Path(__file__).resolve().parents[4] / "benchmarks" / "long_trainers"


@pytest.mark.parametrize("base", ["nnUNetTrainer", "nnUNetTrainerModalityDropoutAdamW"])
def test_nnunet_finds_them_and_they_have_forty_epochs(monkeypatch, trainer_of, base):
    monkeypatch.setenv("nnUNet_extTrainer", str(FOLDER))
    found = recursive_find_trainer_class_by_name(f"{base}_40epochs")
    parent = nnUNetTrainer if base == "nnUNetTrainer" else find_trainer(base)
    assert found.__bases__ == (parent,)
    assert list(inspect.signature(found.__init__).parameters) == list(inspect.signature(parent.__init__).parameters)
    assert trainer_of(found).num_epochs == 40
