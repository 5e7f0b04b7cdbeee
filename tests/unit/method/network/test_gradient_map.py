"""Which loss reaches which part: the map of method and paper, and no parameter without a gradient."""

import contextlib

import pytest
import torch

from nnunetv2_d2net.method.losses.d2net_loss import D2NetLoss
from tests.unit.method.network.conftest import OPTIONS

PARTS = {
    "E_M": "modality_encoder.",
    "E_T": "encoder.",
    "E_TM": "modality_projection.",
    "E_R": "content_reconstruction.",
    "Fusion": "fusion.",
    "D_R": "image_decoder.",
    "D_S": "decoder.",
    "D_T": "teacher.",
    "banks": "feature_banks.",
    "embedding": "absent_codes.",
}
REACHED = {
    "sc": {"E_M"},
    "fc": {"E_M"},
    "rec": {"E_M", "E_T", "D_R", "embedding"},
    "seg": {"E_M", "E_T", "E_TM", "E_R", "Fusion", "D_S", "embedding"},
    "aux": {"E_M", "E_T", "E_TM", "E_R", "D_T", "embedding"},
    "consis": {"E_M", "E_T", "E_TM", "E_R", "Fusion", "D_S", "D_T", "embedding"},
    "kd_feature": {"E_M", "E_T", "E_TM", "E_R", "Fusion", "D_S", "D_T", "banks", "embedding"},
    "kd_logit": {"E_M", "E_T", "E_TM", "E_R", "Fusion", "D_S", "D_T", "embedding"},
}


def weighted(logits, target, loss):
    """With nnU-Net's deep-supervision weights: the lowest level has none."""
    weights = [1.0] * (len(logits) - 1) + [0.0]
    return sum(w * loss(x, y) for w, x, y in zip(weights, logits, target, strict=True))


def segmentation_loss(logits, target):
    """Of regions."""
    return weighted(logits, target, torch.nn.functional.binary_cross_entropy_with_logits)


def cross_entropy(logits, target):
    """Of labels."""
    return weighted(logits, target, lambda x, y: torch.nn.functional.cross_entropy(x, y[:, 0].long()))


def random_target(logits, regions):
    if regions:
        return [(torch.rand_like(x) > 0.5).float() for x in logits]
    return [torch.randint(x.shape[1], (len(x), 1, *x.shape[2:])).float() for x in logits]


def part_of(name: str) -> str:
    return next(part for part, prefix in PARTS.items() if name.startswith(prefix))


@pytest.fixture
def setting(strides, make_d2net, make_images):
    network = make_d2net(strides)
    images = make_images(strides)
    available = torch.tensor([[True, True, False, True], [True, False, True, True]])
    loss = D2NetLoss(segmentation_loss, {}, regions=True, ignore_label=None, level_weights=(1.0, 0.0))
    outputs = network(images, available)
    target = random_target(outputs.student_logits, regions=True)
    present = torch.ones(2, 4, dtype=torch.bool)
    return network, loss, loss.terms(outputs, target, images, present), (outputs, target, images, present)


@pytest.mark.parametrize("term", REACHED)
def test_each_term_reaches_exactly_its_parts(term, setting):
    network, _, terms, _ = setting
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(terms[term], parameters, allow_unused=True, retain_graph=True)
    reached = {part_of(n) for n, g in zip(names, gradients, strict=True) if g is not None and g.abs().sum() > 0}
    assert reached == REACHED[term]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("regions", [True, False], ids=["regions", "labels"])
def test_every_parameter_has_a_gradient(options, residual, regions, strides, make_d2net, make_images):
    network = make_d2net(strides, 3, 4, residual=residual, options=options)
    images, available = make_images(strides, 3), torch.tensor([[True, True, False], [False, True, True]])
    outputs = network(images, available)
    segmentation = segmentation_loss if regions else cross_entropy
    loss = D2NetLoss(segmentation, {}, regions=regions, ignore_label=None, level_weights=(1.0, 0.0))
    loss(outputs, random_target(outputs.student_logits, regions), images, torch.ones_like(available)).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_weight_zero_removes_a_gradient_exactly(setting):
    network, loss, _, arguments = setting
    loss.set_weights(dict.fromkeys(("sc", "fc", "rec", "kd_feature", "kd_logit", "aux", "consis"), 0.0))
    loss(*arguments).backward()
    for name, parameter in network.named_parameters():
        if part_of(name) in ("D_R", "D_T", "banks"):
            assert parameter.grad is not None  # DDP wants every parameter used
            assert (parameter.grad == 0).all()


@pytest.mark.parametrize("regions", [True, False])
def test_a_step_never_asks_the_device_for_a_number(strides, regions, make_d2net, make_images, monkeypatch):
    """A tensor without data has no number to tell: whatever would make the host wait for a GPU fails on it."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such tensors
    images, present = make_images(strides), torch.ones(2, 4, dtype=torch.bool)
    with torch.device("meta"):
        network = make_d2net(strides)
    network, images, present = network.to("meta"), images.to("meta"), present.to("meta")
    loss = D2NetLoss(segmentation_loss, {}, regions=regions, ignore_label=3, level_weights=(1.0, 0.0))
    outputs = network(images, present)
    full = [x.new_zeros(2, 4 if regions else 1, *x.shape[2:]) for x in outputs.student_logits]
    loss.segmentation_loss = lambda logits, _: sum(level.square().mean() for level in logits)
    loss(outputs, full, images, present).backward()
    assert all(p.grad.shape == p.shape for p in network.parameters())
    with pytest.raises(RuntimeError, match="meta"):
        loss.last_terms.sum().item()
