import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from nnunetv2_d2net.method.losses.nested import one_way_consistency, ranking_hinge


@pytest.fixture
def logits():
    """With more modalities and with fewer, ``(2, 3, 4, 4, 4)``."""
    return torch.randn(2, 2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()


def test_the_consistency_is_the_divergence_of_each_voxel(logits):
    regions = kl_divergence(*(Bernoulli(logits=x) for x in logits))
    assert one_way_consistency(*logits, regions=True).item() == pytest.approx(regions.mean().item(), rel=1e-5)
    classes = kl_divergence(*(Categorical(logits=x.movedim(1, -1)) for x in logits))
    assert one_way_consistency(*logits, regions=False).item() == pytest.approx(classes.mean().item(), rel=1e-5)


@pytest.mark.parametrize("regions", [True, False])
def test_only_fewer_modalities_learn_and_nothing_from_the_same(logits, regions):
    larger, smaller = (x.clone().requires_grad_() for x in logits)
    one_way_consistency(larger, smaller, regions=regions).backward()
    assert larger.grad is None
    assert smaller.grad.abs().max() > 0
    assert one_way_consistency(larger, larger, regions=regions).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("regions", [True, False])
def test_logits_beyond_all_measure_stay_finite_in_half_precision(regions):
    larger = torch.tensor([60000.0, -60000.0, 0.0]).half().view(1, 3, 1, 1, 1)
    smaller = larger.flip(1).clone().requires_grad_()
    loss = one_way_consistency(larger, smaller, regions=regions)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(smaller.grad).all()


def test_the_hinge_costs_only_where_more_modalities_do_worse():
    assert ranking_hinge(torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.75])).item() == 0.125
