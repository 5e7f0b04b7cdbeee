"""MD-Stage, left half of the paper's Fig. 2: modality encoders E_M, projection E_TM and image decoder D_R."""

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_d2net.method.network.blocks import LEAKY_SLOPE, Encoder, adaptive_activation, point_conv, same_conv


class ModalityEncoder(nn.Module):
    """E_M: one code per modality and slice, from that slice alone.

    Slices are cut along the first spatial axis, nnU-Net's axis of lowest resolution; a 2D image is one slice. In-plane
    convolutions, global average pooling, and a bias-free linear layer last, so that cosines can be negative and a
    constant code cannot be learned by biases alone. There is no normalization before the pooling: it would erase
    the intensity statistics that are the modality.

    Deviates from the paper: all modalities share one encoder. With one encoder each (``independent``), every encoder
    can emit its own constant, and the contrastive loss is zero for a code that has seen nothing.
    """

    def __init__(
        self,
        n_modalities: int,
        code_length: int = 8,
        *,
        widths: Sequence[int] = (8, 16, 32, 32),
        independent: bool = False,
        norm_op: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.groups = n_modalities if independent else 1
        layers: list[nn.Module] = []
        for c_in, c_out in zip((1, *self.widths[:-1]), self.widths, strict=True):
            conv = nn.Conv2d(c_in * self.groups, c_out * self.groups, 3, 2, padding=1, groups=self.groups)
            layers += [conv, nn.LeakyReLU(LEAKY_SLOPE, inplace=True)]
            if norm_op is not None:
                layers.insert(-1, norm_op(c_out * self.groups))
        self.convs = nn.Sequential(*layers)
        self.linear = nn.Conv1d(
            self.widths[-1] * self.groups, code_length * self.groups, 1, groups=self.groups, bias=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encode images ``(B, M, G, H, W)`` or ``(B, M, H, W)`` into codes ``(B, M, G, N)``, with G = 1 in 2D."""
        return self._by_slice(self._codes(self.convs(self._slices(images))), images)

    def codes_and_maps(self, images: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Encode images, and also return what the codes are made of.

        Args:
            images: As in ``forward``.
            level: 0 for the images, otherwise the maps behind so many of the four convolutions.

        Returns:
            Codes ``(B, M, G, N)`` and maps ``(B, M, G, K, H, W)``.
        """
        end = level * len(self.convs) // len(self.widths)
        maps = self.convs[:end](self._slices(images))
        return (
            self._by_slice(self._codes(self.convs[end:](maps)), images),
            self._by_slice(maps, images),
        )

    def _slices(self, images: Tensor) -> Tensor:
        """Put slices on the batch axis: ``(B * M * G, 1, H, W)``, or ``(B * G, M, H, W)`` with an encoder each."""
        slices = images.unsqueeze(2) if images.ndim == 4 else images  # (B, M, G, H, W)
        return slices.flatten(0, 2)[:, None] if self.groups == 1 else slices.transpose(1, 2).flatten(0, 1)

    def _codes(self, maps: Tensor) -> Tensor:
        return self.linear(maps.mean((-2, -1))[..., None]).squeeze(-1)

    def _by_slice(self, values: Tensor, images: Tensor) -> Tensor:
        """Undo ``_slices``: ``(B, M, G, K, ...)``."""
        n_cases, n_modalities = images.shape[:2]
        if self.groups == 1:
            return values.unflatten(0, (n_cases, n_modalities, -1))
        return values.unflatten(0, (n_cases, -1)).unflatten(2, (n_modalities, -1)).transpose(1, 2)

    def compute_conv_feature_map_size(self, input_size: Sequence[int], n_modalities: int) -> int:
        """Count the elements of all feature maps, as nnU-Net's planner does, for a patch of this size."""
        n_slices = math.prod(input_size[:-2])
        in_plane = list(input_size[-2:])
        total = 0
        for width in self.widths:
            in_plane = [math.ceil(n / 2) for n in in_plane]
            total += width * math.prod(in_plane)
        return total * n_slices * n_modalities


def informative_slices(images: Tensor, available: Tensor) -> Tensor:
    """Mark the slices that can say anything about their modality: available, and not constant in the patch.

    Args:
        images: ``(B, M, G, H, W)`` or ``(B, M, H, W)``.
        available: Bool ``(B, M)``.

    Returns:
        Bool ``(B, M, G)``, with G = 1 in 2D.
    """
    slices = (images.unsqueeze(2) if images.ndim == 4 else images).flatten(3)
    return (slices.amax(-1) > slices.amin(-1)) & available[..., None]


class ModalityProjection(nn.Module):
    """E_TM: a linear map from modality-specific codes c to tumor-specific codes, by three 1x1 convolutions."""

    def __init__(self, n_modalities: int, n_targets: int, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(n_modalities, hidden, 1), nn.Conv2d(hidden, hidden, 1), nn.Conv2d(hidden, n_targets, 1)
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes ``(B, M, G, N)`` to tumor-specific codes ``(B, C, G, N)``, each slice on its own."""
        return self.layers(codes)


class Untransferred(nn.Module):
    """In the place of E_TM (Table IV, without it): every target gets the codes of all modalities as they are."""

    def __init__(self, n_targets: int) -> None:
        super().__init__()
        self.n_targets = n_targets

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes ``(B, M, G, N)`` to ``(B, C, G, M * N)``, the same for every target."""
        return codes.transpose(1, 2).flatten(2)[:, None].expand(-1, self.n_targets, -1, -1)


class ImageDecoder(nn.Module):
    """D_R: rebuild every modality's image from the tumor feature z and that modality's code, through AdaIN.

    One decoder for all modalities, in one batched call, at reduced width, up to ``output_level`` of the encoder (0 is
    full resolution). It has no skips unless asked for: with them it could copy the content, and z need not hold it.
    The last layer starts near zero, because the loss of random images would drown the segmentation loss at first.
    """

    def __init__(
        self,
        encoder: Encoder,
        code_length: int,
        *,
        width_factor: float,
        output_level: int,
        skips: bool,
    ) -> None:
        super().__init__()
        self.n_stages = len(encoder.output_channels)
        self.output_level = min(output_level, self.n_stages - 2)  # one level at least, for the codes to act on
        widths = [max(4, int(k * width_factor)) for k in encoder.output_channels]
        levels = range(self.n_stages - 2, self.output_level - 1, -1)
        self.widths = [widths[level] for level in levels]
        self.reduce = point_conv(encoder, encoder.output_channels[-1], widths[-1])
        self.convs = nn.ModuleList(
            same_conv(encoder, widths[level + 1], widths[level], encoder.kernel_sizes[level]) for level in levels
        )
        self.skip_convs = nn.ModuleList(
            point_conv(encoder, encoder.output_channels[level], widths[level]) for level in levels if skips
        )
        self.adain = nn.ModuleList(nn.Linear(code_length, 2 * width) for width in self.widths)
        self.output = point_conv(encoder, widths[self.output_level], 1, bias=True)

    def reset_output(self) -> None:
        """Start the last layer near zero; call after the weights have been initialized."""
        nn.init.normal_(self.output.weight, std=1e-3)

    def forward(self, tumor_feature: Tensor, codes: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Reconstruct the images.

        Args:
            tumor_feature: z, ``(B, K, *bottleneck)``.
            codes: One code per modality, ``(B, M, N)``.
            skips: Features of every encoder stage, full resolution first; only used if skips were asked for.

        Returns:
            ``(B, M, *spatial)`` at the output level.
        """
        n_modalities = codes.shape[1]
        x = self.reduce(tumor_feature).repeat_interleave(n_modalities, 0)  # (B * M, k, *bottleneck)
        code = codes.flatten(0, 1)
        for i, (conv, adain) in enumerate(zip(self.convs, self.adain, strict=True)):
            skip = skips[self.n_stages - 2 - i]
            x = conv(F.interpolate(x, size=skip.shape[2:], mode="nearest"))
            if self.skip_convs:
                x = x + self.skip_convs[i](skip).repeat_interleave(n_modalities, 0)
            x = adaptive_activation(x, *adain(code).chunk(2, -1))
        return self.output(x)[:, 0].unflatten(0, (-1, n_modalities))

    def compute_conv_feature_map_size(self, sizes: Sequence[Sequence[int]], n_modalities: int) -> int:
        """Count the elements of all feature maps; ``sizes`` are those of the encoder's stages."""
        levels = range(self.n_stages - 2, self.output_level - 1, -1)
        total = sum(width * math.prod(sizes[level]) for level, width in zip(levels, self.widths, strict=True))
        return (total + math.prod(sizes[self.output_level])) * n_modalities


class ImageDecoders(nn.Module):
    """D_R as the paper has it: one :class:`ImageDecoder` for every modality."""

    def __init__(self, decoders: Iterable[ImageDecoder]) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(decoders)

    def reset_output(self) -> None:
        """Start their last layers near zero; call after the weights have been initialized."""
        for decoder in self.decoders:
            cast(ImageDecoder, decoder).reset_output()

    def forward(self, tumor_feature: Tensor, codes: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Reconstruct the images, each by the decoder of its modality; arguments and result as one decoder's."""
        by_modality = zip(self.decoders, codes.split(1, 1), strict=True)
        return torch.cat([decoder(tumor_feature, code, skips) for decoder, code in by_modality], 1)

    def compute_conv_feature_map_size(self, sizes: Sequence[Sequence[int]], n_modalities: int) -> int:
        """Count the elements of all feature maps; ``sizes`` are those of the encoder's stages."""
        return cast(ImageDecoder, self.decoders[0]).compute_conv_feature_map_size(sizes, n_modalities)


class AbsentCodes(nn.Module):
    """Put a learned embedding, one per modality, in the place of the codes of absent modalities."""

    def __init__(self, n_modalities: int, code_length: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(n_modalities, code_length) * 0.1)

    def forward(self, codes: Tensor, available: Tensor) -> Tensor:
        """Return codes ``(B, M, G, N)``, those of unavailable modalities replaced."""
        return torch.where(available[..., None, None], codes, self.embedding[:, None].to(codes.dtype))
