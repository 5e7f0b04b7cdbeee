"""Guess the images that are missing from the others, in front of a U-Net that has learned with all of them."""

from typing import Any, cast

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from nnunetv2_d2net.method.modalities import infer_available, zero_missing
from nnunetv2_d2net.method.network.availability import parts_of
from nnunetv2_d2net.method.network.blocks import LEAKY_SLOPE, Encoder

N_CHANNELS, N_STAGES = 16, 3
"""Of the small U-Net that guesses: channels at full resolution, doubled at each stage, and how many stages."""


class Imputation(nn.Module):
    """Replace missing images by a guess, which a small U-Net makes of the others; what is there stays bit for bit.

    It has no normalization, whose statistics would depend on the window, and the strides and kernels of the planned
    encoder. Its last layer starts at zero: untrained, it puts zeros in the place of what is missing, as modality
    dropout does.

    Args:
        encoder: Of the planned U-Net.
        n_modalities: M.
        n_channels: Of the first stage.
    """

    def __init__(self, encoder: Encoder, n_modalities: int, n_channels: int = N_CHANNELS) -> None:
        super().__init__()
        n_stages = min(N_STAGES, len(encoder.output_channels))
        kernel_sizes, strides = cast(Any, encoder.kernel_sizes), cast(Any, encoder.strides)
        self.unet = PlainConvUNet(
            2 * n_modalities,
            n_stages,
            [n_channels * 2**stage for stage in range(n_stages)],
            encoder.conv_op,
            kernel_sizes[:n_stages],
            strides[:n_stages],
            n_conv_per_stage=2,
            num_classes=n_modalities,
            n_conv_per_stage_decoder=1,
            conv_bias=True,
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"negative_slope": LEAKY_SLOPE, "inplace": True},
        )
        for parameter in self.last_layer.parameters():
            nn.init.zeros_(parameter)

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
        guess = self.unet(torch.cat([seen, there.to(seen.dtype)], 1))
        return torch.where(there, seen, guess.to(seen.dtype))

    @property
    def last_layer(self) -> nn.Module:
        """The convolution whose output is the guess."""
        return cast(nn.ModuleList, self.unet.decoder.seg_layers)[-1]

    @property
    def is_blank(self) -> bool:
        """Whether nothing has been learned yet, so that every guess is zero; the host waits for it."""
        return not any(bool(parameter.any()) for parameter in self.last_layer.parameters())


class ImputedUNet(nn.Module):
    """The planned U-Net behind an :class:`Imputation`: where nothing is missing, it computes the U-Net exactly.

    Args:
        unet: From nnU-Net's plans; its encoder and decoder become part of this network.
        n_modalities: M.
    """

    def __init__(self, unet: nn.Module, n_modalities: int) -> None:
        super().__init__()
        self.encoder, self.decoder = parts_of(unet)
        self.imputation = Imputation(self.encoder, n_modalities)

    def forward(self, images: Tensor, available: Tensor | None = None) -> Tensor | list[Tensor]:
        """Segment as the U-Net does.

        Args:
            images: Normalized images, ``(B, M, *spatial)``; what an unavailable modality holds has no influence.
            available: Bool ``(B, M)``; None to infer it from the images.

        Returns:
            Logits ``(B, C, *spatial)``, or a list of them under deep supervision.
        """
        available = infer_available(images) if available is None else available
        return self.decoder(self.encoder(self.imputation(images, available)))
