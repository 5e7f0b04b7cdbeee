import pytest
import torch

from nnunetv2_d2net.method.modalities import modality_subsets, zero_missing
from nnunetv2_d2net.method.network.availability import ModulatedUNet
from nnunetv2_d2net.method.network.imputation import ImputedUNet
from nnunetv2_d2net.plugin.prediction.subset_network import SubsetNetwork
from tests.unit.method.network.conftest import build_unet
from tests.unit.plugin.prediction.conftest import Sums, build_network

ALL = modality_subsets(3)


@pytest.fixture
def tile():
    return torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def each(logits, n_subsets):
    assert logits.shape[:2] == (1, n_subsets * 3)
    return logits[0].unflatten(0, (n_subsets, 3))


@torch.no_grad()
@pytest.mark.parametrize("subsets", [ALL, ALL[:1], ALL[-1:], ALL[[4, 2]]], ids=["all", "one", "complete", "two"])
def test_d2net_is_told_each_mask(network, tile, subsets):
    logits = each(SubsetNetwork(network, subsets)(tile), len(subsets))
    for subset, ours in zip(subsets, logits, strict=True):
        torch.testing.assert_close(ours, network(tile, subset[None])[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_mask_says_more_than_zeros(network, tile):
    """A real modality that is zero in a tile, such as air, is not a missing one."""
    tile[:, 1] = 0
    told = each(SubsetNetwork(network, torch.tensor([[True, True, True], [True, False, True]]))(tile), 2)
    assert (told[0] - told[1]).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("kind", [ModulatedUNet, ImputedUNet])
def test_a_unet_that_is_told_is_told_each_mask(kind, tile):
    told = kind(build_unet(n_modalities=3, deep_supervision=False), 3).eval()
    for parameter in told.parameters():
        parameter.normal_(0, 0.2)
    tile[:, 1] = 0  # air, not a missing modality
    logits = each(SubsetNetwork(told, ALL)(tile), len(ALL))
    for subset, ours in zip(ALL, logits, strict=True):
        torch.testing.assert_close(ours, told(tile, subset[None])[0], atol=1e-3, rtol=1e-3)
    assert (logits[-1] - logits[ALL.tolist().index([True, False, True])]).abs().max() > 1e-2


@torch.no_grad()
def test_modalities_are_encoded_once_for_all_subsets(network, tile):
    encoded = []
    network.modality_encoder.register_forward_hook(lambda _module, args, _output: encoded.append(len(args[0])))
    SubsetNetwork(network, ALL)(tile)
    assert encoded == [1]


@torch.no_grad()
@pytest.mark.parametrize("subsets", [ALL, ALL[3:4]])
def test_other_networks_see_zeros(tile, subsets):
    logits = each(SubsetNetwork(Sums(), subsets)(tile), len(subsets))
    expected = Sums()(zero_missing(tile.expand(len(subsets), *tile.shape[1:]), subsets))
    torch.testing.assert_close(logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("told", [True, False])
def test_what_a_subset_lacks_has_no_influence(network, tile, told):
    model = SubsetNetwork(network if told else Sums(), torch.tensor([[True, False, True], [False, False, True]]))
    before = model(tile)
    tile[:, 1] = torch.nan
    assert torch.equal(model(tile), before)


@torch.no_grad()
@pytest.mark.parametrize("told", [True, False])
def test_a_compiled_network(network, tile, told):
    network = network if told else Sums()
    compiled = torch.compile(network, backend="eager")
    ours, plain = SubsetNetwork(compiled, ALL), SubsetNetwork(network, ALL)
    assert ours.bare_network is network
    torch.testing.assert_close(ours(tile), plain(tile), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("compiled", [True, False])
def test_weights_go_into_the_wrapped_network(network, plans, tile, compiled):
    other = build_network(plans, seed=5)
    model = SubsetNetwork(torch.compile(network, backend="eager") if compiled else network, ALL[2:3])
    assert not torch.allclose(model(tile)[0], other(tile, ALL[2:3])[0])
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(tile)[0], other(tile, ALL[2:3])[0], atol=1e-4, rtol=1e-4)
