"""TD-Stage, right half of the paper's Fig. 2: content reconstruction E_R, Fusion, teacher D^T, feature banks."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from torch import Tensor, nn

from nnunetv2_d2net.method.network.blocks import (
    LEAKY_SLOPE,
    Encoder,
    SqueezeExcite,
    adaptive_activation,
    auxiliary_classifier,
    conv_block,
    point_conv,
    same_conv,
    scale_and_shift,
)

PAPER_LEVELS = 4
"""Feature maps in each of the paper's banks."""


class TargetCodes(nn.Module):
    """The per-class MLPs of E_R: from each target's own code to its AdaIN parameters, all targets in one call."""

    def __init__(self, n_targets: int, code_length: int, n_values: int, hidden: int = 32) -> None:
        super().__init__()
        self.n_targets = n_targets
        self.layers = nn.Sequential(
            nn.Conv1d(n_targets * code_length, n_targets * hidden, 1, groups=n_targets),
            nn.LeakyReLU(LEAKY_SLOPE),
            nn.Conv1d(n_targets * hidden, n_targets * n_values, 1, groups=n_targets),
        )

    def forward(self, tumor_codes: Tensor) -> Tensor:
        """Map codes ``(B, C, N)`` to ``(B * C, n_values)``."""
        values = self.layers(tumor_codes.flatten(1)[..., None])[..., 0]  # (B, C * n_values)
        return values.unflatten(1, (self.n_targets, -1)).flatten(0, 1)


class ContentReconstruction(nn.Module):
    """E_R: tumor-specific features F from the tumor feature z and the tumor-specific codes.

    Four residual convolutions with AdaIN, whose weights all targets share; the targets are stacked on the batch axis.
    Deviates from the paper: the channels are first reduced by ``width_factor``, so that prediction, which runs this
    module, costs hardly more than the planned U-Net; 1 is the paper's, and reduces nothing.
    """

    def __init__(
        self, encoder: Encoder, n_targets: int, code_length: int, *, width_factor: float, n_blocks: int = 4
    ) -> None:
        super().__init__()
        self.n_targets = n_targets
        self.width = max(4, int(encoder.output_channels[-1] * width_factor))
        self.n_blocks = n_blocks
        self.reduce = (
            nn.Identity() if width_factor == 1 else point_conv(encoder, encoder.output_channels[-1], self.width)
        )
        self.convs = nn.ModuleList(
            same_conv(encoder, self.width, self.width, encoder.kernel_sizes[-1]) for _ in range(n_blocks)
        )
        self.target_codes = TargetCodes(n_targets, code_length, 2 * n_blocks * self.width)

    def forward(self, tumor_feature: Tensor, tumor_codes: Tensor) -> Tensor:
        """Build the features.

        Args:
            tumor_feature: z, ``(B, K, *bottleneck)``.
            tumor_codes: Slice-averaged tumor-specific codes, ``(B, C, N)``.

        Returns:
            F, ``(B * C, k, *bottleneck)``: the targets of one case lie side by side on the first axis.
        """
        parameters = self.target_codes(tumor_codes).unflatten(1, (self.n_blocks, 2, self.width))
        x = self.reduce(tumor_feature).repeat_interleave(self.n_targets, 0)
        for conv, (gamma, beta) in zip(self.convs, (p.unbind(1) for p in parameters.unbind(1)), strict=True):
            x = x + adaptive_activation(conv(x), gamma, beta)
        return x


class Fusion(nn.Module):
    """Fuse the tumor-specific features of all targets into holistic features F': two convolutions, one channel gate."""

    def __init__(self, encoder: Encoder, n_targets: int, width: int) -> None:
        super().__init__()
        channels = encoder.output_channels[-1]
        self.n_targets = n_targets
        self.conv_in = conv_block(encoder, n_targets * width, channels, [1] * len(encoder.strides[0]))
        self.squeeze_excite = SqueezeExcite(channels)
        self.conv_out = conv_block(encoder, channels, channels, encoder.kernel_sizes[-1])

    def forward(self, tumor_features: Tensor) -> Tensor:
        """Map F ``(B * C, k, *bottleneck)`` to F' ``(B, K, *bottleneck)``."""
        x = self.conv_in(tumor_features.unflatten(0, (-1, self.n_targets)).flatten(1, 2))
        return self.conv_out(x + self.squeeze_excite(x))


