"""Two processes under DistributedDataParallel as nnU-Net uses it: its gradients, and that every parameter has one."""

import gc
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_d2net.method.losses.d2net_loss import LOSS_TERMS, D2NetLoss
from nnunetv2_d2net.method.network.d2net import D2Net, D2NetOptions

N_MODALITIES = 3
N_REGIONS = 2
PATCH = (16, 16, 16)
N_STAGES = 3
N_STEPS = 3
OWN_TERMS = tuple(term for term in LOSS_TERMS if term != "seg")
ALL_ZERO = dict.fromkeys(OWN_TERMS, 0.0)
WEIGHTS = {
    "all": dict.fromkeys(OWN_TERMS, 1.0),
    "none": ALL_ZERO,
    **{f"only {term}": {**ALL_ZERO, term: 1.0} for term in OWN_TERMS},
}
# Per step and rank, the modalities of its two cases: ranks lack different ones, one at a time or all but one.
AVAILABLE = (
    (((1, 1, 1), (1, 1, 1)), ((1, 0, 0), (1, 0, 0))),
    (((0, 1, 0), (0, 0, 1)), ((1, 1, 0), (0, 1, 1))),
    (((0, 0, 1), (0, 0, 1)), ((1, 0, 0), (1, 0, 0))),
)


def build_network(**options) -> D2Net:
    torch.manual_seed(0)
    unet = PlainConvUNet(
        N_MODALITIES,
        N_STAGES,
        (4, 6, 8),
        nn.Conv3d,
        3,
        (1, 2, 2),
        1,
        N_REGIONS,
        1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        deep_supervision=True,
    )
    return D2Net(unet, N_MODALITIES, D2NetOptions(**options))


def build_loss(weights, *, ddp=True) -> D2NetLoss:
    """The loss on regions as nnU-Net builds it for DDP: Dice over both ranks, no weight for the coarsest level."""
    dice = {"batch_dice": True, "do_bg": True, "smooth": 1e-5, "ddp": ddp}
    level_weights = (1.0, 0.0)
    segmentation = DeepSupervisionWrapper(
        DC_and_BCE_loss({}, dice, use_ignore_label=False, dice_class=MemoryEfficientSoftDiceLoss), level_weights
    )
    return D2NetLoss(segmentation, weights, regions=True, ignore_label=None, level_weights=level_weights)


def draw_batch(rank: int, step: int):
    generator = torch.Generator().manual_seed(10 * step + rank)
    images = torch.randn(2, N_MODALITIES, *PATCH, generator=generator)
    target = (torch.rand(2, N_REGIONS, *PATCH, generator=generator) < 0.3).float()
    return images, [target, target[..., ::2, ::2, ::2]], torch.tensor(AVAILABLE[step][rank]).bool()


def assert_equal_on_all_ranks(values: torch.Tensor, what: str) -> None:
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, values)
    for one, other in pairwise(gathered):
        assert torch.equal(one, other), what


def train(rank: int, case: str, weights, **options) -> None:
    network = DistributedDataParallel(build_network(**options))
    loss, optimizer = build_loss(weights), torch.optim.SGD(network.parameters(), 1e-2)
    for step in range(N_STEPS):
        images, target, available = draw_batch(rank, step)
        optimizer.zero_grad()
        total = loss(network(images, available), target, images=images, present=torch.ones_like(available))
        total.backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, (case, step, name)
            assert parameter.grad.isfinite().all(), (case, step, name)
        gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        assert gradient.any(), (case, step)
        assert_equal_on_all_ranks(gradient, f"{case}: the gradients of step {step} differ between the ranks")
        optimizer.step()


def compare_with_one_process(rank: int) -> None:
    """Two ranks with two cases each do what one process does with the four, in double precision.

    Every case has two modalities: losses that are means over pairs or modalities then weigh the ranks alike, as they do
    the cases of one process.
    """
    availables = torch.tensor([[[1, 1, 0], [0, 1, 1]], [[1, 0, 1], [1, 1, 0]]]).bool()
    batches = [draw_batch(r, 0) for r in range(2)]
    images = [batch[0].double() for batch in batches]
    targets = [[level.double() for level in batch[1]] for batch in batches]
    alone, shared = build_network().double(), DistributedDataParallel(build_network().double())
    whole = build_loss(WEIGHTS["all"], ddp=False)
    everything = torch.cat(images), torch.cat(list(availables))
    target = [torch.cat(levels) for levels in zip(*targets, strict=True)]
    whole(alone(*everything), target, images=everything[0], present=everything[1]).backward()
    loss, available = build_loss(WEIGHTS["all"]), availables[rank]
    loss(shared(images[rank], available), targets[rank], images=images[rank], present=available).backward()
    terms = loss.last_terms.clone()
    dist.all_reduce(terms)
    torch.testing.assert_close(terms / 2, whole.last_terms, rtol=1e-5, atol=1e-6)
    for (name, expected), parameter in zip(alone.named_parameters(), shared.parameters(), strict=True):
        assert torch.allclose(parameter.grad, expected.grad, rtol=1e-6, atol=1e-8), name


def train_all(rank: int, world_size: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    compare_with_one_process(rank)
    for case, weights in WEIGHTS.items():
        train(rank, case, weights)
    train(rank, "modulated skips", WEIGHTS["none"], modulate_skips=True)
    train(rank, "independent encoders", WEIGHTS["none"], independent_encoders=True)
    gc.collect()  # DistributedDataParallel sits in reference cycles and holds the process group
    dist.barrier()
    dist.destroy_process_group()  # not after a failure, when it would wait for the other process
    os._exit(0)  # torch's own threads can outlive the interpreter and abort a process that is done


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
def test_two_ranks_do_what_one_does_and_no_parameter_is_unused_whatever_is_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))  # the processes import this file by its name
    torch.multiprocessing.spawn(train_all, args=(2, str(tmp_path / "store")), nprocs=2)
