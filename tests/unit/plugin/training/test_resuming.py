"""Checkpoints carry the states of all generators, whole, and nothing that needs code to be read."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.training.resuming import RANDOM_STATES
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer


@pytest.fixture
def make(trainer_of):
    def make():
        trainer = trainer_of(D2NetTrainer)
        trainer.print_to_log_file = lambda *_, **__: None
        trainer.initialize()
        trainer.logger.log("ema_fg_dice", 0.5, 0)
        return trainer

    return make


def draws(trainer):
    numpy = [np.random.normal(), *np.random.randint(2**31, size=2).tolist()]  # an odd number of normals leaves a spare
    return [
        [random.random(), random.gauss(0, 1)],
        numpy,
        torch.rand(2).tolist(),
        torch.rand(2, generator=trainer.subset_generator).tolist(),
    ]


def test_all_generators_go_on_where_they_were(make):
    trainer = make()
    draws(trainer)
    states = trainer.random_states()
    assert set(states) == {"python", "numpy", "torch", "subsets"}
    expected = draws(trainer)
    assert all(a != b for a, b in zip(draws(trainer), expected, strict=True))
    trainer.restore_random_states(states)
    assert draws(trainer) == expected


@pytest.mark.parametrize(("name", "place"), [("python", 0), ("numpy", 1), ("torch", 2), ("subsets", 3)])
def test_a_state_that_is_missing_is_left_as_it_is(make, name, place):
    trainer = make()
    states = trainer.random_states()
    expected = draws(trainer)
    before = trainer.random_states()
    later = draws(trainer)
    trainer.restore_random_states(before)
    trainer.restore_random_states({other: state for other, state in states.items() if other != name})
    found = draws(trainer)
    assert found[place] == later[place]
    assert [x for i, x in enumerate(found) if i != place] == [x for i, x in enumerate(expected) if i != place]


def test_a_checkpoint_brings_them_and_training_starts_with_them(make, tmp_path, monkeypatch):
    trainer, path = make(), tmp_path / "checkpoint_latest.pth"
    states = trainer.random_states()
    trainer.save_checkpoint(str(path))
    assert RANDOM_STATES not in trainer.optimizer.state_dict(), "they are no matter of the optimizer's otherwise"
    content = torch.load(path, weights_only=False)
    assert len(content["optimizer_state"][RANDOM_STATES]) == 1
    assert content["optimizer_state"]["param_groups"]
    expected = draws(trainer)
    later = make()
    later.load_checkpoint(str(path))
    assert later.loaded_random_states.keys() == states.keys()
    monkeypatch.setattr(
        "nnunetv2_d2net.plugin.training.distributed.DistributedTrainer.on_train_start", lambda _: draws(later)
    )
    monkeypatch.setattr("nnunetv2_d2net.plugin.training.dropping.check_preprocessed", lambda *_: None)
    later.on_train_start()
    assert draws(later) == expected
    assert later.loaded_random_states is None


def test_states_are_whole_numbers(make):
    """Any torch reads them without running code."""
    states = make().random_states()
    assert states["python"]["state"].dtype == states["numpy"]["key"].dtype == torch.int64


def test_the_generator_of_the_own_cuda_device_goes_on_too(make, monkeypatch):
    trainer, restored = make(), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([device.index]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *given: restored.append(given))
    without = trainer.random_states()
    assert "cuda" not in without
    trainer.device = torch.device("cuda", 3)
    states = trainer.random_states()
    assert states["cuda"].tolist() == [3]
    trainer.restore_random_states(states)
    trainer.restore_random_states(without)
    trainer.device = torch.device("cpu")
    trainer.restore_random_states(states)
    assert restored == [(states["cuda"], torch.device("cuda", 3))]


def test_a_checkpoint_has_the_states_of_all_processes(make, tmp_path, monkeypatch):
    trainer, path = make(), tmp_path / "checkpoint_latest.pth"

    def all_gather_object(of_all, own):
        assert own.keys() == trainer.random_states().keys()
        of_all[:] = [{"of": f"rank {rank}"} for rank in range(len(of_all))]

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    trainer.is_ddp, trainer.network = True, SimpleNamespace(module=trainer.network)
    trainer.save_checkpoint(str(path))
    kept = torch.load(path, weights_only=False)["optimizer_state"][RANDOM_STATES]
    assert kept == [{"of": "rank 0"}, {"of": "rank 1"}]


def test_a_checkpoint_of_nnunets_has_no_states(make):
    trainer = make()
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
    assert trainer.loaded_random_states is None


def test_a_process_that_was_not_there_keeps_its_own(make):
    trainer = make()
    trainer.local_rank = 1
    state = {RANDOM_STATES: [{"of": "rank 0"}]}
    trainer._take_random_states(trainer.optimizer, state)
    assert trainer.loaded_random_states is None
    assert state == {}
    trainer._take_random_states(trainer.optimizer, {RANDOM_STATES: [{"of": "rank 0"}, {"of": "rank 1"}]})
    assert trainer.loaded_random_states == {"of": "rank 1"}


def test_the_best_pseudo_dice_of_all_epochs_is_known(make, tmp_path):
    trainer, path = make(), tmp_path / "checkpoint_latest.pth"
    for epoch, value in enumerate([0.25, 0.75, 0.5]):
        trainer.logger.log("ema_fg_dice", value, epoch)
    trainer._best_ema = 0.25
    trainer.save_checkpoint(str(path))
    later = make()
    later.load_checkpoint(str(path))
    assert later._best_ema == 0.75


def test_a_checkpoint_of_no_epoch_knows_no_best_one(make, tmp_path):
    trainer, path = make(), tmp_path / "checkpoint_latest.pth"
    trainer.logger.local_logger.my_fantastic_logging["ema_fg_dice"].clear()
    trainer.save_checkpoint(str(path))
    later = make()
    later.load_checkpoint(str(path))
    assert later._best_ema is None


def test_another_trainers_optimizer_does_not_fit_and_other_failures_stay_what_they_are(make, tmp_path, monkeypatch):
    trainer, path = make(), tmp_path / "checkpoint_latest.pth"
    trainer.optimizer = torch.optim.SGD(trainer.network.parameters(), 0.1)  # of one group instead of two
    trainer.save_checkpoint(str(path))
    words = (
        f"^{path} does not fit D2NetTrainer on these plans: train anew without --c, or use the trainer that wrote it$"
    )
    with pytest.raises(UserError, match=words):
        make().load_checkpoint(str(path))

    def fail(*_, **__):
        raise RuntimeError("CUDA has gone")

    later = make()
    monkeypatch.setattr(later.optimizer, "load_state_dict", fail)
    with pytest.raises(RuntimeError, match="CUDA has gone"):
        later.load_checkpoint(str(path))


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it(make, tmp_path, monkeypatch):
    trainer, path = make(), tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()

    def fail(_content, name, *_, **__):
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=r"go on with --c; the checkpoint before it is"):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before
    assert trainer._states_of_all is None
    assert [file.name for file in tmp_path.glob("*.pth*")] == [path.name]


class Numbers:
    def set_thread_id(self, number):
        self.numbers = itertools.count(number)

    def __next__(self):
        return next(self.numbers)


def test_a_training_that_fails_ends_its_loaders_which_would_report_that_their_workers_are_gone(make, monkeypatch):
    trainer = make()
    trainer.dataloader_train = NonDetMultiThreadedAugmenter(Numbers(), None, 1)
    trainer.dataloader_val = object()  # nnU-Net's loader of a single process has nothing to end
    assert next(trainer.dataloader_train) == 0
    thread, [worker] = trainer.dataloader_train.results_loop_thread, trainer.dataloader_train._processes

    def fail(_):
        raise UserError("the disk is full")

    monkeypatch.setattr("nnunetv2_d2net.plugin.training.distributed.DistributedTrainer.run_training", fail)
    with pytest.raises(UserError, match="full"):
        trainer.run_training()
    assert not thread.is_alive()
    assert not worker.is_alive()


def test_processes_beside_the_first_write_nothing(make, tmp_path):
    trainer = make()
    for rank, disabled in ((1, False), (0, True)):
        trainer.local_rank, trainer.disable_checkpointing = rank, disabled
        trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize(
    ("continues", "named", "there", "loaded"),
    [
        (True, "final", ("final", "latest"), "latest"),
        (True, "final", ("final", "best"), "final"),
        (True, "best", ("best", "latest"), "best"),
        (False, "final", ("final", "latest"), "final"),  # as --val does
    ],
)
def test_a_training_that_began_anew_beside_a_finished_one_goes_on(make, tmp_path, continues, named, there, loaded):
    trainer = make()
    paths = {name: tmp_path / f"checkpoint_{name}.pth" for name in there}
    for epoch, path in enumerate(paths.values()):
        trainer.current_epoch = epoch
        trainer.save_checkpoint(str(path))
    later = make()
    later.continues, said = continues, []
    later.print_to_log_file = said.append
    later.load_checkpoint(str(paths[named]))
    assert later.current_epoch == [*there].index(loaded) + 1
    assert (f"checkpoint_{named}.pth is of an earlier training: going on with checkpoint_latest.pth" in said) is (
        loaded != named
    )


def test_a_training_does_not_go_on_by_other_plans(make, tmp_path):
    trainer, path = make(), tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    later = make()
    later.plans_manager.plans["configurations"]["tiny"]["spacing"] = [3.0, 1.0, 1.0]
    with pytest.raises(
        UserError, match=rf"^{path} was trained by other plans than those of now \(spacing\): train anew"
    ):
        later.load_checkpoint(str(path))
