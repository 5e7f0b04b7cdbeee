"""How wide the parts are, of which layers they are made, and what their weights start as."""

import math

import pytest
import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import nn

from nnunetv2_d2net.method.network.blocks import SqueezeExcite
from nnunetv2_d2net.method.network.d2net import D2NetOptions
from nnunetv2_d2net.method.network.md_stage import ModalityEncoder
from tests.unit.method.network.conftest import ANISOTROPIC, ISOTROPIC, SIX_STAGES, build_d2net, build_unet

WIDE = (32, 64, 130)


def outputs_of(module, kinds=(nn.Conv2d, nn.Conv3d)):
    return [layer.out_channels for layer in module.modules() if isinstance(layer, kinds)]


def test_widths_are_shares_of_the_planned_ones():
    network = build_d2net(features=WIDE)
    assert network.teacher.widths == [16]
    assert network.image_decoder.widths == [16]
    assert network.image_decoder.reduce.out_channels == 32
    assert network.content_reconstruction.width == 65
    assert outputs_of(network.content_reconstruction) == [65] * 5
    assert network.feature_banks.width == 16
    assert network.fusion.squeeze_excite.squeeze.out_features == 16
    options = D2NetOptions(teacher_width=0.5, teacher_level=0, image_decoder_width=0.75, reconstruction_level=0)
    network = build_d2net(features=WIDE, options=options)
    assert network.teacher.widths == [16, 32]
    assert network.image_decoder.widths == [48, 24]
    assert network.image_decoder.reduce.out_channels == 97


def test_no_part_is_narrower_than_four_channels():
    network = build_d2net(features=(5, 6, 7), options=D2NetOptions(teacher_level=0, reconstruction_level=0))
    assert network.teacher.widths == network.image_decoder.widths == [4, 4]
    assert network.content_reconstruction.width == 4
    assert network.fusion.squeeze_excite.squeeze.out_features == 4
    assert SqueezeExcite(48).squeeze.out_features == 6


def test_sizes_of_the_small_parts():
    network = build_d2net()
    assert network.modality_encoder.widths == (8, 16, 32, 32)
    assert outputs_of(network.modality_projection) == [16, 16, 3]
    assert [layer.out_channels for layer in network.content_reconstruction.target_codes.layers[::2]] == [96, 192]
    assert ModalityEncoder(2).linear.out_channels == 8


@pytest.mark.parametrize(("stages", "levels"), [(2, (0, 1)), (3, (1, 1)), (6, (1, 4))])
def test_banks_hold_the_deepest_four_levels_below_full_resolution(stages, levels):
    network = build_d2net(SIX_STAGES[:stages], features=(4, 5, 6, 7, 8, 9)[:stages])
    banks = network.feature_banks
    assert (banks.first_level, len(banks.student)) == levels
    assert len(banks.teacher) == len(banks.student)
    seven = build_d2net((*SIX_STAGES, (1, 2, 2)), features=(4, 4, 5, 6, 7, 8, 9)).feature_banks
    assert (seven.first_level, seven.skipped_teacher_levels, len(seven.student)) == (2, 1, 4)
    assert [conv.in_channels for conv in seven.student] == [5, 6, 7, 8]
    coarse = build_d2net(SIX_STAGES, features=(4, 5, 6, 7, 8, 9), options=D2NetOptions(teacher_level=3)).feature_banks
    assert (coarse.first_level, coarse.skipped_teacher_levels, len(coarse.student)) == (3, 0, 2), "as far as it decodes"


def test_convolutions_at_the_bottleneck_have_the_kernel_of_its_stage():
    network = build_d2net(ANISOTROPIC, kernel_sizes=[[1, 3, 3], [3, 1, 3], [3, 3, 1]])
    assert {conv.kernel_size for conv in network.content_reconstruction.convs} == {(3, 3, 1)}
    assert {m.kernel_size for m in network.fusion.conv_out.modules() if isinstance(m, nn.Conv3d)} == {(3, 3, 1)}


def test_the_modality_encoders_last_layer_reads_its_last_maps():
    encoder = ModalityEncoder(2, 5, widths=(2, 3, 4, 6))
    assert encoder.linear.in_channels == 6
    assert encoder(torch.randn(1, 2, 3, 32, 32)).shape == (1, 2, 3, 5)