class BottleneckGate(nn.Module):
    """Let the holistic features into the bottleneck as far as they help: z + g * F', with a gate g that starts at zero.

    An option of this project: the paper puts F' in the place of z.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(channels))

    def forward(self, tumor_feature: Tensor, holistic_features: Tensor) -> Tensor:
        """Return the gated sum of z and F', both ``(B, K, *bottleneck)``."""
        gate = self.gate.view(-1, *[1] * (tumor_feature.ndim - 2))
        return tumor_feature + gate * holistic_features

    def opening(self) -> float:
        """Return how far the gate is open: the root mean square over its channels."""
        return gate_opening(self.gate)


@torch.no_grad()
def gate_opening(gate: Tensor) -> float:
    """Return how far a gate ``(K,)`` is open: the root mean square over its channels."""
    return float(gate.square().mean().sqrt())


class TeacherLevel(nn.Module):
    """One level of the teacher: upsample, merge with the encoder's skip, convolve, classify.

    A convolution of two concatenated inputs is the sum of a convolution of each. So the skip, which all targets of a
    case share, is convolved once per case instead of once per target.
    """

    def __init__(self, encoder: Encoder, level: int, width_below: int, width: int, classifier_convs: int) -> None:
        super().__init__()
        stride = tuple(encoder.strides[level + 1])
        transposed: Any = get_matching_convtransp(conv_op=encoder.conv_op)
        kernel_size = encoder.kernel_sizes[level]
        self.up = transposed(width_below, width, stride, stride, bias=False)
        self.conv_up = same_conv(encoder, width, width, kernel_size)
        self.conv_skip = same_conv(encoder, encoder.output_channels[level], width, kernel_size)
        self.norm = encoder.norm_op(width, **(encoder.norm_op_kwargs or {})) if encoder.norm_op else nn.Identity()
        self.conv = conv_block(encoder, width, width, kernel_size)
        self.classifier = auxiliary_classifier(encoder, level, width, 1, classifier_convs)

    def forward(self, below: Tensor, skip: Tensor, n_targets: int) -> tuple[Tensor, Tensor]:
        """Map ``(B * C, k, *coarse)`` and the skip ``(B, K, *fine)`` to features and logits.

        Returns:
            Features ``(B * C, k', *fine)`` and logits ``(B, C, *fine)``.
        """
        merged = self.conv_up(self.up(below)).unflatten(0, (-1, n_targets)) + self.conv_skip(skip)[:, None]
        features = self.conv(F.leaky_relu(self.norm(merged.flatten(0, 1)), LEAKY_SLOPE, inplace=True))
        return features, self.classifier(features)[:, 0].unflatten(0, (-1, n_targets))


