"""Normalizations that each subset of modalities has for itself, in the first stages of the planned U-Net."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import nn
from torch._dynamo.testing import CompileCounter

from nnunetv2_d2net.method.network.subset_normalization import ConditionedUNet
from tests.unit.method.network.conftest import build_unet

COMPLETE = torch.ones(2, 4, dtype=torch.bool)
FEWER = torch.tensor([[True, False, True, False], [True] * 4])


def conditioned(unet):
    """Let the numbers of each subset, which start at zero, be some."""
    network = ConditionedUNet(unet, 4)
    for table in network.normalization.tables:
        nn.init.normal_(table)
    return network.eval()


def rich_residual():
    """A residual encoder with all that its blocks may have."""
    unet = build_unet(residual=True)
    for stage in unet.encoder.stages:
        for block in stage.blocks:
            block.apply_stochastic_depth, block.drop_path = True, nn.Hardshrink(0.1)
            block.apply_se, block.squeeze_excitation = True, nn.Tanh()
    return unet


@pytest.mark.parametrize("build", [build_unet, lambda: build_unet(residual=True), rich_residual])
def test_with_everything_there_and_at_the_start_it_is_the_planned_network_behind_a_guess(build, make_images):
    unet = build().eval()
    network, images = conditioned(deepcopy(unet)), make_images()
    assert torch.equal(network(images, COMPLETE)[0], unet(images)[0])
    features, expected = network.features(images, FEWER), unet.encoder(network.imputation(images, FEWER))
    assert [torch.allclose(f[0], e[0]) for f, e in zip(features, expected, strict=True)] == [False] * 3
    assert [torch.allclose(f[1], e[1], atol=1e-5) for f, e in zip(features, expected, strict=True)] == [True] * 3
    for table in network.normalization.tables:
        nn.init.zeros_(table)
    for found, planned in zip(network.features(images, FEWER), expected, strict=True):
        assert torch.equal(found, planned)


def test_in_all_dimensions(strides, make_images):
    unet = build_unet(strides).eval()
    network, images = conditioned(deepcopy(unet)), make_images(strides)
    assert torch.equal(network(images, COMPLETE)[0], unet(images)[0])
    assert not torch.equal(network(images, FEWER)[0], unet(network.imputation(images, FEWER))[0])


@pytest.mark.parametrize("residual", [False, True])
def test_each_normalization_of_the_first_stages_has_numbers(residual):
    network = conditioned(build_unet(residual=residual))
    sizes = [8, 8, 8, 12, 12] if residual else [8, 12]  # a stem, and two in each block
    assert [tuple(table.shape) for table in network.normalization.tables] == [(2, 2, 2, 2, 2 * n) for n in sizes]


def test_a_normalized_map_is_scaled_and_shifted_before_the_activation(make_images):
    network, images = ConditionedUNet(build_unet(), 4).eval(), make_images()
    subset, last = (1, 0, 1, 0), network.normalization.tables[-1]
    last.data[subset] = torch.cat([torch.full((12,), 0.5), torch.full((12,), -0.25)])
    first, second = network.encoder.stages[0], network.encoder.stages[1][0].convs
    normalized = second[-1].norm(second[-1].conv(first(network.imputation(images, FEWER))))
    found = network.features(images, FEWER)[1]
    assert torch.allclose(found[0], F.leaky_relu(1.5 * normalized[0] - 0.25), atol=1e-5)
    assert torch.allclose(found[1], F.leaky_relu(normalized[1]), atol=1e-5)


def test_a_subset_learns_its_own_numbers_and_no_others(make_images):
    network = ConditionedUNet(build_unet(), 4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(make_images(), FEWER)
    sum(level.float().square().sum() for level in outputs).backward()
    for table in network.normalization.tables:
        assert table.grad.isfinite().all()
        assert table.grad.any(-1).nonzero().tolist() == [[1, 0, 1, 0]]


def test_without_a_normalization_the_convolution_is_followed(make_images):
    unet = build_unet()
    for layer in [layer for layer in unet.encoder.modules() if isinstance(layer, ConvDropoutNormReLU)]:
        del layer.norm
        layer.all_modules = nn.Sequential(layer.conv, layer.nonlin)
    unet.eval()
    network, images = conditioned(deepcopy(unet)), make_images()
    assert torch.equal(network(images, COMPLETE)[0], unet(images)[0])
    assert not torch.allclose(network(images, FEWER)[0][0], unet(network.imputation(images, FEWER))[0][0])


@pytest.mark.parametrize("residual", [False, True])
def test_it_compiles_to_one_graph_whatever_is_missing(residual, make_images):
    torch._dynamo.reset()
    network, images, counter = conditioned(build_unet(residual=residual)), make_images(), CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    for available in (FEWER, COMPLETE, ~FEWER | torch.tensor([False, True, False, False])):
        assert torch.equal(compiled(images, available)[0], network(images, available)[0])
    assert counter.frame_count == 1
