"""Each code acts on what it belongs to, and on nothing else."""

import pytest
import torch

from nnunetv2_d2net.method.network.blocks import SqueezeExcite
from nnunetv2_d2net.method.network.d2net import D2NetOptions
from tests.unit.method.network.conftest import ISOTROPIC


def widened(module):
    """Let layers that start near zero act."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module


@pytest.mark.parametrize("n_stages", [2, 3])
def test_a_modalitys_code_changes_its_own_reconstruction_only(make_d2net, make_images, n_stages):
    network = make_d2net(ISOTROPIC[:n_stages], features=(8, 12, 16)[:n_stages]).eval()
    decoder = widened(network.image_decoder)
    skips = network.encoder(make_images())
    codes = torch.randn(2, 4, 8)
    changed = codes.clone()
    changed[1, 2] += 1
    moved = (decoder(skips[-1], changed, skips) - decoder(skips[-1], codes, skips)).abs().flatten(2).sum(-1)
    assert moved[1, 2] > 1e-3
    moved[1, 2] = 0
    assert moved.max() < 1e-4


def test_a_targets_code_changes_its_own_features_only(make_d2net, make_images):
    network = make_d2net().eval()
    reconstruction = widened(network.content_reconstruction)
    z = network.encoder(make_images())[-1]
    codes = torch.randn(2, 3, 8)
    changed = codes.clone()
    changed[1, 2] += 1
    moved = (reconstruction(z, changed) - reconstruction(z, codes)).unflatten(0, (2, 3)).abs().flatten(2).sum(-1)
    assert moved[1, 2] > 1e-3
    moved[1, 2] = 0
    assert moved.max() < 1e-4


def test_one_channels_context_moves_the_weights_of_a_squeeze_excite():
    block = widened(SqueezeExcite(16))
    features = torch.rand(1, 16, 4, 4, 4) + 0.5
    changed = features.clone()
    changed[:, :8] += 3
    changed[:, 8:] -= 3  # the mean over all channels stays
    ratio = (block(features) / features).flatten(2)[..., 0]
    moved = (block(changed) / changed).flatten(2)[..., 0]
    assert (ratio - moved).abs().max() > 1e-3


def test_the_bottleneck_is_not_modulated(make_d2net, make_images):
    network = make_d2net(options=D2NetOptions(modulate_skips=True))
    skips = network.encoder(make_images())
    modulated = widened(network.skip_modulation)(skips, torch.randn(2, 3, 8))
    assert modulated[-1] is skips[-1]
    assert len(modulated) == len(skips)
    assert not any(torch.equal(a, b) for a, b in zip(modulated[:-1], skips, strict=False))
