"""nnU-Net's own decoder as the holistic student D^S: the same module, read at every level."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor

from nnunetv2_d2net.method.network.blocks import LEAKY_SLOPE, auxiliary_classifier, point_conv


def decode_with_features(decoder: UNetDecoder, skips: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Run the decoder's own layers and keep what distillation reads: logits and features of every level.

    ``UNetDecoder.forward`` returns logits alone, and only those that deep supervision asks for. The full-resolution
    logits are the same tensor values as its output.

    Args:
        decoder: nnU-Net's decoder.
        skips: Features of the encoder's stages, full resolution first, the bottleneck last.

    Returns:
        Logits, each ``(B, C, *spatial)``, and features, each ``(B, K, *spatial)``, full resolution first.
    """
    x = skips[-1]
    logits, features = [], []
    for upsample, skip, stage, head in zip(
        decoder.transpconvs, reversed(skips[:-1]), decoder.stages, decoder.seg_layers, strict=True
    ):
        x = stage(torch.cat((upsample(x), skip), 1))
        features.append(x)
        logits.append(head(x))
    return logits[::-1], features[::-1]


def student_widths(decoder: UNetDecoder) -> list[int]:
    """Return the channels of every level, full resolution first."""
    return [cast(StackedConvBlocks, stage).output_channels for stage in reversed(decoder.stages)]


def narrow(decoder: UNetDecoder, factor: float) -> None:
    """Give every layer of the decoder fewer channels, as in the paper's Table IX; it still reads the encoder's skips.

    Args:
        decoder: Changed in place.
        factor: Channels of each layer relative to the planned ones.
    """
    encoder: Any = decoder.encoder
    transposed: Any = get_matching_convtransp(conv_op=encoder.conv_op)
    below = encoder.output_channels[-1]
    for i, (level, stage) in enumerate(zip(_levels(decoder), list(decoder.stages), strict=True)):
        skip, stride = encoder.output_channels[level], tuple(encoder.strides[level + 1])
        width = max(1, int(skip * factor))
        decoder.transpconvs[i] = transposed(below, width, stride, stride, bias=encoder.conv_bias)
        decoder.stages[i] = StackedConvBlocks(
            len(cast(StackedConvBlocks, stage).convs),
            encoder.conv_op,
            width + skip,
            width,
            encoder.kernel_sizes[level],
            1,
            encoder.conv_bias,
            encoder.norm_op,
            encoder.norm_op_kwargs,
            encoder.dropout_op,
            encoder.dropout_op_kwargs,
            encoder.nonlin,
            encoder.nonlin_kwargs,
        )
        decoder.seg_layers[i] = point_conv(encoder, width, decoder.num_classes, bias=True)
        below = width
    for layers in (decoder.transpconvs, decoder.stages, decoder.seg_layers):
        layers.apply(InitWeights_He(LEAKY_SLOPE))


def deepen_classifiers(decoder: UNetDecoder, n_convs: int) -> None:
    """Give every level below full resolution an auxiliary classifier of several convolutions.

    Args:
        decoder: Changed in place.
        n_convs: How many; 1 leaves it as it is.
    """
    encoder: Any = decoder.encoder
    for i, (level, width) in enumerate(zip(_levels(decoder)[:-1], student_widths(decoder)[:0:-1], strict=True)):
        if n_convs > 1:
            head = auxiliary_classifier(encoder, level, width, decoder.num_classes, n_convs)
            decoder.seg_layers[i] = head.apply(InitWeights_He(LEAKY_SLOPE))


def _levels(decoder: UNetDecoder) -> list[int]:
    """Levels of the decoder's layers, in their order: the deepest first."""
    return list(reversed(range(len(decoder.stages))))
