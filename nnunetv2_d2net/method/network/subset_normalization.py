"""Let each subset of modalities have a normalization of its own in the first stages of the encoder."""

from collections.abc import Iterator
from typing import Any, ClassVar, cast

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, StackedResidualBlocks
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU, StackedConvBlocks
from torch import Tensor, nn

from nnunetv2_d2net.method.network.blocks import Encoder, scale_and_shift
from nnunetv2_d2net.method.network.imputation import ImputedUNet

N_STAGES = 2
"""How many stages have one, full resolution first."""


class SubsetNormalization(nn.Module):
    """Scale and shift the normalized maps of the first stages by numbers that each subset has for itself.

    Conditional instance normalization (Dumoulin et al., A Learned Representation for Artistic Style, ICLR 2017, Eq. 5),
    with a subset in the place of a style, and on top of what all subsets share. It starts as the identity, and with all
    modalities it stays that. In residual blocks the convolution of the skip keeps its normalization.

    Args:
        encoder: Of the planned U-Net.
        n_modalities: M.
    """

    def __init__(self, encoder: Encoder, n_modalities: int) -> None:
        super().__init__()
        layers = [layer for part in _first_parts(encoder) for layer in _normalizing_layers(part)]
        self.tables = nn.ParameterList(
            nn.Parameter(torch.zeros(*(2,) * n_modalities, 2 * layer.output_channels)) for layer in layers
        )  # whether each modality is there; gamma, then beta

    def encode(self, encoder: Encoder, images: Tensor, available: Tensor) -> list[Tensor]:
        """Run the encoder.

        Args:
            encoder: The one that this was made for.
            images: ``(B, M, *spatial)``.
            available: Bool ``(B, M)``.

        Returns:
            Features of every stage, full resolution first.
        """
        subset, incomplete = available.long().unbind(1), ~available.all(1, keepdim=True)
        numbers = iter([table[subset] * incomplete for table in self.tables])
        x, parts, features = images, _first_parts(encoder), []
        for part in parts:
            x = _run(part, x, numbers)
            features += [x] if part is not getattr(encoder, "stem", None) else []
        for stage in cast(Any, encoder.stages)[N_STAGES:]:
            x = stage(x)
            features.append(x)
        return features


class ConditionedUNet(ImputedUNet):
    """The planned U-Net behind a guess, its first normalizations told what was missing; with all it is the U-Net.

    Args:
        unet: As for :class:`ToldUNet`.
        n_modalities: M.
    """

    taken_whole: ClassVar[tuple[str, ...]] = (*ImputedUNet.taken_whole, "normalization")

    def __init__(self, unet: nn.Module, n_modalities: int) -> None:
        super().__init__(unet, n_modalities)
        self.normalization = SubsetNormalization(self.encoder, n_modalities)

    def features(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """Run the encoder on images that are filled in."""
        return self.normalization.encode(self.encoder, self.imputation(images, available), available)


def _first_parts(encoder: Encoder) -> list[nn.Module]:
    stem = getattr(encoder, "stem", None)  # residual encoders have one
    return [*([stem] if stem is not None else []), *cast(Any, encoder.stages)[:N_STAGES]]


def _normalizing_layers(part: nn.Module) -> list[Any]:
    """List the layers that have a normalization of their own, in the order in which they run."""
    if isinstance(part, ConvDropoutNormReLU):
        return [part]
    return [layer for child in _steps(part) for layer in _normalizing_layers(child)]


def _steps(part: nn.Module) -> list[nn.Module]:
    """List what a part of nnU-Net's encoders runs one after another; nothing where it is to be run as a whole."""
    if isinstance(part, BasicBlockD):
        return [part.conv1, part.conv2]
    of_stack = {StackedConvBlocks: "convs", StackedResidualBlocks: "blocks"}
    steps = part if isinstance(part, nn.Sequential) else getattr(part, of_stack.get(type(part), ""), ())
    return list(cast(Any, steps))


def _run(part: nn.Module, x: Tensor, numbers: Iterator[Tensor]) -> Tensor:
    """Run a part with the next numbers after each normalization; where there is none, after the convolution."""
    if isinstance(part, ConvDropoutNormReLU):
        last = getattr(part, "norm", part.conv)
        for module in part.all_modules:
            x = module(x)
            x = scale_and_shift(x, next(numbers)) if module is last else x
        return x
    steps = _steps(part)
    if not steps:
        return part(x)
    out = x
    for step in steps:
        out = _run(step, out, numbers)
    if not isinstance(part, BasicBlockD):
        return out
    # the rest of its forward, written out
    out = part.drop_path(out) if part.apply_stochastic_depth else out
    out = part.squeeze_excitation(out) if part.apply_se else out
    return part.nonlin2(out + part.skip(x))
