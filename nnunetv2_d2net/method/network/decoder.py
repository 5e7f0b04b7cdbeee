"""nnU-Net's own decoder as the holistic student D^S: the same module, read at every level."""

from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor


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
