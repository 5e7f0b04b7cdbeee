"""Parts that several modules share: adaptive instance normalization, squeeze-and-excite, convolution blocks."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

Encoder = PlainConvEncoder | ResidualEncoder
LEAKY_SLOPE = 0.01


def adaptive_instance_norm(features: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    r"""Give every channel of every case the statistics that a code asks for.

    .. math:: \mathrm{AdaIN}(x) = (1 + \gamma) \frac{x - \mu(x)}{\sigma(x)} + \beta

    Source: Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, ICCV 2017,
    Eq. 8. Deviates: the scale is 1 + gamma, so that a zero code leaves the normalized features as they are.

    Args:
        features: ``(B, K, *spatial)``, more than one voxel per channel.
        gamma: Scale minus one, ``(B, K)``.
        beta: Mean, ``(B, K)``.

    Returns:
        ``(B, K, *spatial)``.
    """
    return _norm_of_cases(features, gamma, beta).view_as(features)


def adaptive_activation(features: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Apply :func:`adaptive_instance_norm`, then LeakyReLU in place."""
    return F.leaky_relu(_norm_of_cases(features, gamma, beta), LEAKY_SLOPE, inplace=True).view_as(features)


def _norm_of_cases(features: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Return the normalized features as ``(1, B * K, *spatial)``.

    A norm whose affine parameters differ by case needs the cases among the channels. Scaling and shifting inside it
    keeps one map for the backward pass, not three, and takes one pass over the voxels.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    weight, bias = (1 + gamma.to(wide)).flatten(), beta.to(wide).flatten()
    stacked = features.reshape(1, -1, *features.shape[2:])
    return F.batch_norm(stacked, None, None, weight, bias, training=True)


KernelSize = int | list[int] | tuple[int, ...]  # as in the plans


def conv_block(encoder: Encoder, in_channels: int, out_channels: int, kernel_size: KernelSize) -> nn.Module:
    """Build convolution, normalization and activation as the encoder of the plans has them, without dropout.

    The convolution has no bias where a normalization follows, which would take it out again.
    """
    return ConvDropoutNormReLU(
        encoder.conv_op,
        in_channels,
        out_channels,
        kernel_size,
        1,
        conv_bias=encoder.norm_op is None,
        norm_op=encoder.norm_op,
        norm_op_kwargs=encoder.norm_op_kwargs,
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": LEAKY_SLOPE, "inplace": True},
    )


def same_conv(encoder: Encoder, in_channels: int, out_channels: int, kernel_size: KernelSize) -> _ConvNd:
    """Build a bias-free convolution of the encoder's dimension that keeps the size."""
    conv_op: Any = encoder.conv_op
    return conv_op(in_channels, out_channels, kernel_size, padding="same", bias=False)


def point_conv(encoder: Encoder, in_channels: int, out_channels: int, *, bias: bool = False) -> _ConvNd:
    """Build a convolution with kernel size 1 of the encoder's dimension."""
    conv_op: Any = encoder.conv_op
    return conv_op(in_channels, out_channels, 1, bias=bias)


def auxiliary_classifier(encoder: Encoder, level: int, channels: int, n_targets: int, n_convs: int) -> nn.Module:
    """Build what makes logits of one decoder level's features: convolution blocks, and one of kernel size 1 last."""
    blocks = [conv_block(encoder, channels, channels, encoder.kernel_sizes[level]) for _ in range(n_convs - 1)]
    last = point_conv(encoder, channels, n_targets, bias=True)
    return nn.Sequential(*blocks, last) if blocks else last


def scale_and_shift(features: Tensor, parameters: Tensor) -> Tensor:
    """Modulate every channel (FiLM; Perez et al., AAAI 2018): ``(1 + gamma) * features + beta``.

    Args:
        features: ``(B, K, *spatial)``.
        parameters: gamma, then beta, ``(B, 2 K)``; zeros leave the features as they are.
    """
    gamma, beta = parameters.to(features.dtype)[(...,) + (None,) * (features.ndim - 2)].chunk(2, 1)
    return torch.addcmul(beta, features, 1 + gamma)


class SqueezeExcite(nn.Module):
    """Weigh channels by their global context (Hu et al., Squeeze-and-Excitation Networks, CVPR 2018).

    dynamic-network-architectures has one too, but it averages over two axes only, also in 3D.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(B, K, *spatial)``, each channel times a weight in (0, 1)."""
        context = features.flatten(2).mean(-1)
        weights = torch.sigmoid(self.excite(F.leaky_relu(self.squeeze(context), LEAKY_SLOPE)))
        return features * weights[(...,) + (None,) * (features.ndim - 2)]


def feature_map_sizes(encoder: Encoder, input_size: Sequence[int]) -> list[list[int]]:
    """Return the spatial size of every stage of the encoder, full resolution first, for an input of this size."""
    sizes = []
    size = list(input_size)
    for stride in encoder.strides:
        size = [n // s for n, s in zip(size, stride, strict=True)]
        sizes.append(size)
    return sizes
