"""The trainer whose network guesses what is missing: what it learns from before the first epoch, and when."""

import math
from pathlib import Path

import pytest
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.modalities import zero_missing
from nnunetv2_d2net.plugin.training import imputing
from nnunetv2_d2net.plugin.training.adamw import AdamWTrainer
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer, Step
from nnunetv2_d2net.plugin.training.imputing import (
    LESION_WEIGHT,
    guess_errors,
    nnUNetTrainerModalityDropoutImputed,
)
from nnunetv2_d2net.plugin.training.variants import find_trainer

ALL = torch.ones(2, 3, dtype=torch.bool)


def related(batch):
    """Let the second and third image follow from the first."""
    first = batch["data"][:, :1]
    return {**batch, "data": torch.cat([first, 1 - 2 * first, 0.5 * first], 1), "target": batch["target"][0]}


@pytest.fixture
def ready(trainer_of, make_batch, monkeypatch):
    """A trainer that is about to start, with batches in which images follow from each other."""

    def ready(name="nnUNetTrainerModalityDropoutImputed", *, cohort=None, change=related, **settings):
        kind = find_trainer(name)
        trainer = trainer_of(type(kind.__name__, (kind,), {"n_guess_steps": 150, **settings}), n_stages=3)
        trainer.said = []
        trainer.print_to_log_file = lambda *words, **_: trainer.said.append(" ".join(map(str, words)))
        trainer.initialize()
        trainer.cohort = cohort or {}
        batches = (change(make_batch(i)) for i in range(10**6))
        trainer._plain_loader = lambda: batches
        monkeypatch.setattr(ModalityDroppingTrainer, "on_train_start", lambda _: None)
        return trainer

    return ready


def errors(trainer, batch):
    """How far the guess of the third image from the first two, and of the last two from the first, is off."""
    images = related(batch)["data"]
    with torch.no_grad():
        guesses = [
            trainer.imputation(images, torch.tensor([subset] * 2))
            for subset in ((1 > 0, 1 > 0, 1 < 0), (1 > 0, 1 < 0, 1 < 0))
        ]
    return [float((guess - images).abs().sum() / images.abs().sum()) for guess in guesses]


def test_before_the_first_epoch_it_learns_what_follows_from_what(ready, make_batch):
    trainer = ready()
    before = {name: weight.clone() for name, weight in trainer.network.state_dict().items()}
    zeros = errors(trainer, make_batch(10**6))
    averaged = []
    trainer._average_gradients = averaged.append
    trainer.on_train_start()
    assert averaged == [trainer.imputation] * 150
    learned = errors(trainer, make_batch(10**6))
    assert learned[0] < 0.4 * zeros[0]
    assert learned[1] < 0.7 * zeros[1]
    for name, weight in trainer.network.state_dict().items():
        learns = name.startswith("imputation.") and "seg_layers.0" not in name
        assert torch.equal(weight, before[name]) != learns, name
    (line,) = [line for line in trainer.said if line.startswith("guess of what is missing")]
    assert 0 < float(line.rpartition(" ")[2]) < 0.7


@pytest.mark.parametrize(
    "name", ["nnUNetTrainerModalityDropoutImputed", "nnUNetTrainerModalityDropoutImputedCompanion"]
)
def test_what_has_been_learned_is_not_learned_anew(ready, name, monkeypatch):
    monkeypatch.setattr("nnunetv2_d2net.plugin.training.companion.pretrained_weights", lambda: Path("given"))
    trainer = ready(name)
    asked = []
    trainer.learn_to_guess = lambda: asked.append(trainer.current_epoch)
    trainer.current_epoch = 3  # it goes on
    trainer.on_train_start()
    assert asked == []
    trainer.current_epoch = 0
    trainer.on_train_start()
    assert asked == [0]
    trainer.imputation.last_layer.bias.data[0] = 0.1  # it came with the weights to start from
    trainer.on_train_start()
    assert asked == [0]


def test_what_a_case_lacks_is_neither_shown_nor_asked_for(ready, make_batch):
    cohort = {"a": [True, True, False], "b": [True, True, True]}

    def lacking(batch):
        batch = related(batch)
        batch["data"][0, 2] = math.nan
        return batch

    trainer = ready(cohort=cohort, change=lacking, n_guess_steps=3)
    shown = []
    trainer.imputation.register_forward_pre_hook(lambda _, given: shown.append(given))
    trainer.on_train_start()
    assert len(shown) == 3
    for images, available in shown:
        assert not available[0, 2]
        assert images.isfinite().all()
    assert all(parameter.isfinite().all() for parameter in trainer.imputation.parameters())


def test_what_is_hidden_is_drawn_without_complete_cases_or_as_the_subsets_say(ready, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "nnunetv2_d2net.plugin.training.dropping.draw_available",
        lambda present, p, _: asked.append(p) or present & torch.tensor([True, False, True]),
    )
    ready(n_guess_steps=2).on_train_start()
    assert asked == [0.0, 0.0]
    trainer = ready(n_guess_steps=4, subsets=("T1",))
    shown = []
    trainer.imputation.register_forward_pre_hook(lambda _, given: shown.append(given[1].tolist()))
    trainer.on_train_start()
    assert shown == [[[False, True, False]] * 2] * 4
    assert asked == [0.0, 0.0]


