from types import SimpleNamespace

import pytest
import torch

from nnunetv2_d2net.plugin.training.repeating import RepeatingTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer

NAME = "nnUNetTrainerModalityDropoutConditionedRepeated"


class TwoPasses(find_trainer(NAME)):
    in_one_pass = False  # as on a GPU


class FirstComplete(RepeatingTrainer, find_trainer("nnUNetTrainerModalityDropout")):
    complete_share = 0.5


@pytest.fixture
def ready(trainer_of):
    def ready(kind, *, deep_supervision=True):
        trainer = trainer_of(kind, n_stages=3)
        trainer.enable_deep_supervision = deep_supervision
        trainer.print_to_log_file = lambda *_, **__: None
        trainer.initialize()
        trainer.cohort = {}
        trainer.network.train()
        return trainer

    return ready


def test_the_first_half_of_a_batch_comes_again_with_nested_subsets(ready, make_batch):
    trainer = ready(TwoPasses)
    for n_cases, n_twice in ((1, 1), (2, 1), (3, 1), (4, 2)):
        for seed in range(20):
            first, again = trainer.training_passes(make_batch(seed, [f"case {i}" for i in range(n_cases)]))
            assert (len(first.images), len(again.images), len(again.present)) == (n_cases, n_twice, n_twice)
            assert torch.equal(again.images, first.images[:n_twice])
            assert all(torch.equal(x, y[:n_twice]) for x, y in zip(again.target, first.target, strict=True))
            for own, other in zip(first.available, again.available, strict=False):
                larger, smaller = (other, own) if other.sum() > own.sum() else (own, other)
                assert bool((larger | ~smaller).all())
                assert not torch.equal(own, other)


def test_what_a_case_lacks_is_in_neither_subset(ready, make_batch):
    trainer = ready(TwoPasses)
    trainer.cohort = {"a": [True, False, True], "b": [False, False, True]}
    for seed in range(20):
        first, again = trainer.training_passes(make_batch(seed))
        assert first.present.tolist() == [trainer.cohort["a"], trainer.cohort["b"]]
        assert again.present.tolist() == [trainer.cohort["a"]]
        assert not any((step.available & ~step.present).any() for step in (first, again))


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_two_passes_have_the_loss_and_the_gradient_of_one_over_all_patches(ready, make_batch, deep_supervision):
    trainer = ready(TwoPasses, deep_supervision=deep_supervision)
    batch = make_batch()
    if not deep_supervision:
        batch["target"] = batch["target"][0]
    passes = trainer.training_passes(batch)
    trainer.training_passes = lambda _: passes
    trainer.optimizer.step = lambda: None
    lengths = []
    trainer.network.register_forward_pre_hook(lambda _, inputs: lengths.append(len(inputs[0])))
    loss = trainer.train_step(batch)["loss"]
    assert lengths == [2, 1]
    accumulated = {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}
    trainer.network.zero_grad(set_to_none=True)
    images, masks = (torch.cat([getattr(step, name) for step in passes]) for name in ("images", "available"))
    targets = [step.target for step in passes]
    target = [torch.cat(x) for x in zip(*targets, strict=True)] if deep_supervision else torch.cat(targets)
    whole = trainer.loss(trainer.network(images, masks), target)
    whole.backward()
    torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), 12)
    assert float(loss) == pytest.approx(whole.item(), rel=1e-5)
    assert set(accumulated) == {name for name, p in trainer.network.named_parameters() if p.grad is not None}
    for name, p in trainer.network.named_parameters():
        if p.grad is not None:
            assert torch.allclose(accumulated[name], p.grad, atol=1e-5, rtol=1e-3), name


def test_on_a_cpu_a_step_is_one_pass_over_the_same_patches(ready, make_batch):
    (whole,), parts = (ready(kind).training_passes(make_batch()) for kind in (find_trainer(NAME), TwoPasses))
    assert torch.equal(whole.images, torch.cat([step.images for step in parts]))
    assert whole.available.shape == (3, 3)
    for joined, *levels in zip(whole.target, *(step.target for step in parts), strict=True):
        assert torch.equal(joined, torch.cat(levels))
    in_one_pass = RepeatingTrainer.in_one_pass.fget
    assert in_one_pass(SimpleNamespace(device=torch.device("cpu")))
    assert not in_one_pass(SimpleNamespace(device=torch.device("cuda")))


@pytest.mark.parametrize("name", [NAME, "nnUNetTrainerModalityDropoutImputedNested"])
def test_it_learns_and_is_validated_as_all_others(ready, make_batch, name):
    trainer = ready(find_trainer(name))
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    assert torch.isfinite(torch.as_tensor(trainer.train_step(make_batch())["loss"]))
    assert any(not torch.equal(before[key], value) for key, value in trainer.network.state_dict().items())
    trainer.network.eval()
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        assert torch.isfinite(torch.as_tensor(trainer.validation_step(make_batch())["loss"]))


def test_a_part_that_shows_complete_input_only_repeats_nothing(ready, make_batch):
    trainer = ready(FirstComplete)
    assert [step.available.tolist() for step in trainer.training_passes(make_batch())] == [[[True] * 3] * 2]
    trainer.current_epoch = trainer.num_epochs - 1
    (step,) = trainer.training_passes(make_batch())
    assert len(step.available) == 3
