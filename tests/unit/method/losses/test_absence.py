"""The loss of what is found where nothing is: against a loop, its gradient beside soft Dice's, in half precision."""

import math

import pytest
import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunetv2_d2net.method.losses.absence import false_volume_loss

SHAPES = [(3, 4, 6), (3, 4, 2, 5)]
WEIGHTS = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


@pytest.fixture(params=SHAPES)
def logits(request):
    return torch.randn(*request.param, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_it_is_the_mean_over_cases_of_the_weighted_logarithm_of_what_is_found_without_reason(logits):
    region = torch.zeros(logits.shape)
    region[1].view(-1)[0] = 1
    expected = 0.0
    for case in (0, 2):
        found = sum(1 / (1 + math.exp(-value)) for value in logits[case].flatten().tolist())
        expected += WEIGHTS[case].item() * math.log(1 + found / 7) / 3
    assert false_volume_loss(logits, region, 7, WEIGHTS).item() == pytest.approx(expected)


def test_cases_that_have_the_region_have_no_loss_and_no_gradient(logits):
    logits.requires_grad_()
    loss = false_volume_loss(logits, torch.ones(logits.shape), 7, WEIGHTS)
    loss.backward()
    assert (loss.item(), logits.grad.abs().max()) == (0, 0)


def test_its_gradient_is_the_right_one(logits):
    region = torch.zeros(logits.shape)
    region[0] = 1
    assert torch.autograd.gradcheck(lambda x: false_volume_loss(x, region, 5, WEIGHTS), logits.requires_grad_())


def test_soft_dice_does_not_say_what_it_says():
    found = torch.full((1, 1, 8, 8, 8), 2.0, requires_grad=True)
    nothing = torch.zeros(1, 1, 8, 8, 8)
    MemoryEfficientSoftDiceLoss(torch.sigmoid, batch_dice=False, do_bg=True)(found, nothing).backward()
    dice = found.grad.abs().max()
    found.grad = None
    false_volume_loss(found[:, 0], nothing[:, 0], 100, torch.ones(1)).backward()
    assert dice < 1e-6 < 1e-4 < found.grad.min()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_head_full_of_tumor_does_not_overflow_in_half_precision(dtype):
    logits = torch.full((1, 48, 48, 48), 9.0, dtype=dtype, requires_grad=True)
    loss = false_volume_loss(logits, torch.zeros(1, 48, 48, 48), 10, torch.ones(1))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log1p(48**3 / 10), rel=1e-3)
    assert logits.grad.isfinite().all()
