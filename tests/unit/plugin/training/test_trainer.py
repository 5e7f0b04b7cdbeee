import pytest
import torch

from nnunetv2_d2net.plugin.training.trainer import holds_air


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
