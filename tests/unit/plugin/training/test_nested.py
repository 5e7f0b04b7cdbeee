import pytest
import torch

from nnunetv2_d2net.method.losses.nested import one_way_consistency, ranking_hinge
from nnunetv2_d2net.plugin.training.nested import NestedTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer


@pytest.fixture
def trainer(trainer_of):
    trainer = trainer_of(find_trainer("nnUNetTrainerModalityDropoutImputedNested"), n_stages=3)
    trainer.print_to_log_file = lambda *_, **__: None
    trainer.initialize()
    trainer.cohort = {}
    trainer.network.train()
    return trainer


def test_the_first_half_of_a_batch_comes_twice_with_nested_subsets(trainer, make_batch):
    for n_cases, n_twice in ((1, 1), (2, 1), (3, 1), (4, 2)):
        for seed in range(20):
            (step,) = trainer.training_passes(make_batch(seed, [f"case {i}" for i in range(n_cases)]))
            assert len(step.images) == len(step.present) == len(step.available) == n_cases + n_twice
            assert torch.equal(step.images[-n_twice:], step.images[:n_twice])
            assert all(torch.equal(level[-n_twice:], level[:n_twice]) for level in step.target)
            for own, other in zip(step.available, step.available[-n_twice:], strict=False):
                larger, smaller = (other, own) if other.sum() > own.sum() else (own, other)
                assert bool((larger | ~smaller).all())
                assert not torch.equal(own, other)


def test_what_a_case_lacks_is_in_neither_subset(trainer, make_batch):
    trainer.cohort = {"a": [True, False, True], "b": [False, False, True]}
    for seed in range(20):
        (step,) = trainer.training_passes(make_batch(seed))
        assert not (step.available & ~step.present).any()
        assert step.present.tolist() == [trainer.cohort["a"], trainer.cohort["b"], trainer.cohort["a"]]


def test_the_loss_is_nnunets_and_what_the_pair_says(trainer, make_batch):
    (step,) = trainer.training_passes(make_batch())
    for available in ([[1, 0, 0], [0, 1, 0], [1, 1, 0]], [[1, 1, 1], [0, 1, 0], [0, 1, 0]]):
        step = step._replace(available=torch.tensor(available).bool())
        outputs = trainer.network_outputs(step)
        more, fewer = (2, 0) if sum(available[2]) > sum(available[0]) else (0, 2)
        one = [trainer.loss([x[i, None] for x in outputs], [t[i, None] for t in step.target]) for i in (more, fewer)]
        hinge = ranking_hinge(*(loss[None] for loss in one))
        logits = outputs[0][more, None], outputs[0][fewer, None]
        pair = 0.1 * hinge + 0.5 * one_way_consistency(*logits, regions=trainer.label_manager.has_regions)
        expected = trainer.loss(outputs, step.target) + pair
        assert trainer.training_loss(outputs, step).item() == pytest.approx(expected.item(), rel=1e-5)
        assert pair > 0


class FirstComplete(NestedTrainer, find_trainer("nnUNetTrainerModalityDropout")):
    complete_share = 0.5


def test_a_part_that_shows_complete_input_only_has_no_pairs(trainer_of, make_batch):
    trainer = trainer_of(FirstComplete, n_stages=3)
    trainer.initialize()
    trainer.cohort = {}
    (step,) = trainer.training_passes(make_batch())
    assert step.available.tolist() == [[True] * 3] * 2
    outputs = trainer.network_outputs(step)
    assert torch.equal(trainer.training_loss(outputs, step), trainer.loss_of(outputs, step))
    trainer.current_epoch = trainer.num_epochs - 1
    assert [len(step.available) for step in trainer.training_passes(make_batch())] == [3]
