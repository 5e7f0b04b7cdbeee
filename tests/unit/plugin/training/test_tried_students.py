"""Students that docs/results.md reports on and that no release trains: what they do differently, and nothing else."""

from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.repeating import RepeatingTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer

FOLDER = Path(__file__).resolve().parents[4] / "benchmarks" / "tried_students"
DEFAULT = find_trainer("nnUNetTrainerModalityDropoutImputedCompanion")
TAUGHT, LATE = "nnUNetTrainerTaughtCompanion_20epochs", "D2NetTrainerAdamWLateCompanion_20epochs"
REPEATED = "nnUNetTrainerModalityDropoutImputedRepeatedCompanion_20epochs"


@pytest.fixture
def tried(monkeypatch, trainer_of):
    """One of them, found as nnU-Net finds it and initialized, its stock network not zero where it is read."""

    def tried(name):
        monkeypatch.setenv("nnUNet_extTrainer", str(FOLDER))
        trainer = trainer_of(recursive_find_trainer_class_by_name(name), n_stages=3)
        trainer.print_to_log_file = lambda *_, **__: None
        trainer.initialize()
        trainer.cohort = {}
        trainer.network.train()
        return trainer

    return tried


@pytest.fixture
def step_of(make_batch):
    """A step of a trainer's, two patches of three modalities."""

    def step_of(trainer, *available):
        mask = torch.tensor(available).bool()
        return trainer.step_on(make_batch(), torch.ones(2, 3).bool(), mask)

    return step_of


@pytest.mark.parametrize("name", [TAUGHT, LATE, REPEATED])
def test_nnunet_finds_them_and_they_learn(tried, make_batch, name):
    trainer = tried(name)
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    assert trainer.num_epochs == 20
    assert trainer.learning_rate == DEFAULT.learning_rate
    assert trainer.p_complete == DEFAULT.p_complete == 0
    assert torch.isfinite(torch.as_tensor(trainer.train_step(make_batch())["loss"]))
    after = trainer.network.state_dict()
    changed = {key.split(".")[0] for key in after if not torch.equal(before[key], after[key])}
    assert changed == {"student"}
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        assert torch.isfinite(torch.as_tensor(trainer.validation_step(make_batch())["loss"]))


def test_repeated_is_the_default_with_more_patches(tried, make_batch):
    trainer = tried(REPEATED)
    assert [len(step.images) for step in trainer.training_passes(make_batch())] == [3]
    (kind,) = (base for base in type(trainer).__mro__ if base.__name__ == REPEATED)
    assert kind.__mro__[1:3] == (CompanionTrainer, RepeatingTrainer)
    assert set(DEFAULT.__mro__) - {DEFAULT} <= set(kind.__mro__)


def test_taught_the_teacher_sees_everything_and_the_term_falls_to_zero_for_the_stock_network_itself(tried, step_of):
    trainer = tried(TAUGHT)
    step = step_of(trainer, (1, 1, 1), (1, 1, 1))
    plain = super(type(trainer), trainer).loss_of
    outputs = trainer.network_outputs(step)
    assert (trainer.loss_of(outputs, step) - plain(outputs, step)).item() > 0.01
    stock = {k: v for k, v in trainer.companion.stock.state_dict().items() if "seg_layers" not in k}
    trainer.companion.student.load_state_dict(stock, strict=False)
    outputs = trainer.network_outputs(step)
    assert (trainer.loss_of(outputs, step) - plain(outputs, step)).item() == pytest.approx(0, abs=1e-5)
    fewer = step_of(trainer, (1, 0, 0), (1, 0, 0))
    of_all = [x.clone() for x in trainer.kept["stock"]]
    trainer.network_outputs(fewer)
    assert all(torch.equal(x, y) for x, y in zip(of_all, trainer.kept["stock"], strict=True))
    trainer.network.eval()
    trainer.network_outputs(fewer)
    assert trainer.kept == {"student": [], "stock": []}


def test_late_the_contrastive_and_reconstruction_losses_wait_for_the_second_half(tried):
    trainer = tried(LATE)
    late = ("sc", "fc", "rec")
    for epoch, expected in ((0, 0), (9, 0), (10, 1), (19, 1)):
        trainer.current_epoch = epoch
        weights = trainer.current_weights()
        assert weights == {t: w * (expected if t in late else 1) for t, w in trainer.loss_weights.items()}
