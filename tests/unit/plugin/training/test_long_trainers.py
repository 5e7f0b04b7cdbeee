"""Trainers for docs/results.md: nnU-Net finds them by the names of the commands, and they are as long as they say."""

import inspect
from pathlib import Path

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_d2net.plugin.training.variants import find_trainer

FOLDER = Path(__file__).resolve().parents[4] / "benchmarks" / "long_trainers"


@pytest.fixture
def found(monkeypatch):
    """Find a trainer as nnU-Net does."""
    monkeypatch.setenv("nnUNet_extTrainer", str(FOLDER))
    return recursive_find_trainer_class_by_name


@pytest.mark.parametrize(
    ("name", "n_epochs"),
    [
        ("nnUNetTrainer_40epochs", 40),
        ("nnUNetTrainer_80epochs", 80),
        ("nnUNetTrainerModalityDropoutAdamW_40epochs", 40),
    ],
)
def test_they_are_longer_and_nothing_else(name, n_epochs, found, trainer_of):
    base, trainer = name.split("_")[0], found(name)
    parent = nnUNetTrainer if base == "nnUNetTrainer" else find_trainer(base)
    assert issubclass(trainer, parent)
    assert list(inspect.signature(trainer.__init__).parameters) == list(inspect.signature(parent.__init__).parameters)
    ours = [vars(kind) for kind in trainer.__mro__ if kind not in parent.__mro__]
    assert {name for own in ours for name in own if not name.startswith("__")} == {"n_epochs"}
    assert trainer_of(trainer).num_epochs == n_epochs


@pytest.mark.parametrize(("share", "n_complete"), [("Quarter", 5), ("ThreeQuarters", 15)])
def test_first_parts_of_other_lengths(share, n_complete, found, trainer_of):
    trainer = trainer_of(found(f"nnUNetTrainerModalityDropoutComplete{share}_20epochs"))
    assert (trainer.num_epochs, trainer.n_complete_epochs) == (20, n_complete)
    assert trainer.p_complete == find_trainer("nnUNetTrainerModalityDropout").p_complete
