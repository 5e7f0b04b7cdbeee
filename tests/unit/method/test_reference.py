"""Network and total loss against the plain-loop references, by option, values and gradients."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from nnunetv2_d2net.method.losses.d2net_loss import LOSS_TERMS, D2NetLoss, LossOptions
from nnunetv2_d2net.method.network.d2net import PAPER_OPTIONS, D2NetOptions
from nnunetv2_d2net.method.network.outputs import D2NetOutputs
from tests.unit.method import reference_losses
from tests.unit.method.network.conftest import ANISOTROPIC, ISOTROPIC, OPTIONS, PLANAR, SIX_STAGES, build_d2net
from tests.unit.method.reference_network import Reference

SIZES = {ISOTROPIC: (8, 12, 8), ANISOTROPIC: (6, 12, 8), PLANAR: (16, 12), SIX_STAGES: (4, 32, 32)}
FEATURES = {3: (8, 12, 16), 6: (4, 4, 6, 6, 8, 8)}
NETWORKS = {name: options for name, options in OPTIONS.items() if name != "batchnorm"}
NETWORKS["superset"] = D2NetOptions(modulate_missing=True, gated_bottleneck=True)
NETWORKS["lending"] = D2NetOptions(modulate_missing=True, lend_to_absent=True)
NETWORKS["all at once"] = D2NetOptions(
    code_length=5,
    independent_encoders=True,
    teacher_width=0.5,
    teacher_level=0,
    image_decoder_width=0.5,
    reconstruction_level=0,
    image_decoder_skips=True,
    modulate_skips=True,
    modulate_encoder=True,
)
LITERAL = PAPER_OPTIONS._replace(encoder_norm=None)  # the reference normalizes case by case
NETWORKS["paper"] = LITERAL
NETWORKS["without E_TM"] = D2NetOptions(tumor_projection=False, modulate_skips=True)
NETWORKS["narrow student"] = D2NetOptions(student_width=0.5, classifier_convs=3)
NETWORKS["five distilled"] = D2NetOptions(distilled_levels=5, teacher_level=0)
NETWORKS["one distilled"] = D2NetOptions(distilled_levels=1)
NETWORKS["frequencies of images"] = D2NetOptions(frequency_level=0)
NETWORKS["frequencies of maps"] = D2NetOptions(frequency_level=2, independent_encoders=True)
LOSSES = {
    "default": LossOptions(),
    "all pairs": LossOptions(sampling="all_pairs"),
    "warm": LossOptions(temperature=0.5),
    "without frequency 0": LossOptions(drop_dc=True),
    "sum": LossOptions(kd_reduction="sum"),
    "three positives": LossOptions(n_positives=3, negative_radius=1),
}
WEIGHTS = {name: 0.25 + 0.125 * i for i, name in enumerate(LOSS_TERMS)}  # exact in float32, as the total is
IGNORE_LABEL = 3


def case_of(strides, options, n_modalities=3, seed=1):
    """A network in float64 whose layers all act, and images of which some are hidden and one slice is constant."""
    network = build_d2net(strides, n_modalities, options=options, features=FEATURES[len(strides)]).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    images = torch.randn(2, n_modalities, *SIZES[strides], dtype=torch.float64, generator=generator)
    if images.ndim == 5:
        images[0, 0, 1] = 2.0
    available = torch.ones(2, n_modalities, dtype=torch.bool)
    available[0, 1], available[1, 0] = False, False
    return network, images, available, generator


def setting_of(outputs, generator, *, regions, ignore, deep_supervision=True, options=None):
    """Targets, and what both losses need to know."""
    sizes = [logits.shape[2:] for logits in outputs.student_logits][: None if deep_supervision else 1]
    weights = [0.5, 0.25, 0.125, 0.125, 0.0625][: len(sizes)]
    weights = [*weights[:-1], 0.0] if len(weights) > 1 else [1.0]
    targets = []
    for size in sizes:
        labels = torch.randint(0, 4 if ignore else 3, (2, 1, *size), generator=generator)
        masks = [labels > 0, labels == 1, labels == 2, *([labels == IGNORE_LABEL] if ignore else [])]
        targets.append(torch.cat(masks, 1) if regions else labels)

    def segmentation(logits, target):
        """In nnU-Net's place, which is no part of this."""
        if isinstance(logits, list):
            return sum(w * segmentation(x, y) for w, x, y in zip(weights, logits, target, strict=False))
        if regions:
            return F.binary_cross_entropy_with_logits(logits, target[:, : logits.shape[1]].to(logits.dtype))
        return F.cross_entropy(logits, target[:, 0], ignore_index=IGNORE_LABEL)

    return SimpleNamespace(
        targets=targets,
        options=options or LossOptions(),
        regions=regions,
        ignore_label=IGNORE_LABEL if ignore else None,
        level_weights=weights,
        segmentation=segmentation,
    )


def loss_of(setting):
    return D2NetLoss(
        setting.segmentation,
        WEIGHTS,
        regions=setting.regions,
        ignore_label=setting.ignore_label,
        level_weights=setting.level_weights,
        options=setting.options,
    )


