"""Processes of one training, as if there were some: torch's words for them are stubs."""

import re

import pytest
import torch
import torch.distributed as dist
from torch import nn

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.training import distributed
from nnunetv2_d2net.plugin.training.distributed import DistributedTrainer


class Wrapper(nn.Module):
    """Stands in for DistributedDataParallel."""

    def __init__(self, network, device_ids=None):
        super().__init__()
        self.module, self.device_ids = network, device_ids


@pytest.fixture
def process(trainer_of, monkeypatch):
    """Make the trainer of one process of several, and note in ``order`` what it does beside the others."""

    def process(rank, n_processes=2, device="cpu"):
        for name, value in (("is_initialized", True), ("get_rank", rank), ("get_world_size", n_processes)):
            monkeypatch.setattr(dist, name, lambda value=value: value)
        monkeypatch.setattr(distributed, "DistributedDataParallel", Wrapper)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
        trainer = trainer_of(DistributedTrainer, n_stages=3, device=device)
        trainer.order = []
        monkeypatch.setattr(dist, "barrier", lambda: trainer.order.append("barrier"))
        monkeypatch.setattr(trainer, "do_split", lambda: trainer.order.append("split"))
        return trainer

    return process


@pytest.mark.parametrize(("rank", "given", "expected"), [(0, "cpu", "cpu"), (1, "cpu", "cpu"), (1, "cuda", "cuda:3")])
def test_a_process_trains_on_the_device_that_it_was_given(process, rank, given, expected):
    trainer = process(rank, device=given)
    assert trainer.device == torch.device(expected)
    assert (trainer.grad_scaler is None) == (given == "cpu")


def test_one_process_is_nnunets(trainer_of):
    trainer = trainer_of(DistributedTrainer, n_stages=3, device="cuda")
    assert trainer.device == torch.device("cuda", 0)
    assert trainer.grad_scaler is not None
    trainer = trainer_of(DistributedTrainer, n_stages=3)
    trainer.initialize()
    assert type(trainer.network).__name__ == "PlainConvUNet"
    assert trainer.batch_size == 2


def test_each_process_wraps_the_network_and_takes_its_share_of_the_batch(process):
    trainer = process(1)
    trainer.initialize()
    assert trainer.is_ddp
    assert isinstance(trainer.network, Wrapper)
    assert type(trainer.network.module).__name__ == "PlainConvUNet"
    assert trainer.network.device_ids is None
    assert trainer.batch_size == 1
    assert trainer.loss.loss.dc.ddp is True


def test_on_cuda_batch_norms_are_shared_and_the_wrapper_is_told_the_device(process):
    trainer = process(1, device="cuda")
    wrapped = trainer._wrapped(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
    assert isinstance(wrapped.module[1], nn.SyncBatchNorm)
    assert wrapped.device_ids == [3]


def test_more_processes_than_cases_of_a_batch(process):
    words = "TinyPlans has batches of 2 and there are 3 processes: start at most 2, or plan again with a larger"
    with pytest.raises(UserError, match=f"^{re.escape(words)}"):
        process(0, n_processes=3).initialize()


@pytest.mark.parametrize("initialized", [False, True])
@pytest.mark.parametrize(("rank", "order"), [(0, ["split", "barrier", "train"]), (1, ["barrier", "train"])])
def test_the_first_process_writes_the_folds_before_the_others_read_them(process, monkeypatch, rank, order, initialized):
    trainer = process(rank)
    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer.on_train_start",
        lambda of: of.order.append("train"),
    )
    if initialized:
        trainer.initialize()
    trainer.on_train_start()
    assert trainer.was_initialized
    assert trainer.order == order


def test_a_process_alone_waits_for_nobody(trainer_of, monkeypatch):
    trainer, order = trainer_of(DistributedTrainer), []
    for owner, name in ((dist, "barrier"), (trainer, "do_split")):
        monkeypatch.setattr(owner, name, pytest.fail)
    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer.on_train_start", lambda *of: order.append(of)
    )
    trainer.on_train_start()
    assert order == [(trainer,)]
