"""What of a network and its cases goes into the figures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.study import figures
from nnunetv2_d2net.study.figures import CODES, FEATURES, patterns_of_absence
from nnunetv2_d2net.study.separation import Points

CONTENT = {"channel_names": {"0": "A", "1": "B", "2": "C"}, "file_ending": ".nii.gz"}
LABELS = {"background": 0, "edema": 2, "core": 1}
SIZE = (16, 16)


@pytest.fixture
def network():
    unet = PlainConvUNet(
        3, 2, (8, 8), nn.Conv2d, 3, ((1, 1), (2, 2)), 1, 3, 1, conv_bias=True, norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip
    return D2Net(unet, 3).eval()


@pytest.fixture
def predictor():
    """Give cases of 4 slices, the first of which is empty; the second case lacks modality B."""
    rng = torch.Generator().manual_seed(0)

    def read(files):
        return SimpleNamespace(available=[True, files != ["second"], True])

    def preprocess(case, available):
        data = torch.randn(3, 4, 14, 20, generator=rng)
        data[:, 0] = 0
        return data, {"available_modalities": list(available)}

    return SimpleNamespace(
        dataset=Dataset.of(CONTENT | {"labels": LABELS}),
        label_manager=SimpleNamespace(has_regions=False),
        configuration_manager=SimpleNamespace(patch_size=list(SIZE)),
        device=torch.device("cpu"),
        read=read,
        preprocess=preprocess,
    )


def test_a_code_for_each_slice_of_what_is_there_and_a_feature_for_each_target_and_voxel(
    network, predictor, monkeypatch
):
    marks = torch.tensor([0.0, 1.0, 2.0])  # of the targets
    monkeypatch.setattr(
        network.content_reconstruction,
        "forward",
        lambda z, codes: marks.repeat(len(z))[:, None, None, None].expand(-1, 5, *z.shape[2:]),
    )
    found = figures._vectors(predictor, network, [["first"], ["second"]])
    codes, features = found[CODES], found[FEATURES]
    assert {name: (codes.groups == name).sum() for name in "ABC"} == {"A": 6, "B": 3, "C": 6}  # 3 slices of 4
    assert np.allclose(np.linalg.norm(codes.vectors, axis=1), 1)
    assert features.vectors.shape == (2 * 3 * 4 * 8 * 8, 5)  # cases, targets, slices, bottleneck
    for mark, target in enumerate(["background", "core", "edema"]):  # in the order of their values
        assert (features.vectors[features.groups == target] == mark).all()


def test_codes_stay_with_their_modality(network, predictor, monkeypatch):
    def encode(images, available):
        codes = torch.arange(3.0)[None, :, None, None].expand(len(images), 3, 1, 8) + 1
        codes = torch.cat([codes[..., :1], torch.ones_like(codes[..., 1:])], -1)
        return SimpleNamespace(modality_codes=codes, skips=[images], tumor_codes=None)

    monkeypatch.setattr(network, "encode", encode)
    monkeypatch.setattr(network.content_reconstruction, "forward", lambda z, _: torch.zeros(3 * len(z), 2, 2, 2))
    codes = figures._vectors(predictor, network, [["first"]])[CODES]
    first = {
        name: set((codes.vectors[codes.groups == name][:, 0] / codes.vectors[codes.groups == name][:, 1]).round(3))
        for name in "ABC"
    }
    assert first == {"A": {1}, "B": {2}, "C": {3}}


def test_heads_of_regions_are_in_the_files_order(predictor):
    predictor.label_manager.has_regions = True
    assert figures._targets(predictor) == ["edema", "core"]


@pytest.mark.parametrize(
    ("shape", "size", "middle"),
    [((2, 6, 5, 9), (4, 8, 9), (1, 2, 9, 1)), ((2, 40, 6, 6), (4, 8), (20, 2, 6, 1))],
)
def test_the_patch_is_the_middle_of_a_case_with_zeros_around(shape, size, middle):
    data = torch.arange(float(np.prod(shape))).reshape(shape) + 1
    patch = figures._patch(data, size)
    assert patch.shape[1:] == (2, *size)
    if len(size) == 3:
        assert torch.equal(patch[0, :, :, 1:6], data[:, 1:5, :, :])  # 5 rows in the middle of 8
        assert (patch == 0).sum() == 2 * 4 * 3 * 9
    else:
        assert len(patch) == middle[0]
        assert torch.equal(patch[3, :, :, 1:7], data[:, 6, 1:5])  # every second slice of 40


def test_the_papers_patterns_and_those_of_other_modalities():
    names = ["t1ce", "T2", "Flair", "T1"]
    kept = [{name for name, flag in zip(names, flags, strict=True) if flag} for flags in patterns_of_absence(names)]
    assert kept == [{*names}, {"t1ce", "T2", "Flair"}, {"t1ce", "Flair"}, {"t1ce"}]
    assert patterns_of_absence(["PD", "T2"]) == [(True, True), (False, True)]


def test_a_network_without_codes_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no D2-Net, and has no codes"):
        figures._d2net_of(nn.Conv3d(1, 1, 1), tmp_path)


def test_what_is_drawn_is_measured_and_unknown_numbers_are_none(tmp_path):
    rng = np.random.default_rng(0)
    apart = Points(np.repeat([[0.0], [5.0]], 250, 0) + rng.normal(size=(500, 3)) / 9, np.repeat(["A", "B"], 250))
    alone = Points(apart.vectors[:20], apart.groups[:20])
    titles = dict.fromkeys(("before", "after"), "the same title")
    found = figures._draw_pair(tmp_path / "f.png", {"before": alone, "after": apart}, titles, ["A", "B"], 0)
    assert found["before"] == {"points": 20, "of the vectors": None, "of the plane": None}
    assert found["after"]["points"] == 400  # 200 of each group
    assert found["after"]["of the vectors"] > 0.9
    assert (tmp_path / "f.png").stat().st_size > 5000
