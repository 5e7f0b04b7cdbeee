"""The network as the paper prints it: its size beside Table VII, and what each option of its tables changes."""

import hashlib

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_d2net.method.network.d2net import PAPER_OPTIONS, D2Net, D2NetOptions, count_parameters
from nnunetv2_d2net.method.network.decoder import narrow, student_widths
from nnunetv2_d2net.method.network.md_stage import Untransferred
from tests.unit.method.network.conftest import ISOTROPIC, SIX_STAGES, build_d2net, build_unet

PARAMETERS, OPERATIONS = 5.1e6, 4.2e10  # Table VII
FEATURES = (4, 8, 16, 32, 64, 128)


def paper_network(**options):
    """On plans of D2NetPaperPlanner, four labels with the background, without memory."""
    n = len(FEATURES)
    with torch.device("meta"):
        unet = PlainConvUNet(
            input_channels=4,
            n_stages=n,
            features_per_stage=FEATURES,
            conv_op=nn.Conv3d,
            kernel_sizes=[[3] * 3] * n,
            strides=[[1] * 3, *[[2] * 3] * (n - 1)],
            n_conv_per_stage=[1] * n,
            num_classes=4,
            n_conv_per_stage_decoder=[2] * (n - 1),
            conv_bias=True,
            norm_op=nn.BatchNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=True,
        )
        return D2Net(unet, 4, PAPER_OPTIONS._replace(**options))


def outputs_of(network, n=128):
    with torch.device("meta"), torch.no_grad():
        return network(torch.empty(1, 4, n, n, n), torch.ones(1, 4, dtype=torch.bool))


def test_parameters_and_operations_are_those_of_table_vii():
    network = paper_network()
    with FlopCounterMode(display=False) as counter:
        outputs_of(network)
    assert count_parameters(network) == pytest.approx(PARAMETERS, rel=0.1)
    assert counter.get_total_flops() / 2 == pytest.approx(OPERATIONS, rel=0.1)  # multiply-adds of a training pass


def test_banks_are_the_papers():
    network = paper_network()
    outputs = outputs_of(network)
    assert [tuple(maps.shape[2:]) for maps in outputs.student_features] == [(n,) * 3 for n in (64, 32, 16, 8)]
    assert [conv.in_channels for conv in network.feature_banks.student] == [8, 16, 32, 64]
    assert [conv.in_channels for conv in network.feature_banks.teacher] == [4 * n for n in (8, 16, 32, 64)]
    assert outputs.reconstructions.shape[2:] == outputs.teacher_logits[0].shape[2:] == (128,) * 3
    assert outputs.modality_codes.shape == (1, 4, 128, 8)


def test_normalization_is_the_papers():
    """Batch normalization, and in D_R and E_R AdaIN, which has no module."""
    norms = {
        type(m) for m in paper_network().modules() if "Norm" in type(m).__name__ and "Conv" not in type(m).__name__
    }
    assert norms == {nn.BatchNorm2d, nn.BatchNorm3d}


def test_every_modality_has_an_encoder_and_a_decoder_of_its_own():
    network = build_d2net(options=PAPER_OPTIONS)
    images = torch.randn(2, 4, 16, 16, 16)
    before = network(images, torch.ones(2, 4, dtype=torch.bool))
    with torch.no_grad():
        network.image_decoder.decoders[2].output.bias += 1
        network.modality_encoder.linear.weight[8:16] = 0
    after = network(images, torch.ones(2, 4, dtype=torch.bool))
    assert after.modality_codes.flatten(2).any(-1)[0].tolist() == [True, False, True, True]
    assert torch.allclose(after.reconstructions[:, 0], before.reconstructions[:, 0])
    assert torch.allclose(after.reconstructions[:, 2], before.reconstructions[:, 2] + 1)


def test_the_default_network_is_what_it_was():
    """Options of the paper's tables leave it alone: names, shapes, weights and outputs of one seed."""
    network = build_d2net()
    lines = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in network.state_dict().items())
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "2eb95aa04e681cfe"
    images = torch.linspace(-1, 1, 2 * 4 * 16**3).reshape(2, 4, 16, 16, 16).sin()
    outputs = network(images, torch.tensor([[True] * 4, [True, False, True, True]]))
    sums = [float(x[0].detach().abs().mean()) for x in outputs[:4]]
    sums += [float(x.detach().abs().mean()) for x in (outputs.modality_codes, outputs.reconstructions)]
    assert sums == pytest.approx([0.291932, 0.962609, 0.651679, 0.680441, 0.0909169, 0.00130126], rel=1e-4)
    assert outputs.frequency_maps is None


# --- one option each ---


@pytest.mark.parametrize(("n_levels", "sizes"), [(1, [8]), (2, [16, 8]), (3, [32, 16, 8]), (5, [128, 64, 32, 16, 8])])
def test_distilled_levels(n_levels, sizes):
    outputs = outputs_of(paper_network(distilled_levels=n_levels))
    for bank in (outputs.student_features, outputs.teacher_features):
        assert [maps.shape[-1] for maps in bank] == sizes
    assert outputs.first_bank_level == 5 - n_levels


