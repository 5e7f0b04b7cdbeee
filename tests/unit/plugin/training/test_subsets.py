"""A training that draws from the subsets that will occur."""

import json
from pathlib import Path

import pytest
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.modalities import subset_codes
from nnunetv2_d2net.plugin.protocols import SUBSETS, drawing_from
from nnunetv2_d2net.plugin.training import dropping
from nnunetv2_d2net.plugin.training.dropping import ResumingTrainer, nnUNetTrainerModalityDropout

ALL = torch.ones(200, 3, dtype=torch.bool)


@pytest.fixture
def started(trainer_of, monkeypatch):
    """A trainer at the start of its training, whose data nobody looks at."""
    monkeypatch.setattr(dropping, "check_preprocessed", lambda *_: None)
    monkeypatch.setattr(ResumingTrainer, "on_train_start", lambda _: None)

    def started(*, continues=False, epoch=0, kind=nnUNetTrainerModalityDropout):
        trainer = trainer_of(kind)
        trainer.continues, trainer.current_epoch = continues, epoch
        Path(trainer.output_folder).mkdir(parents=True, exist_ok=True)
        trainer.on_train_start()
        return trainer

    return started


def names(trainer):
    return list(trainer.dataset_json["channel_names"].values())


def drawn(trainer):
    return set(subset_codes(trainer.draw(ALL)).tolist())


def test_training_and_rotation_see_the_named_subsets_alone(started, make_batch, monkeypatch):
    trainer = started()
    first, second, _ = names(trainer)
    assert drawn(trainer) == set(range(1, 8))
    assert not (Path(trainer.output_folder) / SUBSETS).exists()
    table = {f"{first}+{second}": 3.0, second: 1.0}
    with drawing_from(table):
        trainer = started()
    assert json.loads((Path(trainer.output_folder) / SUBSETS).read_text(encoding="utf-8")) == {"subsets": table}
    assert drawn(trainer) == {0b011, 0b010}
    monkeypatch.setattr(nnUNetTrainerModalityDropout, "complete_share", 0.5)
    assert drawn(trainer) == {0b111}
    seen = []
    trainer.cohort = {}
    monkeypatch.setattr(trainer, "step_on", lambda _, present, available: seen.append(available) or 1 / 0)
    trainer.num_val_iterations_per_epoch = 50
    for _ in range(100):
        with pytest.raises(ZeroDivisionError):
            trainer.validation_step(make_batch())
    codes = [tuple(subset_codes(available).tolist()) for available in seen]
    assert codes[:50] == codes[50:]
    assert codes[:50].count((0b011,) * 2) in (37, 38)  # three quarters, as often as it is drawn
    assert set(codes) == {(0b011,) * 2, (0b010,) * 2}
    trainer.num_val_iterations_per_epoch, seen[:] = 1, []
    for _ in range(4):
        with pytest.raises(ZeroDivisionError):
            trainer.validation_step(make_batch())
    assert len({tuple(subset_codes(available).tolist()) for available in seen}) == 1  # as many as an epoch has steps


def test_a_training_goes_on_with_its_subsets_and_refuses_others(started):
    table = {names(started())[0]: 1.0}
    with drawing_from(table):
        started()
    assert drawn(started(continues=True, epoch=1)) == {0b001}
    assert drawn(started(continues=True)) == {0b001}  # stopped before its first checkpoint
    with drawing_from({"all": 1.0}), pytest.raises(UserError, match="go on with these, or train anew without --c"):
        started(continues=True, epoch=3)
    trainer = started()  # anew
    assert drawn(trainer) == set(range(1, 8))
    assert not (Path(trainer.output_folder) / SUBSETS).exists()
    with drawing_from(table), pytest.raises(UserError, match="with the subsets all of them"):
        started(continues=True, epoch=1)
    with drawing_from(table):  # as none was drawn yet
        assert drawn(started(continues=True)) == {0b001}


def test_named_subsets_are_drawn_from_the_trainers_own_generator(started):
    with drawing_from({"FLAIR+T1": 3.0, "T1": 1.0}):
        trainer = started()
    states = trainer.random_states()
    first = trainer.draw(ALL)
    torch.rand(1)  # somebody else draws
    assert not torch.equal(trainer.draw(ALL), first)
    trainer.restore_random_states(states)
    torch.rand(1)
    assert torch.equal(trainer.draw(ALL), first)


def test_a_users_trainer_may_name_them(started):
    kind = type("Mine", (nnUNetTrainerModalityDropout,), {"subsets": ("all=2",)})
    assert drawn(started(kind=kind)) == {0b111}