def test_an_encoder_with_norms_has_each_between_convolution_and_activation():
    plain, normed = ModalityEncoder(2), ModalityEncoder(2, norm_op=nn.BatchNorm2d, independent=True)
    assert [type(layer) for layer in plain.convs] == [nn.Conv2d, nn.LeakyReLU] * 4
    assert [type(layer) for layer in normed.convs] == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] * 4
    assert [layer.num_features for layer in normed.convs[1::3]] == [16, 32, 64, 64]
    assert build_d2net(options=D2NetOptions(encoder_norm=nn.BatchNorm2d)).modality_encoder.convs[1].num_features == 8


def test_blocks_are_normalized_as_the_planned_ones_are():
    network = build_d2net()
    blocks = [network.fusion.conv_in, network.fusion.conv_out, network.teacher.levels[0].conv]
    assert all(block.conv.bias is None for block in blocks)
    for norm in [*(block.norm for block in blocks), network.teacher.levels[0].norm]:
        assert isinstance(norm, nn.InstanceNorm3d)
        assert (norm.eps, norm.affine) == (1e-5, True)
    assert all((block.nonlin.negative_slope, block.nonlin.inplace) == (0.01, True) for block in blocks)
    activations = [layer for layer in network.modality_encoder.convs if isinstance(layer, nn.LeakyReLU)]
    assert all((layer.negative_slope, layer.inplace) == (0.01, True) for layer in activations)


def test_without_normalization_in_the_plans_blocks_have_a_bias():
    unet = build_unet()
    unet.encoder.norm_op, unet.encoder.norm_op_kwargs = None, None
    torch.manual_seed(0)
    network = type(build_d2net())(unet, 4)
    assert isinstance(network.teacher.levels[0].norm, nn.Identity)
    for block in (network.fusion.conv_in, network.fusion.conv_out, network.teacher.levels[0].conv):
        assert block.conv.bias is not None
        assert not hasattr(block, "norm")
    unet = build_unet()
    unet.encoder.norm_op_kwargs = None
    assert type(build_d2net())(unet, 4).teacher.levels[0].norm.affine is False


def test_nothing_is_dropped_at_random():
    kinds = [module for module in build_d2net().modules() if "Dropout" in type(module).__name__]
    assert [module for module in kinds if getattr(module, "p", 0) > 0] == []


def spread(weight):
    """Standard deviation, over that of He's initialization for LeakyReLU."""
    fan_in = weight[0].numel()
    return float(weight.std()) / math.sqrt(2 / (1 + 0.01**2) / fan_in)


def test_own_parts_start_by_hes_rule_and_the_image_decoders_output_near_zero():
    network = build_d2net(ISOTROPIC, features=(32, 64, 96), options=D2NetOptions(modulate_skips=True))
    own = ("modality_encoder", "content_reconstruction", "fusion", "teacher", "image_decoder", "feature_banks")
    for name in own:
        for layer_name, layer in getattr(network, name).named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)) and layer.weight.numel() > 500:
                assert spread(layer.weight.detach()) == pytest.approx(1, abs=0.15), (name, layer_name)
                assert layer.bias is None or not layer.bias.any()
    output = build_d2net(features=(256, 512, 64)).image_decoder.output
    assert float(output.weight.detach().std()) == pytest.approx(1e-3, rel=0.25)
    assert not output.bias.any()
    assert all(not p.any() for p in network.skip_modulation.parameters())
    assert float(network.absent_codes.embedding.detach().std()) == pytest.approx(0.1, rel=0.35)


def test_the_planned_parts_keep_their_weights():
    unet = build_unet()
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    network = type(build_d2net())(unet, 4)
    assert all(torch.equal(weight, network.state_dict()[name]) for name, weight in before.items())


def test_the_transposed_convolutions_are_nnunets():
    """InitWeights_He knows them, too."""
    weight = build_d2net(features=(64, 128, 256)).teacher.levels[0].up.weight.detach()
    reference = nn.ConvTranspose3d(weight.shape[0], weight.shape[1], 2, 2, bias=False).apply(InitWeights_He(0.01))
    assert float(weight.std()) == pytest.approx(float(reference.weight.detach().std()), rel=0.1)
