import math

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_d2net.method.network.d2net import D2Net, D2NetOptions
from nnunetv2_d2net.plugin.training.diagnostics import code_variances, gradient_shares, logit_changes


def network_of(**options):
    unet = PlainConvUNet(
        3, 3, (8, 8, 8), nn.Conv2d, 3, ((1, 1), (2, 2), (2, 2)), 1, 2, 1, conv_bias=True,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip
    return D2Net(unet, 3, D2NetOptions(**options)).eval()


@pytest.fixture
def network():
    return network_of()


def test_shares_follow_the_gradient_norms():
    encoder = nn.Linear(4, 1, bias=False)
    out = encoder(torch.ones(1, 4)).sum()
    shares = gradient_shares({"a": out, "b": 3 * out, "nothing": torch.tensor(1.0, requires_grad=True) * 2}, encoder)
    assert shares == pytest.approx({"a": 0.25, "b": 0.75, "nothing": 0.0})
    assert gradient_shares({"a": out, "b": 3 * out}, encoder, scale=1024.0) == pytest.approx({"a": 0.25, "b": 0.75})


def test_a_term_that_nothing_can_change_has_no_share():
    """As the frequency loss has none on the images (Table VIII, input)."""
    encoder = nn.Linear(4, 1, bias=False)
    assert gradient_shares({"a": encoder(torch.ones(1, 4)).sum(), "b": torch.tensor(2.0)}, encoder) == {"a": 1, "b": 0}


def test_shares_of_nothing_are_nan():
    encoder = nn.Linear(4, 1)
    out = encoder(torch.ones(1, 4)).sum()
    assert math.isnan(gradient_shares({"a": out * 0}, encoder)["a"])
    of_infinite = gradient_shares({"a": out, "b": out * math.inf}, encoder)
    assert list(of_infinite) == ["a", "b"]
    assert all(map(math.isnan, of_infinite.values()))


def test_a_scale_keeps_the_gradients_of_half_precision_from_vanishing():
    encoder = nn.Linear(4, 1, bias=False).half()
    out = (encoder.weight * 1e-5).sum().float() * 1e-5
    assert math.isnan(gradient_shares({"a": out, "b": 3 * out}, encoder)["a"])
    shares = gradient_shares({"a": out, "b": 3 * out}, encoder, 2.0**16)
    assert shares == pytest.approx({"a": 0.25, "b": 0.75}, rel=0.05)


def test_a_bottleneck_that_is_ignored_changes_nothing(network):
    images, available = torch.randn(2, 3, 16, 16), torch.ones(2, 3, dtype=torch.bool)
    changes = logit_changes(network, images, available)
    assert changes["bottleneck_zeroed"] > 0.01
    nn.init.zeros_(network.decoder.transpconvs[0].weight)  # the way from the bottleneck into the decoder
    changes = logit_changes(network, images, available)
    assert changes == {"bottleneck_zeroed": 0.0, "codes_swapped": 0.0}


def test_codes_that_are_ignored_change_nothing(network):
    images, available = torch.randn(2, 3, 16, 16), torch.ones(2, 3, dtype=torch.bool)
    images[1] *= 10  # intensities that the codes must see
    assert logit_changes(network, images, available)["codes_swapped"] > 1e-6
    nn.init.zeros_(network.modality_projection.layers[-1].weight)
    changes = logit_changes(network, images, available)
    assert changes["codes_swapped"] == 0
    assert changes["bottleneck_zeroed"] > 0.01


def test_one_case_has_no_other_case(network):
    changes = logit_changes(network, torch.randn(1, 3, 16, 16), torch.ones(1, 3, dtype=torch.bool))
    assert math.isnan(changes["codes_swapped"])
    assert changes["bottleneck_zeroed"] > 0


def test_collapsed_codes_have_no_variance(network):
    images, available = torch.randn(2, 3, 16, 16), torch.ones(2, 3, dtype=torch.bool)
    images *= torch.tensor([1.0, 3.0, 9.0])[:, None, None]
    variances = code_variances(network, images, available)
    assert min(variances.values()) > 1e-6
    nn.init.zeros_(network.modality_encoder.convs[0].weight)
    nn.init.ones_(network.modality_encoder.convs[0].bias)  # every image gives the same code
    assert max(code_variances(network, images, available).values()) < 1e-10


def test_variance_of_codes_against_numpy(network):
    images, available = torch.randn(4, 3, 16, 16), torch.ones(4, 3, dtype=torch.bool)
    available[0, 1] = False
    codes = nn.functional.normalize(network.modality_encoder(images), dim=-1)[:, :, 0].detach()
    groups = [codes[available[:, m], m].numpy() for m in range(3)]
    expected = {
        "within_modality": sum(g.var(0).sum() for g in groups) / 3,
        "between_modalities": np.var([g.mean(0) for g in groups], axis=0).sum(),
    }
    assert code_variances(network, images, available) == pytest.approx(expected, rel=1e-4)
    of_air = code_variances(network, images * 0, available)
    assert of_air.keys() == expected.keys()
    assert all(map(math.isnan, of_air.values()))


def test_changes_are_relative_and_do_not_depend_on_deep_supervision():
    network = network_of(gated_bottleneck=True)
    nn.init.constant_(network.bottleneck_gate.gate, 0.3)
    images, available = torch.randn(2, 3, 16, 16), torch.ones(2, 3, dtype=torch.bool)
    changes = logit_changes(network, images, available)
    assert min(changes.values()) > 1e-4
    network.decoder.deep_supervision = False
    assert logit_changes(network, images, available) == changes
    for parameter in network.decoder.seg_layers[-1].parameters():
        parameter.data *= 0.01
    assert logit_changes(network, images, available) == pytest.approx(changes, rel=1e-4)
    nn.init.zeros_(network.bottleneck_gate.gate)
    assert logit_changes(network, images, available)["gate_shut"] == 0
