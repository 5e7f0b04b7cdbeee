"""Guess the images that are missing from the others, in front of a U-Net that has learned with all of them."""

from typing import Any, ClassVar, cast

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from torch import Tensor, nn

from nnunetv2_d2net.method.modalities import zero_missing
from nnunetv2_d2net.method.network.availability import ToldUNet
from nnunetv2_d2net.method.network.blocks import LEAKY_SLOPE, Encoder

N_STAGES, N_CHANNELS = 3, 16
"""Of the small U-Net that sees the surroundings: its stages, and the channels of the first, doubled at each other."""

N_FEATURES = 8
"""How many features the guess of a voxel takes from its surroundings."""


class Imputation(nn.Module):
    """Replace missing images by a guess that is made of the others; what is there stays bit for bit.

    A small U-Net sees the surroundings, at the resolution of the planned U-Net's second stage so that it costs little;
    each voxel's guess is made of its features and of the images there. Nothing is normalized, for statistics would
    depend on the window. The last layer starts at zero: untrained, it puts zeros in the place of what is missing, as
    modality dropout does.

    Args:
        encoder: Of the planned U-Net.
        n_modalities: M.
    """

    def __init__(self, encoder: Encoder, n_modalities: int) -> None:
        super().__init__()
        n_inputs = 2 * n_modalities
        kernel_sizes, strides = (list(cast(Any, of)[1:]) for of in (encoder.kernel_sizes, encoder.strides))
        kernel_sizes, strides = (
            [*kernel_sizes, kernel_sizes[-1]][:N_STAGES],
            [*strides, [1] * len(strides[0])][:N_STAGES],
        )
        n_stages = len(strides)  # plans of few stages have a last one without a stride
        activation = {"negative_slope": LEAKY_SLOPE, "inplace": True}
        self.surroundings = PlainConvUNet(
            n_inputs,
            n_stages,
            [N_CHANNELS * 2**stage for stage in range(n_stages)],
            encoder.conv_op,
            kernel_sizes,
            strides,
            n_conv_per_stage=2,
            num_classes=N_FEATURES,
            n_conv_per_stage_decoder=1,
            conv_bias=True,
            nonlin=nn.LeakyReLU,
            nonlin_kwargs=activation,
        )
        cast(Any, self.surroundings.decoder).seg_layers[:-1].requires_grad_(requires_grad=False)  # not used
        conv: Any = encoder.conv_op
        transposed: Any = get_matching_convtransp(conv_op=conv)
        self.upsample = transposed(N_FEATURES, N_CHANNELS, strides[0], strides[0])
        self.at_voxel = conv(n_inputs, N_CHANNELS, 1)
        self.activation = nn.LeakyReLU(**activation)
        self.last_layer = conv(N_CHANNELS, n_modalities, 1)
        self.reset()

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """Fill in what is missing.

        Args:
            images: Normalized images, ``(B, M, *spatial)``; what an unavailable modality holds has no influence.
            available: Bool ``(B, M)``.

        Returns:
            ``(B, M, *spatial)``.
        """
        there = available[(...,) + (None,) * (images.ndim - 2)].expand_as(images)
        seen = zero_missing(images, available)
        given = torch.cat([seen, there.to(seen.dtype)], 1)
        features = self.at_voxel(given) + self.upsample(self.surroundings(given))
        guess = self.last_layer(self.activation(features))
        return torch.where(there, seen, guess.to(seen.dtype))

    def reset(self) -> None:
        """Let every guess be zero."""
        for parameter in self.last_layer.parameters():
            nn.init.zeros_(parameter)

    @property
    def is_blank(self) -> bool:
        """Whether nothing has been learned yet, so that every guess is zero; the host waits for it."""
        return not any(bool(parameter.any()) for parameter in self.last_layer.parameters())


class ImputedUNet(ToldUNet):
    """The planned U-Net behind an :class:`Imputation`: where nothing is missing, it computes the U-Net exactly.

    Args:
        unet: As for :class:`ToldUNet`.
        n_modalities: M.
    """

    taken_whole: ClassVar[tuple[str, ...]] = ("imputation",)
    """Parts that make no sense with some layers of other weights."""

    def __init__(self, unet: nn.Module, n_modalities: int) -> None:
        super().__init__(unet)
        self.imputation = Imputation(self.encoder, n_modalities)

    def features(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """Run the encoder on images that are filled in."""
        return self.encoder(self.imputation(images, available))
