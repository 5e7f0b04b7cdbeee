"""The superset of the planned U-Net, and the companion that keeps the stock network beside its student."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunetv2_d2net.method.modalities import modality_subsets, subset_codes, zero_missing
from nnunetv2_d2net.method.network.availability import Lending, ModulatedUNet
from nnunetv2_d2net.method.network.companion import STOCK, STUDENT, Companion, chosen_network
from nnunetv2_d2net.method.network.d2net import D2Net, D2NetOptions, inference_weights
from tests.unit.method.network.conftest import ANISOTROPIC, ISOTROPIC, PLANAR, build_d2net, build_unet

SUPERSET = D2NetOptions(gated_bottleneck=True, modulate_missing=True)
SUPERSETS = {
    "D2-Net": lambda unet: D2Net(unet, 4, SUPERSET),
    "D2-Net that lends": lambda unet: D2Net(unet, 4, SUPERSET._replace(lend_to_absent=True)),
    "modulated U-Net": lambda unet: ModulatedUNet(unet, 4),
}
COMPLETE, WITHOUT_FIRST = [True] * 4, [False, True, True, True]


def randomized(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


@pytest.mark.parametrize("kind", SUPERSETS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("strides", [ISOTROPIC, ANISOTROPIC, PLANAR])
def test_superset_starts_as_the_planned_network(strides, residual, kind, make_images):
    unet = randomized(build_unet(strides, residual=residual)).eval()
    network = SUPERSETS[kind](deepcopy(unet)).eval()
    images = make_images(strides)
    for subset in modality_subsets(4):
        available = subset.expand(2, 4)
        for theirs, ours in zip(unet(zero_missing(images, available)), network(images, available), strict=True):
            assert torch.equal(theirs, ours)


@pytest.mark.parametrize("kind", SUPERSETS)
@pytest.mark.parametrize("residual", [False, True])
def test_modulation_of_what_is_missing_never_acts_on_complete_input(kind, residual, make_images):
    unet = randomized(build_unet(residual=residual)).eval()
    network = SUPERSETS[kind](deepcopy(unet)).eval()
    modulation = network.modulation if isinstance(network, ModulatedUNet) else network.availability_modulation
    randomized(modulation)
    images, complete = make_images(), torch.ones(2, 4, dtype=torch.bool)
    assert torch.equal(unet(images)[0], network(images, complete)[0])
    fewer = complete.clone()
    fewer[1, 2] = False
    moved = (unet(zero_missing(images, fewer))[0] - network(images, fewer)[0]).abs().flatten(1).amax(1)
    assert moved[0] == 0
    assert moved[1] > 1e-3


@pytest.mark.parametrize(("conv", "shape"), [(nn.Conv2d, (7, 6)), (nn.Conv3d, (4, 5, 6))])
def test_what_is_lent_is_a_mean_of_filters_for_each_absent_modality(conv, shape):
    lending = randomized(Lending(conv(3, 5, 3, padding=1)))
    images = torch.randn(2, 3, *shape)
    available = torch.tensor([[True, False, False], [True, False, True]])
    images = zero_missing(images, available)
    expected = torch.zeros(2, 5, *shape)
    convolve = F.conv2d if conv is nn.Conv2d else F.conv3d
    for case in range(2):
        there = available[case].nonzero()[:, 0].tolist()
        for absent in set(range(3)) - set(there):
            for n in there:
                filters = lending.weight[absent][:, n : n + 1]
                expected[case] += convolve(images[case : case + 1, n : n + 1], filters, padding=1)[0] / len(there)
    assert torch.allclose(lending(images, available), expected, atol=1e-5)
    assert (lending(images, torch.ones(2, 3, dtype=torch.bool)) == 0).all()


def test_a_modulated_network_reads_what_is_missing_from_the_images(make_images):
    network = ModulatedUNet(randomized(build_unet()), 4).eval()
    randomized(network.modulation)
    images, available = make_images(), torch.tensor([COMPLETE, WITHOUT_FIRST])
    expected = network(images, available)[0]
    images[1, 0] = float("nan")
    assert torch.equal(network(images)[0], expected)
    assert torch.equal(network(images, available)[0], expected)


def test_lending_learns_from_zero(make_images):
    network = ModulatedUNet(build_unet(), 4).train()
    network(make_images(), torch.tensor([COMPLETE, WITHOUT_FIRST]))[0].square().mean().backward()
    moved = network.modulation.lending.weight.grad.flatten(1).abs().amax(1)
    assert moved[0] > 0
    assert (moved[1:] == 0).all()


def test_an_open_gate_lets_the_fusion_in(make_images):
    network = randomized(D2Net(build_unet(), 4, SUPERSET)).eval()
    images, available = make_images(), torch.ones(2, 4, dtype=torch.bool)
    assert network.bottleneck_gate.opening() > 0.1
    opened = network(images, available)[0]
    with torch.no_grad():
        network.bottleneck_gate.gate.zero_()
    assert network.bottleneck_gate.opening() == 0
    assert not torch.allclose(opened, network(images, available)[0])


def test_gate_gets_a_gradient_while_it_is_shut(make_images):
    network = D2Net(build_unet(), 4, SUPERSET).train()
    outputs = network(make_images(), torch.ones(2, 4, dtype=torch.bool))
    outputs.student_logits[0].square().mean().backward()
    assert network.bottleneck_gate.gate.grad.abs().max() > 0


def test_two_modulations_exclude_each_other():
    with pytest.raises(ValueError, match="choose one"):
        D2Net(build_unet(), 4, D2NetOptions(modulate_encoder=True, modulate_missing=True))


def test_modulation_of_what_is_there_is_as_before(make_images):
    network = randomized(build_d2net(options=D2NetOptions(modulate_encoder=True))).eval()
    images = make_images()
    assert network.availability_modulation.linears[0].bias is not None
    before = network(images, torch.tensor([COMPLETE, WITHOUT_FIRST]))[0]
    with torch.no_grad():
        network.availability_modulation.linears[0].bias.add_(1)
    assert not torch.allclose(before, network(images, torch.tensor([COMPLETE, WITHOUT_FIRST]))[0])


STUDENTS = {
    "D2-Net": lambda unet: D2Net(unet, 4, SUPERSET),
    "modulated U-Net": lambda unet: ModulatedUNet(unet, 4),
    "U-Net": lambda unet: unet,
}


@pytest.fixture(params=STUDENTS)
def companion(request):
    stock = randomized(build_unet(deep_supervision=False), 1)
    student = STUDENTS[request.param](randomized(build_unet(deep_supervision=False), 2))
    if request.param == "modulated U-Net":
        randomized(student.modulation, 3)
    return Companion(student, stock, 4).eval()


def of_student(companion, images, available):
    if isinstance(companion.student, (D2Net, ModulatedUNet)):
        return companion.student(images, available)
    return companion.student(zero_missing(images, available))


def test_stock_predicts_complete_input_and_nothing_else_at_first(companion, make_images):
    images = make_images()
    for subset in modality_subsets(4):
        available = subset.expand(2, 4)
        expected = companion.stock(images) if subset.all() else of_student(companion, images, available)
        assert torch.equal(companion(images, available), expected)


def test_each_case_of_a_batch_goes_to_its_own_network(companion, make_images):
    images, available = make_images(), torch.tensor([COMPLETE, WITHOUT_FIRST])
    logits = companion(images, available)
    assert torch.allclose(logits[0], companion.stock(images)[0], atol=1e-6)
    assert torch.allclose(logits[1], of_student(companion, images, available)[1], atol=1e-6)


def test_table_decides(companion, make_images):
    images, without_first = make_images(), torch.tensor([WITHOUT_FIRST]).expand(2, 4)
    companion.by_stock[subset_codes(torch.tensor([WITHOUT_FIRST, COMPLETE]))] = torch.tensor([True, False])
    assert torch.equal(companion(images, without_first), companion.stock(zero_missing(images, without_first)))
    complete = torch.ones(2, 4, dtype=torch.bool)
    assert torch.equal(companion(images, complete), of_student(companion, images, complete))


def test_without_a_mask_it_reads_the_images(companion, make_images):
    images = make_images()
    images[1, 0] = float("nan")
    logits = companion(images)
    available = torch.tensor([COMPLETE, WITHOUT_FIRST])
    assert torch.equal(logits, companion(images, available))


def test_student_only(companion, make_images):
    images, complete = make_images(), torch.ones(2, 4, dtype=torch.bool)
    companion.student_only = True
    assert torch.equal(companion(images, complete), of_student(companion, images, complete))
    for name, expected in ((STOCK, companion.stock(images)), (STUDENT, of_student(companion, images, complete))):
        assert torch.equal(companion.by_name(name, images, complete), expected)


def test_training_reaches_the_student_alone(make_images):
    companion = Companion(D2Net(build_unet(), 4, SUPERSET), build_unet(deep_supervision=False), 4).train()
    assert not companion.stock.training
    outputs = companion(make_images(), torch.ones(2, 4, dtype=torch.bool))
    outputs.student_logits[0].mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in companion.stock.parameters())
    assert any(p.grad is not None for p in companion.student.parameters())


def test_weights_without_the_stock_network_make_a_student_alone(companion, make_images):
    others = {name: w for name, w in companion.state_dict().items() if not name.startswith("stock.")}
    images, complete = make_images(), torch.ones(2, 4, dtype=torch.bool)
    expected = of_student(companion, images, complete)
    companion.load_state_dict(others)
    assert companion.stock is None
    assert torch.equal(companion(images, complete), expected)


@pytest.mark.parametrize("has_stock", [True, False])
def test_which_network_predicts_is_told_from_the_weights(has_stock):
    companion = Companion(build_unet(), build_unet(), 4)
    companion.by_stock[subset_codes(torch.tensor([WITHOUT_FIRST]))] = True
    weights = {name: w for name, w in companion.state_dict().items() if has_stock or not name.startswith("stock.")}
    by_stock = STOCK if has_stock else STUDENT
    assert [chosen_network(weights, flags) for flags in (COMPLETE, WITHOUT_FIRST)] == [by_stock, by_stock]
    assert chosen_network(weights, [True, False, True, True]) == STUDENT
    assert chosen_network(build_unet().state_dict(), COMPLETE) is None


def test_exported_weights_fit(companion, make_images):
    images, available = make_images(), torch.tensor([COMPLETE, WITHOUT_FIRST])
    expected = companion(images, available)
    exported = inference_weights(companion.state_dict())
    assert not any("teacher" in name or "image_decoder" in name for name in exported)
    companion.load_state_dict(exported)
    assert torch.equal(companion(images, available), expected)


def test_everything_is_handed_on_to_the_student(make_images):
    """Masks that the images do not show, and codes that are not theirs."""
    companion = Companion(D2Net(randomized(build_unet()), 4, SUPERSET), build_unet(), 4).eval()
    student, images = companion.student, make_images()
    available, codes = torch.tensor([COMPLETE, WITHOUT_FIRST]), torch.randn(2, 4, 16, 8)
    calls = []
    student.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    companion.student_only = True
    companion(images, available, codes)
    companion.by_name(STUDENT, images, available)
    companion.train()(images, available, codes)
    for (found, mask, given), of_call in zip(calls, (codes, None, codes), strict=True):
        assert found is images
        assert mask is available
        assert given is of_call


def test_parts_that_others_look_for_are_the_students(companion):
    assert companion.encoder is companion.student.encoder
    assert companion.decoder is companion.student.decoder
    assert companion.modality_encoder is getattr(companion.student, "modality_encoder", None)
    assert (companion.modality_encoder is None) != isinstance(companion.student, D2Net)


def test_codes_of_subsets_stay_on_their_device():
    assert subset_codes(torch.ones(2, 3, dtype=torch.bool, device="meta")).device.type == "meta"


def test_codes_of_a_mixed_batch_go_with_their_cases(make_images):
    companion = Companion(D2Net(randomized(build_unet()), 4, SUPERSET), build_unet(deep_supervision=False), 4).eval()
    companion.decoder.deep_supervision = False
    calls, codes = [], torch.randn(2, 4, 16, 8)
    companion.student.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    images, fewer = make_images(), torch.tensor([WITHOUT_FIRST]).expand(2, 4)
    companion(images, torch.tensor([COMPLETE, WITHOUT_FIRST]), codes)
    companion(images, fewer, codes)
    assert [torch.equal(call[2], expected) for call, expected in zip(calls, (codes[1:], codes), strict=True)] == [
        True
    ] * 2
    assert torch.equal(calls[0][0], images[1:])


def test_a_plain_student_alone_reads_images_without_a_mask(make_images):
    companion = Companion(build_unet(), build_unet(), 4).eval()
    companion.student_only = True
    images = make_images()
    assert torch.equal(companion(images)[0], companion.student(images)[0])
