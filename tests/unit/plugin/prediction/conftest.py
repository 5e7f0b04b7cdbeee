"""Predictors of tiny models, and folders of cases for them."""

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from tests.unit.plugin.preprocessing.conftest import brains, build_dataset_json, build_plans, write_image

HALF = {"atol": 1e-2, "rtol": 5e-3}
"""nnU-Net adds up weighted logits in half precision, whose relative rounding is 2^-11 at each tile: a difference in the
last bit of float32 may become some of these steps."""


class Sums(nn.Module):
    """Logits of three classes that tell which channels, and how much of each, a network saw."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        weights = torch.arange(1, images.shape[1] + 1).view(1, -1, *[1] * (images.ndim - 2))
        total = self.scale * (weights * images).sum(1)
        return torch.stack([torch.zeros_like(total), total, -total], 1)


def build_network(plans, n_modalities=3, seed=0):
    """A D2-Net with random weights, its absent codes and masks in effect."""
    torch.manual_seed(seed)
    settings = plans.get_configuration("tiny").configuration["architecture"]
    names = (settings["network_class_name"], settings["arch_kwargs"], settings["_kw_requires_import"])
    unet = get_network_from_plans(*names, n_modalities, 3, deep_supervision=False)
    network = D2Net(unet, n_modalities)
    nn.init.normal_(network.absent_codes.embedding, std=3)  # so that a mask makes a difference that zeros do not
    return network.eval()


def build_predictor(network=None, plans=None, *, n_modalities=3, weights=None, mirror_axes=None, kind=D2NetPredictor):
    """A predictor of a network in memory; ``weights`` are those of several folds."""
    plans = plans or build_plans(["ZScoreNormalization"] * n_modalities)
    network = build_network(plans, n_modalities) if network is None else network
    predictor = kind(device=torch.device("cpu"), use_mirroring=mirror_axes is not None, allow_tqdm=False)
    configuration = plans.get_configuration("tiny")
    ending = ".png" if plans.plans["image_reader_writer"] == "NaturalImage2DIO" else ".nii.gz"
    content = build_dataset_json(n_modalities, ending)
    weights = weights or [getattr(network, "_orig_mod", network).state_dict()]
    predictor.manual_initialization(network, plans, configuration, weights, content, "nnUNetTrainer", mirror_axes)
    return predictor


def write_cases(folder, cases, margins=(2, 1, 1), **geometry):
    """Write cases with the channels named for each; their images differ."""
    folder.mkdir(exist_ok=True)
    for seed, (case, channels) in enumerate(cases.items()):
        images = brains(seed=seed, margins=margins)
        for m in channels:
            write_image(folder / f"{case}_{m:04d}.nii.gz", images[m], **geometry)
    return str(folder)


def unweighted(predictor):
    """Weigh all voxels of a tile alike: the Gaussian's corners are too small for half precision to come out exactly."""
    predictor.use_gaussian = False
    return predictor


@pytest.fixture
def plans():
    return build_plans(["ZScoreNormalization"] * 3)


@pytest.fixture
def network(plans):
    return build_network(plans)


@pytest.fixture
def predictor(network, plans):
    return build_predictor(network, plans)


@pytest.fixture
def all_subsets(network, plans):
    return build_predictor(network, plans, kind=AllSubsetsPredictor)


@pytest.fixture
def data():
    return torch.randn(3, 10, 9, 11, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels_on_disk():
    """Read segmentations of a folder, by the name of the file without its ending."""
    import SimpleITK as sitk

    def read(folder):
        paths = sorted(folder.glob("*.nii.gz"))
        return {path.name[:-7]: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in paths}

    return read