def test_errors_are_means_over_what_is_hidden_and_lesions_count_more(make_batch):
    batch = related(make_batch())
    present = torch.tensor([[True, True, False], [True, True, True]])
    available = torch.tensor([[True, False, False], [False, True, True]])
    step = Step(batch["data"], batch["target"], present, available)
    of_guess, of_zeros = guess_errors(lambda images, _: images + 1, step)
    assert of_guess == pytest.approx(1)
    weight = 1 + LESION_WEIGHT * (batch["target"] > 0)
    hidden = zero_missing(batch["data"], present & ~available).abs()
    n_hidden = weight[0].sum() + weight[1].sum()  # one image of each case
    assert of_zeros == pytest.approx(float((weight * hidden).sum() / n_hidden))
    ignored = guess_errors(lambda images, _: images + batch["target"], step, ignore_label=2)[0]
    n_lesion, n_ignored = (int((batch["target"] == label).sum()) for label in (1, 2))
    n_all = batch["target"].numel() + LESION_WEIGHT * n_lesion
    assert ignored == pytest.approx(((1 + LESION_WEIGHT) * n_lesion + 2 * n_ignored) / n_all)
    nothing = guess_errors(lambda images, _: images + 1, step._replace(available=present))
    assert [float(error) for error in nothing] == [0, 0]


@pytest.mark.parametrize("settings", [{"subsets": ("FLAIR+T1+T1ce",)}, {"n_guess_steps": 0}])
def test_where_nothing_is_to_be_learned_the_log_says_so(ready, settings):
    trainer = ready(**settings)
    trainer._plain_loader = None
    trainer.on_train_start()
    assert trainer.said[-1].startswith("guess of what is missing: not learned")
    assert trainer.imputation.is_blank


def test_a_guess_that_comes_to_nan_is_told(ready):
    trainer = ready(n_guess_steps=3, change=lambda batch: {**related(batch), "data": batch["data"] * math.nan})
    with pytest.raises(UserError, match=r"came to NaN: train again, or with -tr nnUNetTrainerModalityDropout$"):
        trainer.on_train_start()


def test_it_is_learned_before_a_part_that_shows_complete_input_only(ready):
    trainer = ready(n_guess_steps=2, complete_share=0.5)
    shown = []
    trainer.imputation.register_forward_pre_hook(lambda _, given: shown.append(given[1].all().item()))
    assert trainer.draw(ALL).all()
    trainer.on_train_start()
    assert shown == [False, False]


def test_patches_come_as_they_are_preprocessed_from_the_training_cases(trainer_of, monkeypatch):
    trainer = trainer_of(nnUNetTrainerModalityDropoutImputed, n_stages=3)
    trainer.initialize()
    asked = {}
    monkeypatch.setattr(imputing, "nnUNetDataLoader", lambda *given, **named: asked.update(given=given, named=named))
    trainer.get_tr_and_val_datasets = lambda: ("training", "validation")
    trainer._plain_loader()
    patch = trainer.configuration_manager.patch_size
    assert asked["given"] == ("training", trainer.batch_size, patch, patch, trainer.label_manager)
    assert set(asked["named"]) == {"oversample_foreground_percent", "probabilistic_oversampling"}


def test_processes_average_their_gradients(ready, monkeypatch):
    trainer = ready(n_guess_steps=1)
    trainer.is_ddp = True
    monkeypatch.setattr(imputing.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(imputing.dist, "all_reduce", lambda gradient: gradient.mul_(4))
    module = torch.nn.Linear(2, 2)
    module(torch.ones(1, 2)).sum().backward()
    before = [parameter.grad.clone() for parameter in module.parameters()]
    trainer._average_gradients(module)
    assert all(torch.equal(2 * b, p.grad) for b, p in zip(before, module.parameters(), strict=True))


def test_it_trains_by_adamw(ready, make_batch):
    trainer = ready(subsets=("T1",))
    assert issubclass(type(trainer), AdamWTrainer)
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert (trainer.optimizer.param_groups[0]["lr"], trainer.p_complete) == (1e-3, 0.0)
    before = trainer.imputation.last_layer.weight.clone()
    trainer.on_train_epoch_start()
    trainer.train_step(make_batch())
    assert not torch.equal(trainer.imputation.last_layer.weight, before)


def test_plans_that_describe_no_unet_are_refused(trainer_of):
    trainer = trainer_of(nnUNetTrainerModalityDropoutImputed)
    architecture = trainer.configuration_manager.configuration["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.vgg.VGG16"
    shared = (trainer.plans_manager, trainer.configuration_manager)
    with pytest.raises(UserError, match=r"^plans TinyPlans: VGG16.*: plan again with D2NetPlanner"):
        nnUNetTrainerModalityDropoutImputed.build_network_architecture(*shared, 3, 3)
