"""The same seed trains the same weights, another seed others."""

import os

import pytest
import torch

from nnunetv2_d2net.plugin.training import seeds
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.seeds import seed_training
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.integration.tiny_training import make_tiny_trainer


@pytest.fixture(autouse=True)
def _as_found(monkeypatch, tmp_path):
    monkeypatch.setattr(seeds, "_given", None)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.delenv("nnUNet_n_proc_DA")  # as it was, whatever a seed sets
    monkeypatch.setenv("nnUNet_results", str(tmp_path))


def weights(root, trainer_class, seed):
    seed_training(seed)
    trainer = make_tiny_trainer(root, trainer_class, seed=None)
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 4, 1
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    for _ in range(4):
        trainer.train_step(next(trainer.dataloader_train))
    return torch.cat([p.detach().flatten() for p in trainer.network.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("trainer_class", [D2NetTrainer, nnUNetTrainerModalityDropout])
def test_same_seed_same_weights(root, regions_data, trainer_class):
    first = weights(root, trainer_class, 3)
    assert os.environ["nnUNet_n_proc_DA"] == "0"
    assert torch.equal(weights(root, trainer_class, 3), first)
    assert not torch.equal(weights(root, trainer_class, 4), first)
