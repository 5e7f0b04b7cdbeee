"""Thresholds: what each would give, which is chosen, and that the network's bias does the same."""

import logging
from typing import Any, cast

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.method.network.availability import ModulatedUNet
from nnunetv2_d2net.plugin.prediction.operating_point import (
    THRESHOLDS,
    choose_thresholds,
    dice_by_threshold,
    sure_thresholds,
    with_thresholds,
)


def test_dice_of_each_threshold_is_that_of_the_mask_above_it():
    rng = np.random.default_rng(0)
    probabilities, masks = rng.random((3, 5, 6, 7)), rng.random((3, 5, 6, 7)) < 0.3
    probabilities[0, 0, 0] = THRESHOLDS[3]  # a voxel that is just at a threshold is not above it, as in nnU-Net
    table = dice_by_threshold(probabilities, masks)
    for row, threshold in zip(table, THRESHOLDS, strict=True):
        above = probabilities > threshold
        expected = 2 * (above & masks).sum((1, 2, 3)) / (above.sum((1, 2, 3)) + masks.sum((1, 2, 3)))
        np.testing.assert_allclose(row, expected)


def test_nothing_found_where_nothing_is_counts_as_right():
    table = dice_by_threshold(np.full((1, 4), 0.42), np.zeros((1, 4), bool), np.array([0.3, 0.5]))
    assert table.ravel().tolist() == [0, 1]


def test_of_equal_thresholds_the_one_nearest_to_one_half():
    assert sure_thresholds(np.ones((4, len(THRESHOLDS), 3))).tolist() == [0.5] * 3
    dice = np.zeros((2, len(THRESHOLDS), 1))
    dice[:, [1, 4]] = 1
    assert sure_thresholds(dice).tolist() == [THRESHOLDS[4]]


@pytest.mark.parametrize(("gains", "chosen"), [([0.1, 0.1, 0.1, 0.1], 0.2), ([0.4, 0.0, 0.0, 0.0], 0.5)])
def test_a_gain_that_one_case_alone_has_is_not_sure(gains, chosen):
    dice = np.full((4, 2, 1), 0.6)
    dice[:, 0, 0] += gains
    assert sure_thresholds(dice, np.array([0.2, 0.5])) == chosen


def test_a_single_case_decides_by_itself():
    assert sure_thresholds(np.array([[[0.7], [0.6]]]), np.array([0.2, 0.5])) == 0.2


@pytest.fixture
def network():
    torch.manual_seed(0)
    sizes = {"n_stages": 3, "features_per_stage": [4, 6, 8], "kernel_sizes": 3, "strides": [1, 2, 2]}
    counts = {"n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "num_classes": 3, "conv_bias": True}
    norm = {"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    unet = PlainConvUNet(2, conv_op=nn.Conv3d, **sizes, **counts, **norm, deep_supervision=True)
    return ModulatedUNet(unet, 2).eval()


def test_the_shifted_network_is_above_one_half_where_it_was_above_the_threshold(network):
    images, thresholds = torch.randn(1, 2, 16, 16, 16), [0.2, 0.35, 0.7]
    network.decoder.deep_supervision = False
    before = network(images).sigmoid()
    network.load_state_dict(with_thresholds(network.state_dict(), thresholds))
    after = network(images).sigmoid()
    expected = before > torch.tensor(thresholds)[None, :, None, None, None]
    torch.testing.assert_close(after > 0.5, expected)
    assert 0 < expected.float().mean() < 1


def test_coarser_outputs_and_all_else_stay_as_they_are(network):
    before = network.state_dict()
    changed = [name for name, w in with_thresholds(before, [0.2, 0.5, 0.7]).items() if not torch.equal(w, before[name])]
    assert changed == ["decoder.seg_layers.1.bias"]


@pytest.mark.parametrize("thresholds", [[0.2], [0.2] * 4])
def test_another_number_of_regions_is_refused(network, thresholds):
    with pytest.raises(ValueError, match=r"no decoder.seg_layers.1.bias of as many regions"):
        with_thresholds(network.state_dict(), thresholds)


def test_a_network_without_such_a_layer_is_refused():
    with pytest.raises(ValueError, match="thresholds, but no"):
        with_thresholds({"weight": torch.ones(1)}, [0.2])


class Careful:
    """Predicts a lesion at 0.3, and without FLAIR its half at 0.5; beside it 0.1."""

    dataset = Dataset.of(
        {
            "channel_names": {"0": "FLAIR", "1": "T1"},
            "labels": {"background": 0, "whole": [1, 2], "core": [2]},
            "regions_class_order": [1, 2],
            "file_ending": ".nii.gz",
        }
    )
    allowed: tuple[bool, ...] | None = None

    def __init__(self):
        self.asked = []

    def predict_from_files(self, files, output, save_probabilities):
        assert output is None
        assert save_probabilities
        self.asked.append((files, self.allowed))
        logging.getLogger("nnunetv2_d2net").warning("told of each case")
        found = np.full((2, 4, 4, 4), 0.1)
        found[:, :2] = 0.3
        if self.allowed and not self.allowed[0]:
            found[:, :1] = 0.5
        return [(None, found)]


def test_the_choice_is_made_over_all_cases_and_subsets(tmp_path, caplog):
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2] = 2
    for name in ("b", "a"):
        sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / f"{name}.nii.gz")
    predictor = Careful()
    with caplog.at_level("INFO", "nnunetv2_d2net"):
        assert choose_thresholds(cast(Any, predictor), tmp_path / "images", tmp_path) == pytest.approx([0.25, 0.25])
    dice_at = "at 0.25 1.000; at 0.10 1.000; at 0.50 0.000"
    assert "told of each case" not in caplog.text
    assert f"core begins at 0.25 (mean Dice of chosen, best, one half: {dice_at})" in caplog.text
    assert predictor.allowed is None
    files = {name: [[str(tmp_path / "images" / f"{name}_000{m}.nii.gz") for m in range(2)]] for name in "ab"}
    subsets = [(True, False), (False, True), (True, True)]
    assert sorted(predictor.asked) == sorted((files[name], subset) for name in "ab" for subset in subsets)
