"""Trainings that are watched: how long their epochs are, and what their bar says."""

import pytest
import torch

from nnunetv2_d2net.plugin.training import demo
from nnunetv2_d2net.plugin.training.demo import D2NetTrainerDemo, WatchedTrainer
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer
from nnunetv2_d2net.plugin.training.pretraining import nnUNetTrainerModalityDropoutPretraining


@pytest.fixture
def watched(trainer_of):
    trainer = trainer_of(type("Watched", (WatchedTrainer,), {"n_iterations": 5, "n_epochs": 4}), n_stages=3)
    trainer.initialize()
    return trainer


def test_adamw_falls_as_nnunets_learning_rate(watched):
    optimizer = watched.optimizer
    assert type(optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-3, (0.9, 0.99), 1e-4)
    assert (watched.initial_lr, watched.weight_decay) == (3e-3, 1e-4)
    assert list(map(id, group["params"])) == list(map(id, watched.network.parameters()))
    watched.lr_scheduler.step(2)
    assert group["lr"] == pytest.approx(3e-3 * 0.5**0.9)


def test_the_bar_goes_on_where_training_does_and_says_how_good_it_is(watched, monkeypatch):
    calls = []
    for name in ("on_train_start", "train_step", "on_epoch_end", "on_train_end"):
        monkeypatch.setattr(
            ModalityDroppingTrainer, name, lambda *given, name=name: calls.append((name, given)) or {"loss": 1}
        )
    bars = []
    monkeypatch.setattr(demo, "Bar", lambda **settings: bars.append(BarOf(settings)) or bars[-1])
    for epoch, value in enumerate((0.1, 0.2, 0.3)):
        watched.logger.log("mean_fg_dice", value, epoch)
    watched.current_epoch = 3
    watched.on_train_start()
    (bar,) = bars
    assert bar.settings == {"title": "train", "total": 20, "unit": "step", "n_done": 15}
    assert (watched.num_iterations_per_epoch, watched.num_val_iterations_per_epoch, watched.save_every) == (5, 10, 1)
    assert watched.train_step("batch") == {"loss": 1}
    watched.logger.log("mean_fg_dice", 0.756, 3)
    watched.on_epoch_end()
    watched.on_train_end()
    assert bar.calls == ["moved", {"pseudo Dice": "0.76"}, "closed"]
    assert calls == [
        ("on_train_start", (watched,)),
        ("train_step", (watched, "batch")),
        ("on_epoch_end", (watched,)),
        ("on_train_end", (watched,)),
    ]


class BarOf:
    """Notes what a bar is told."""

    def __init__(self, settings):
        self.settings, self.calls = settings, []

    def update(self):
        self.calls.append("moved")

    def set_postfix(self, words):
        self.calls.append(words)

    def close(self):
        self.calls.append("closed")


@pytest.mark.parametrize(
    ("kind", "length", "rate"),
    [(D2NetTrainerDemo, (8, 160), 3e-3), (nnUNetTrainerModalityDropoutPretraining, (20, 250), 2e-3)],
)
def test_how_long_they_train(trainer_of, kind, length, rate):
    trainer = trainer_of(kind)
    trainer.initialize()
    assert (trainer.num_epochs, trainer.n_iterations) == length
    assert trainer.optimizer.param_groups[0]["lr"] == rate
