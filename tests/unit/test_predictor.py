from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunetv2_d2net.errors import UserError
from nnunetv2_d2net.modality_names import available_from_names, modality_names
from nnunetv2_d2net.prediction.predictor import D2NetPredictor


class Told(nn.Module):
    """A network that remembers what it was told; its logits are the sums of its channels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.known_available = None
        self.told = []

    def forward(self, images):
        self.told.append(self.known_available)
        return self.scale * torch.stack([images.sum(1), -images.sum(1)], 1)


class Untold(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        assert not hasattr(self, "known_available")
        return self.scale * torch.stack([images.sum(1), -images.sum(1)], 1)


def predictor_for(network, patch_size=(4, 4, 4)):
    predictor = D2NetPredictor(use_gaussian=False, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.network = network
    predictor.list_of_parameters = [Told().state_dict()]
    predictor.configuration_manager = SimpleNamespace(patch_size=list(patch_size))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=2)
    return predictor


@pytest.fixture
def data():
    return torch.randn(3, 6, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("network", [Told, Untold])
@pytest.mark.parametrize("available", [(True, False, True), (False, False, True), (True, True, True)])
def test_only_available_modalities_are_seen(network, available, data):
    predictor = predictor_for(network())
    predictor.available = available
    logits = predictor.predict_logits_from_preprocessed_data(data)
    expected = data[torch.tensor(available)].sum(0)
    torch.testing.assert_close(logits, torch.stack([expected, -expected]).to(logits), atol=2e-2, rtol=1e-2)


def test_an_absent_modality_has_no_influence_even_as_nan(data):
    predictor = predictor_for(Told())
    predictor.available = (True, False, True)
    before = predictor.predict_logits_from_preprocessed_data(data)
    kept = data.clone()
    data[1] = torch.nan
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(data), before)
    assert torch.equal(data[0], kept[0])
    assert data[1].isnan().all(), "the caller's images are not changed"


def test_the_network_is_told_during_the_call_only(data):
    network = Told()
    predictor = predictor_for(network)
    predictor.available = (True, True, False)
    predictor.predict_logits_from_preprocessed_data(data)
    assert len(network.told) >= 2
    assert all(known.tolist() == [True, True, False] for known in network.told)
    assert network.known_available is None


def test_the_network_is_released_after_an_error(data, monkeypatch):
    network = Told()
    predictor = predictor_for(network)
    predictor.available = (True, True, False)
    monkeypatch.setattr(network, "forward", lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predictor.predict_logits_from_preprocessed_data(data)
    assert network.known_available is None


def test_a_compiled_network_is_told_too(data):
    network = Told()
    predictor = predictor_for(torch.compile(network, backend="eager"))
    predictor.available = (False, True, True)
    logits = predictor.predict_logits_from_preprocessed_data(data)
    torch.testing.assert_close(logits[0].float(), data[1:].sum(0), atol=2e-2, rtol=1e-2)
    assert network.known_available is None
    assert network.told
    assert network.told[0].tolist() == [False, True, True]


def test_without_a_statement_nnunet_decides(data):
    network = Told()
    predictor_for(network).predict_logits_from_preprocessed_data(data)
    assert set(network.told) == {None}


def test_the_previous_stage_of_a_cascade_is_kept(data):
    predictor = predictor_for(Told())
    predictor.available = (True, False)  # of three channels, the last is the previous stage's
    logits = predictor.predict_logits_from_preprocessed_data(data)
    torch.testing.assert_close(logits[0].float(), data[0] + data[2], atol=2e-2, rtol=1e-2)


def test_a_2d_configuration_predicts_slices(data):
    predictor = predictor_for(Told(), patch_size=(4, 4))
    predictor.available = (True, False, True)
    logits = predictor.predict_logits_from_preprocessed_data(data)
    torch.testing.assert_close(logits[0].float(), data[0] + data[2], atol=2e-2, rtol=1e-2)


def test_modality_names_follow_the_channel_numbers():
    assert modality_names({"channel_names": {"10": "K", "2": "C", "0": "A"}}) == ["A", "C", "K"]
    assert modality_names({"modality": {"0": "old"}}) == ["old"]


def test_names_in_their_own_case_win():
    assert available_from_names(["T1", "t1", "T2"], keep=["t1"]) == (False, True, False)


@pytest.mark.parametrize(
    ("names", "keep", "drop", "part"),
    [
        (["A", "B"], ["C"], None, "C is no modality"),
        (["A", "B"], None, ["C"], "C is no modality"),
        (["A", "B"], None, ["b", "a"], "every modality is dropped"),
        (["A", "B"], ["A"], ["A"], "every modality is dropped"),
        (["A", "B"], [], None, "every modality is dropped"),
        (["noNorm", "noNorm"], ["noNorm"], None, "names several channels"),
        (["T1", "t1"], ["T1", "tI"], None, "tI is no modality"),
    ],
)
def test_names_that_make_no_sense(names, keep, drop, part):
    with pytest.raises(UserError, match=part) as error:
        available_from_names(names, keep, drop)
    assert ", ".join(names) in str(error.value)