def assert_same_outputs(found: D2NetOutputs, expected: D2NetOutputs):
    for name, one, other in zip(D2NetOutputs._fields, found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def assert_same_gradients(named, found, expected):
    """With respect to tensors by name."""
    pairs = [
        torch.autograd.grad(value, list(named.values()), allow_unused=True, materialize_grads=True, retain_graph=True)
        for value in (found, expected)
    ]
    largest = max(float(gradient.abs().max()) for gradient in pairs[1])
    for name, one, other in zip(named, *pairs, strict=True):
        tolerance = 1e-7 * max(float(other.abs().max()), 1e-3 * largest)
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


STRIDES = {"3d": ISOTROPIC, "anisotropic": ANISOTROPIC, "2d": PLANAR, "six stages": SIX_STAGES}
PASSES = [
    *product(["3d", "2d"], [name for name in NETWORKS if name != "five distilled"]),
    *product(["anisotropic", "six stages"], ["default", "full teacher", "all at once", "paper"]),
    ("six stages", "five distilled"),
]


@pytest.mark.parametrize(("name", "options"), PASSES)
def test_the_training_pass_is_the_references(name, options):
    strides, options = STRIDES[name], NETWORKS[options]
    network, images, available, _ = case_of(strides, options)
    found, expected = network(images, available), Reference(network, strides, options).outputs(images, available)
    assert_same_outputs(found, expected)
    tensors = [(x, y) for one, other in zip(found, expected, strict=True) for x, y in pairs_of(one, other)]
    weights = [torch.randn_like(x) for x, _ in tensors]
    total = [sum((w * pair[side]).sum() for w, pair in zip(weights, tensors, strict=True)) for side in (0, 1)]
    assert_same_gradients(dict(network.named_parameters()), *total)


def pairs_of(one, other):
    """Tensors of numbers, and those of lists of them."""
    if isinstance(one, list):
        return list(zip(one, other, strict=True))
    return [(one, other)] if isinstance(one, torch.Tensor) and one.dtype != torch.bool else []


def leaves_of(outputs):
    """The tensors that a loss reads, which ask for gradients from now on."""
    named = zip(D2NetOutputs._fields, outputs, strict=True)
    tensors = {f"{name} {i}": x for name, value in named for i, (x, _) in enumerate(pairs_of(value, value))}
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def test_six_stages_have_banks_of_four_levels():
    network, images, available, _ = case_of(SIX_STAGES, D2NetOptions(teacher_level=0))
    outputs = network(images, available)
    assert (len(outputs.student_logits), len(outputs.teacher_logits)) == (5, 5)
    for bank in (outputs.student_features, outputs.teacher_features):
        assert [tuple(maps.shape[2:]) for maps in bank] == [(4, 16, 16), (4, 8, 8), (4, 4, 4), (4, 2, 2)]
    assert (outputs.first_bank_level, outputs.first_teacher_level) == (1, 0)


CASES = [
    *product(["3d"], [True, False], [True, False], [True, False], ["default"]),
    *product(["2d"], [True, False], [True], [True], ["default", "all pairs"]),
    *product(["anisotropic"], [True, False], [True], [True], LOSSES),
    *product(["six stages"], [True, False], [True], [True], ["default", "sum"]),
]
LEVELS = {"sum": {"teacher_level": 0}, "warm": {"frequency_level": 0}, "without frequency 0": {"frequency_level": 3}}
"""Options of the networks whose outputs the losses read."""


@pytest.mark.parametrize(("name", "regions", "ignore", "deep_supervision", "options"), CASES)
def test_the_total_is_the_references(name, regions, ignore, deep_supervision, options):
    network, images, available, generator = case_of(STRIDES[name], D2NetOptions(**LEVELS.get(options, {})))
    with torch.no_grad():
        outputs = network(images, available)
    leaves = leaves_of(outputs)
    setting = setting_of(
        outputs,
        generator,
        regions=regions,
        ignore=ignore,
        deep_supervision=deep_supervision,
        options=LOSSES[options],
    )
    present = available.clone()
    present[0, 1] = True  # there, and hidden
    loss = loss_of(setting)
    target = setting.targets if deep_supervision else setting.targets[0]
    found = loss.terms(outputs, target, images, present)
    expected = reference_losses.terms(outputs, setting.targets, images, present, setting)
    assert found.keys() == expected.keys()
    for term in LOSS_TERMS:
        assert found[term].dtype == torch.float64
        assert found[term].item() == pytest.approx(expected[term].item(), rel=1e-9, abs=1e-12), term
        assert expected[term].item() > 0
    total = loss(outputs, target, images, present)
    reference = sum(WEIGHTS[term] * expected[term] for term in LOSS_TERMS)
    assert total.item() == pytest.approx(reference.item(), rel=1e-6)
    assert loss.last_terms.tolist() == pytest.approx([expected[term].item() for term in LOSS_TERMS], rel=1e-6)
    assert_same_gradients(leaves, total, reference)