class BinaryTeacher(nn.Module):
    """D^T: a binary decoder for every target, weights shared over targets, targets on the batch axis.

    Deviates from the paper: reduced width (``width_factor``), and it stops at ``finest_level``, below full resolution,
    where most of its time and memory would go. It only runs in training.
    """

    def __init__(
        self,
        encoder: Encoder,
        n_targets: int,
        width_in: int,
        *,
        width_factor: float,
        finest_level: int,
        classifier_convs: int,
    ) -> None:
        super().__init__()
        n_levels = len(encoder.output_channels) - 1
        self.n_targets = n_targets
        self.finest_level = min(finest_level, n_levels - 1)
        self.widths = [max(4, int(k * width_factor)) for k in encoder.output_channels[self.finest_level : -1]]
        below = [*self.widths[1:], width_in]
        self.levels = nn.ModuleList(
            TeacherLevel(encoder, level, below_it, width, classifier_convs if level else 1)
            for level, below_it, width in zip(range(self.finest_level, n_levels), below, self.widths, strict=True)
        )
        self.classifier_convs = classifier_convs

    def forward(self, tumor_features: Tensor, skips: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Decode F ``(B * C, k, *bottleneck)`` with the encoder's skips.

        Returns:
            Logits, each ``(B, C, *spatial)``, and features, each ``(B * C, k, *spatial)``, the finest level first.
        """
        x = tumor_features
        logits, features = [], []
        for level, skip in zip(reversed(self.levels), reversed(skips[self.finest_level : -1]), strict=True):
            x, level_logits = level(x, skip, self.n_targets)
            features.append(x)
            logits.append(level_logits)
        return logits[::-1], features[::-1]

    def compute_conv_feature_map_size(self, sizes: Sequence[Sequence[int]]) -> int:
        """Count the elements of all feature maps; ``sizes`` are those of the encoder's stages."""
        levels = list(zip(self.widths, sizes[self.finest_level : -1], strict=True))
        per_target = sum((3 * width + 1) * math.prod(size) for width, size in levels)
        beside = levels[1:] if self.finest_level == 0 else levels  # full resolution has no auxiliary classifier
        per_target += sum((self.classifier_convs - 1) * width * math.prod(size) for width, size in beside)
        shared = sum(width * math.prod(size) for width, size in levels)
        return per_target * self.n_targets + shared


class FeatureBanks(nn.Module):
    """Project both decoders' features to a common width, level by level, for distillation.

    The bank holds the deepest ``n_levels`` decoder levels below full resolution, or as many as there are; a decoder
    that has no level but full resolution gives that one. More than the paper's four may reach full resolution.
    """

    def __init__(
        self,
        encoder: Encoder,
        teacher: BinaryTeacher,
        student_widths: Sequence[int],
        *,
        width: int = 16,
        n_levels: int = PAPER_LEVELS,
    ) -> None:
        super().__init__()
        n_decoder_levels = len(encoder.output_channels) - 1
        finest = max(int(n_levels <= PAPER_LEVELS), teacher.finest_level, n_decoder_levels - n_levels)
        self.first_level = min(finest, n_decoder_levels - 1)
        self.skipped_teacher_levels = self.first_level - teacher.finest_level
        levels = range(self.first_level, n_decoder_levels)
        self.width = width
        self.n_targets = teacher.n_targets
        self.student = nn.ModuleList(point_conv(encoder, student_widths[level], width) for level in levels)
        self.teacher = nn.ModuleList(
            point_conv(encoder, self.n_targets * channels, width)
            for channels in teacher.widths[self.skipped_teacher_levels :]
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return both banks, each entry ``(B, K, *spatial)``; the C maps of the teacher are fused by the projection."""
        stacked = [x.unflatten(0, (-1, self.n_targets)).flatten(1, 2) for x in teacher[self.skipped_teacher_levels :]]
        return (
            [conv(x) for conv, x in zip(self.student, student[self.first_level :], strict=True)],
            [conv(x) for conv, x in zip(self.teacher, stacked, strict=True)],
        )

    def compute_conv_feature_map_size(self, sizes: Sequence[Sequence[int]]) -> int:
        """Count the elements of all feature maps; ``sizes`` are those of the encoder's stages."""
        return 2 * self.width * sum(math.prod(size) for size in sizes[self.first_level : -1])


class SkipModulation(nn.Module):
    """Scale and shift the skip features by the tumor-specific codes, because a U-Net can ignore its bottleneck.

    It starts as the identity. An option of this project, not part of the paper.
    """

    def __init__(self, encoder: Encoder, n_targets: int, code_length: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(
            nn.Linear(n_targets * code_length, 2 * channels) for channels in encoder.output_channels[:-1]
        )

    def reset(self) -> None:
        """Start as the identity; call after the weights have been initialized."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, skips: Sequence[Tensor], tumor_codes: Tensor) -> list[Tensor]:
        """Return the skips ``(B, K, *spatial)``, modulated by codes ``(B, C, N)``; the bottleneck is left alone."""
        codes = tumor_codes.flatten(1)
        pairs = zip(skips[:-1], self.linears, strict=True)
        return [*(scale_and_shift(skip, linear(codes)) for skip, linear in pairs), skips[-1]]