def test_more_levels_than_there_are_are_refused():
    with pytest.raises(ValueError, match="distilled_levels is 6, the teacher decodes 5: distill fewer, or plan"):
        paper_network(distilled_levels=6)
    with pytest.raises(ValueError, match="distilled_levels is 5, the teacher decodes 4: distill fewer, or plan"):
        paper_network(distilled_levels=5, teacher_level=1)
    small = build_d2net(options=D2NetOptions(distilled_levels=4))  # four, or as many as there are
    assert len(small.feature_banks.student) == 1


@pytest.mark.parametrize(("width", "channels"), [(0.5, [4, 8, 16, 32]), (0.25, [2, 4, 8, 16])])
def test_student_width(width, channels):
    network, whole = paper_network(student_width=width), paper_network()
    assert [conv.in_channels for conv in network.feature_banks.student] == channels
    assert [x.shape for x in outputs_of(network).student_logits] == [x.shape for x in outputs_of(whole).student_logits]
    own, others = (
        [count_parameters(net.decoder) - count_parameters(net.encoder) for net in (network, whole)],
        [count_parameters(net.teacher) for net in (network, whole)],
    )
    assert own[0] < own[1] * width
    assert others[0] == others[1]


@pytest.mark.parametrize("conv_bias", [True, False])
def test_a_student_of_the_planned_width_has_the_planned_layers(conv_bias):
    """The layers that are built anew are like nnU-Net's in everything that a layer's text shows."""
    unet = PlainConvUNet(
        input_channels=4,
        n_stages=3,
        features_per_stage=(8, 12, 16),
        conv_op=nn.Conv3d,
        kernel_sizes=[[1, 3, 3], [3] * 3, [3] * 3],
        strides=[[1] * 3, [1, 2, 2], [2] * 3],
        n_conv_per_stage=[1] * 3,
        num_classes=3,
        n_conv_per_stage_decoder=[2, 1],
        conv_bias=conv_bias,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-3, "affine": True},
        dropout_op=nn.Dropout3d,
        dropout_op_kwargs={"p": 0.125},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": 0.25, "inplace": True},
        deep_supervision=True,
    )
    planned = str(unet.decoder)
    narrow(unet.decoder, 1.0)
    assert str(unet.decoder) == planned
    assert all(layer.bias is not None for layer in unet.decoder.seg_layers)
    narrow(unet.decoder, 0.01)
    assert student_widths(unet.decoder) == [1, 1]


def test_without_the_projection_the_slices_keep_their_codes():
    codes = torch.randn(2, 4, 5, 8)
    projected = Untransferred(3)(codes)
    assert projected.shape == (2, 3, 5, 4 * 8)
    assert all(torch.equal(projected[:, c, 1], codes[:, :, 1].flatten(1)) for c in range(3))


def test_without_the_projection_every_target_gets_all_codes():
    network = build_d2net(options=D2NetOptions(tumor_projection=False)).eval()
    images, available = torch.randn(2, 4, 16, 16, 16), torch.ones(2, 4, dtype=torch.bool)
    content = network.encode(images, available)
    assert not list(network.modality_projection.parameters())
    assert content.tumor_codes.shape == (2, 3, 4 * 8)
    expected = content.modality_codes.mean(2).flatten(1)
    assert all(torch.allclose(content.tumor_codes[:, c], expected) for c in range(3))


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize(("level", "shape"), [(0, (1, 16, 16)), (1, (8, 8, 8)), (2, (16, 4, 4)), (3, (32, 2, 2))])
def test_frequency_level(independent, level, shape):
    network = build_d2net(options=D2NetOptions(frequency_level=level, independent_encoders=independent))
    images, available = torch.randn(2, 4, 16, 16, 16), torch.ones(2, 4, dtype=torch.bool)
    outputs = network(images, available)
    assert outputs.frequency_maps.shape == (2, 4, 16, *shape)
    assert torch.allclose(outputs.modality_codes, network.modality_encoder(images))
    assert outputs.frequency_maps.requires_grad == (level > 0)
    if level == 0:
        assert torch.equal(outputs.frequency_maps[:, :, :, 0], images)


@pytest.mark.parametrize("n_convs", [1, 2, 3])
def test_auxiliary_classifiers_are_below_full_resolution(n_convs):
    network = build_d2net(SIX_STAGES, features=(4, 4, 6, 6, 8, 8), options=D2NetOptions(classifier_convs=n_convs))
    convs = [sum(isinstance(m, nn.Conv3d) for m in head.modules()) for head in network.decoder.seg_layers]
    assert convs == [n_convs] * 4 + [1]
    of_teacher = [sum(isinstance(m, nn.Conv3d) for m in x.classifier.modules()) for x in network.teacher.levels]
    assert of_teacher == [n_convs] * 4


def test_feature_maps_are_counted_with_the_options():
    """Each that brings more maps is planned with more of them."""

    def elements(**options):
        return D2Net(build_unet(ISOTROPIC), 4, D2NetOptions(**options)).compute_conv_feature_map_size([16] * 3)

    widened = [{"classifier_convs": 2}, {"content_width": 1.0}, {"teacher_level": 0}, {"reconstruction_level": 0}]
    assert all(elements(**options) > elements() for options in widened)
    assert elements(independent_image_decoders=True) == elements()
