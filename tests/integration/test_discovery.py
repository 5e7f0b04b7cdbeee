"""nnU-Net finds every trainer through the folder that nnUNet_extTrainer names."""

import pickle
import runpy

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_d2net.registration import trainers_folder
from nnunetv2_d2net.training.variants import ALL_TRAINERS, LENGTHS

LOOKED_UP = [name for name in ALL_TRAINERS if "_" not in name] + ["D2NetTrainer_5epochs", "D2NetTrainerPaper_1epoch"]


@pytest.mark.parametrize("name", LOOKED_UP)
def test_the_class_found_is_the_packages_own_at_every_lookup(name):
    for _ in range(2):
        assert recursive_find_trainer_class_by_name(name) is ALL_TRAINERS[name]


def test_without_the_folder_they_are_not_found(monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer")
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer D2NetTrainer"):
        recursive_find_trainer_class_by_name("D2NetTrainer")
    assert recursive_find_trainer_class_by_name("nnUNetTrainer") is nnUNetTrainer


def test_the_folder_offers_all_trainers_and_they_survive_pickling():
    offered = runpy.run_path(str(trainers_folder() / "D2NetTrainer.py"))
    for name, trainer in ALL_TRAINERS.items():
        assert offered[name] is trainer
        assert trainer.__name__ == name
        assert issubclass(trainer, nnUNetTrainer)
        assert pickle.loads(pickle.dumps(trainer)) is trainer


def test_every_trainer_comes_in_all_lengths():
    bases = [name for name in ALL_TRAINERS if "_" not in name and name != "D2NetTrainerDemo"]
    assert {"D2NetTrainer", "D2NetTrainerPaper", "nnUNetTrainerModalityDropout"} <= set(bases)
    for base in bases:
        for n_epochs in LENGTHS:
            trainer = ALL_TRAINERS[f"{base}_{n_epochs}epoch{'s' if n_epochs > 1 else ''}"]
            assert trainer.n_epochs == n_epochs
            assert issubclass(trainer, ALL_TRAINERS[base])
