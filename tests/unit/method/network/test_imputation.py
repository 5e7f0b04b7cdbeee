"""The guess of what is missing, in front of the planned U-Net."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.method.network.companion import Companion
from nnunetv2_d2net.method.network.imputation import Imputation, ImputedUNet
from tests.unit.method.network.conftest import PLANAR, build_unet

COMPLETE = torch.ones(2, 4, dtype=torch.bool)
FEWER = torch.tensor([[True, False, True, False], [True] * 4])


def guessing(network):
    """Let the last layer, which starts at zero, guess something."""
    nn.init.normal_(network.imputation.last_layer.weight)
    return network.eval()


@pytest.mark.parametrize("residual", [False, True])
def test_with_everything_there_the_planned_network_computes_whatever_is_guessed(strides, residual, make_images):
    unet = build_unet(strides, residual=residual).eval()
    network, images = guessing(ImputedUNet(deepcopy(unet), 4)), make_images(strides)
    assert torch.equal(network(images, COMPLETE)[0], unet(images)[0])
    both = network(images, FEWER)
    assert not torch.equal(both[0][0], unet(images)[0][0])
    assert torch.allclose(both[0][1], unet(images)[0][1], atol=1e-5)


def test_what_is_there_stays_bit_for_bit_and_what_is_missing_has_no_influence(strides, make_images):
    imputation = guessing(ImputedUNet(build_unet(strides), 4)).imputation
    images = make_images(strides)
    for subset in modality_subsets(4):
        available = subset.expand(2, 4)
        filled = imputation(images, available)
        assert torch.equal(filled[:, subset], images[:, subset])
        assert (filled[:, ~subset] - images[:, ~subset]).abs().gt(1e-3).float().mean() > 0.9 or subset.all()
        marked = images.clone()
        marked[:, ~subset] = float("nan")
        assert torch.equal(imputation(marked, available), filled)


def test_an_untrained_guess_is_zero(make_images):
    imputation = Imputation(build_unet().encoder, 4)
    assert imputation.is_blank
    assert (imputation(make_images(), FEWER)[0, [1, 3]] == 0).all()
    imputation.last_layer.bias.data[2] = 0.1
    assert not imputation.is_blank


def test_which_modalities_there_are_is_inferred_from_the_images(make_images):
    network, images = guessing(ImputedUNet(build_unet(), 4)), make_images()
    told = network(images, FEWER)[0]
    images[0, [1, 3]] = float("nan")
    assert torch.equal(network(images)[0], told)


def test_which_modality_is_missing_changes_the_guess_of_another(make_images):
    imputation = guessing(ImputedUNet(build_unet(), 4)).imputation
    images = make_images() * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None, None, None]  # one that looks as if missing
    one, two = torch.tensor([[True, False, True, False]] * 2), torch.tensor([[True, True, True, False]] * 2)
    assert not torch.allclose(imputation(images, one)[:, 3], imputation(images, two)[:, 3], atol=1e-4)


def test_the_guess_sees_the_surroundings_and_the_voxel_itself():
    imputation = guessing(ImputedUNet(build_unet(), 4)).imputation
    images, available = torch.randn(1, 4, 16, 16, 16, requires_grad=True), torch.tensor([[True, True, True, False]])
    imputation(images, available)[0, 3, 8, 8, 8].backward()
    seen = images.grad.abs()[0]
    assert not seen[3].any()
    assert seen[:3, 8, 8, 8].all()
    assert seen[0, 8, 8, 14] > 0


@pytest.mark.parametrize("n_stages", [2, 3, 4, 5])
def test_its_stages_are_those_of_the_plans_and_few_are_enough(n_stages):
    strides = [(1, 1), (2, 2), (2, 1), (1, 2), (2, 2)][:n_stages]
    imputation = Imputation(build_unet(strides, features=(4, 6, 8, 8, 8)[:n_stages]).encoder, 2)
    expected = [*strides[1:], [1, 1]][:3]
    assert [tuple(s) for s in imputation.surroundings.encoder.strides] == [tuple(s) for s in expected]
    images, available = torch.randn(1, 2, 32, 32), torch.tensor([[True, False]])
    assert imputation(images, available).shape == images.shape


def test_every_weight_learns_and_half_precision_comes_back_in_full(make_images):
    network = guessing(ImputedUNet(build_unet(), 4)).train()
    with torch.autocast("cpu", torch.bfloat16):
        filled = network.imputation(make_images(), FEWER)
        outputs = network(make_images(), FEWER)
    assert filled.dtype == torch.float32
    sum(level.float().square().sum() for level in outputs).backward()
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert "seg_layers" in name
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        before_norm = name.endswith("conv.bias") and not name.startswith("imputation.")
        assert parameter.grad.any() or before_norm, name


def test_a_companion_tells_its_student_what_is_there(make_images):
    unet = build_unet(PLANAR)
    student = guessing(ImputedUNet(deepcopy(unet), 4))
    companion = Companion(student, build_unet(PLANAR, deep_supervision=False), 4).eval()
    companion.student_only = True
    images = make_images(PLANAR)
    assert torch.equal(companion(images, FEWER)[0], student(images, FEWER)[0])
