import pytest
import torch

from nnunetv2_d2net.plugin.training.trainer import ablated, holds_air


@pytest.mark.parametrize("size", [(9, 10, 11), (9, 10)])
def test_air_is_a_case_whose_visible_modalities_are_zero(size):
    images = torch.zeros(2, 2, *size)
    images[0, 0] = 1
    images[1, 1].view(-1)[-2] = -1  # none of the voxels that are looked at first
    both, first, second = (torch.tensor([flags]) for flags in ([True, True], [True, False], [False, True]))
    assert not holds_air(images, both.expand(2, 2))
    assert not holds_air(images[:1], first)
    assert holds_air(images[:1], second)
    assert holds_air(images, first.expand(2, 2))
    assert not holds_air(images[1:], second)
    assert holds_air(torch.zeros(1, 2, *size), both)


def test_what_is_kept_of_the_ablated_losses_keeps_its_weight():
    weights = {"sc": 0.1, "fc": 0.2, "rec": 0.3, "kd_feature": 0.4, "kd_logit": 0.5}
    assert ablated(weights) == dict.fromkeys(weights, 0.0) | {"rec": 0.3}
    assert ablated(weights, "sc") == dict.fromkeys(weights, 0.0) | {"rec": 0.3, "sc": 0.1}
    assert ablated(weights, "sc", "fc", "kd_feature", "kd_logit") == weights
