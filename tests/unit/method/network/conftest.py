"""Tiny U-Nets as nnU-Net's plans describe them, and D2-Nets around them."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunetv2_d2net.method.network.d2net import D2Net, D2NetOptions

ISOTROPIC = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
ANISOTROPIC = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
PLANAR = ((1, 1), (2, 2), (2, 2))
SIX_STAGES = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2))  # as the paper's: banks of four levels
OPTIONS = {
    "default": D2NetOptions(),
    "independent": D2NetOptions(independent_encoders=True),
    "batchnorm": D2NetOptions(encoder_norm=nn.BatchNorm2d),
    "image skips": D2NetOptions(image_decoder_skips=True),
    "full resolution": D2NetOptions(reconstruction_level=0),
    "modulated": D2NetOptions(modulate_skips=True),
    "modulated encoder": D2NetOptions(modulate_encoder=True),
    "full teacher": D2NetOptions(teacher_level=0),
    "recomputed": D2NetOptions(recompute_branches=True),
}


def build_unet(
    strides=ISOTROPIC,
    n_modalities=4,
    n_targets=3,
    *,
    residual=False,
    features=(8, 12, 16),
    kernel_sizes=None,
    deep_supervision=True,
):
    dim = len(strides[0])
    n_stages = len(strides)
    common = {
        "input_channels": n_modalities,
        "n_stages": n_stages,
        "features_per_stage": features,
        "conv_op": {2: nn.Conv2d, 3: nn.Conv3d}[dim],
        "kernel_sizes": kernel_sizes
        or [
            [1 if axis == 0 and strides[min(s + 1, n_stages - 1)][0] == 1 and dim == 3 else 3 for axis in range(dim)]
            for s in range(n_stages)
        ],
        "strides": strides,
        "num_classes": n_targets,
        "conv_bias": True,
        "norm_op": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dim],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": deep_supervision,
    }
    n_decoder = [1] * (n_stages - 1)
    if residual:
        return ResidualEncoderUNet(n_blocks_per_stage=[1] * n_stages, n_conv_per_stage_decoder=n_decoder, **common)
    return PlainConvUNet(n_conv_per_stage=[1] * n_stages, n_conv_per_stage_decoder=n_decoder, **common)


def build_d2net(strides=ISOTROPIC, n_modalities=4, n_targets=3, options: D2NetOptions | None = None, **unet):
    torch.manual_seed(0)
    return D2Net(build_unet(strides, n_modalities, n_targets, **unet), n_modalities, options)


PATCH = {ISOTROPIC: (16, 20, 16), ANISOTROPIC: (8, 24, 20), PLANAR: (24, 20)}


@pytest.fixture
def make_unet():
    return build_unet


@pytest.fixture
def make_d2net():
    return build_d2net


@pytest.fixture(params=[ISOTROPIC, ANISOTROPIC, PLANAR], ids=["3d", "anisotropic", "2d"])
def strides(request):
    return request.param


@pytest.fixture
def make_images():
    def make(strides=ISOTROPIC, n_modalities=4, n_cases=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n_cases, n_modalities, *PATCH[strides], generator=generator)

    return make
