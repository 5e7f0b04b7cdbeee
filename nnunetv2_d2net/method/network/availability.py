"""Tell the tumor encoder which modalities there are, at every stage."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from nnunetv2_d2net.method.modalities import infer_available, zero_missing
from nnunetv2_d2net.method.network.blocks import Encoder, scale_and_shift


class AvailabilityModulation(nn.Module):
    """Scale and shift the features of every stage of E_T by the mask of available, or of missing, modalities.

    A modality set to 0 after normalization looks like a flat brain; the mask tells it from a real one. It starts as the
    identity. An option of this project, not part of the paper, where only the codes know what is missing.

    Args:
        encoder: E_T.
        n_modalities: M.
        of_missing: Modulate by what is missing, without a bias: with everything there it stays the identity.
        lending: Let the first convolution have filters of its own for what is missing, see :class:`Lending`.
    """

    def __init__(self, encoder: Encoder, n_modalities: int, *, of_missing: bool, lending: bool) -> None:
        super().__init__()
        self.of_missing = of_missing
        self.linears = nn.ModuleList(
            nn.Linear(n_modalities, 2 * channels, bias=not of_missing) for channels in encoder.output_channels
        )
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.lending = Lending(_first_block(encoder).convs[0].conv) if lending else None

    def encode(self, encoder: Encoder, images: Tensor, available: Tensor) -> list[Tensor]:
        """Run the encoder with its stages modulated.

        Args:
            encoder: E_T.
            images: ``(B, M, *spatial)``, missing modalities zero.
            available: Bool ``(B, M)``.

        Returns:
            Features of every stage, full resolution first.
        """
        x = images if self.lending is None else self.lending.run(_first_block(encoder), images, available)
        stem = getattr(encoder, "stem", None)  # residual encoders have one
        if stem is not None and self.lending is None:
            x = stem(x)
        mask = (~available if self.of_missing else available).to(x.dtype)
        features = []
        for level, (stage, linear) in enumerate(zip(cast(nn.ModuleList, encoder.stages), self.linears, strict=True)):
            is_done = level == 0 and stem is None and self.lending is not None
            x = scale_and_shift(x if is_done else stage(x), linear(mask))
            features.append(x)
        return features


class Lending(nn.Module):
    r"""Give the first convolution W filters of its own for what is missing, made of the modalities that are there.

    .. math:: W(x) + \sum_{m \notin A} \frac{1}{|A|} \sum_{n \in A} L_{m,n} * x_n

    Each modality n that is there lends features to each absent modality m, instead of the zeros that m would bring.
    All L start at zero, and with everything there the sum is empty. After the stem of DeMoSeg (decoupled modality
    encoding), in which each modality lends features to absent ones; here as filters, which the first convolution adds.

    Args:
        conv: The first convolution, of M input channels and stride 1.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        shape = cast(Tensor, conv.weight).shape
        self.padding: Any = conv.padding
        self.weight = nn.Parameter(torch.zeros(shape[1], *shape))  # (M absent, K, M there, *kernel)

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """Return what is lent, ``(B, K, *spatial)``; of images ``(B, M, *spatial)`` that are zero where missing."""
        n_cases, spatial = len(images), images.shape[2:]
        absent = (~available).to(self.weight.dtype) / available.sum(1, keepdim=True)
        filters = torch.einsum("bm,m...->b...", absent, self.weight).flatten(0, 1)
        convolve = F.conv2d if len(spatial) == 2 else F.conv3d
        lent = convolve(images.flatten(0, 1), filters, padding=self.padding, groups=n_cases)
        return lent.view(n_cases, -1, *spatial)

    def run(self, block: nn.Module, images: Tensor, available: Tensor) -> Tensor:
        """Run the block that begins with the convolution, with what is lent added before its normalization."""
        first, *others = cast(Any, block).convs
        x = first.conv(images) + self(images, available)
        for module in (*first.all_modules[1:], *others):
            x = module(x)
        return x


class ToldUNet(nn.Module):
    """The planned U-Net, told which modalities there are.

    Args:
        unet: From nnU-Net's plans; its encoder and decoder become part of this network.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        encoder, decoder = parts_of(unet)
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor, available: Tensor | None = None) -> Tensor | list[Tensor]:
        """Segment as the U-Net does.

        Args:
            images: Normalized images, ``(B, M, *spatial)``; what an unavailable modality holds has no influence.
            available: Bool ``(B, M)``; None to infer it from the images.

        Returns:
            Logits ``(B, C, *spatial)``, or a list of them under deep supervision.
        """
        available = infer_available(images) if available is None else available
        return self.decoder(self.features(zero_missing(images, available), available))

    def features(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """Return the features of every stage, full resolution first, of images that are zero where missing."""
        raise NotImplementedError


class ModulatedUNet(ToldUNet):
    """The planned U-Net, told what is missing: modulated at every stage of its encoder, with lending at the first one.

    Both start at zero and are zero where nothing is missing, so it is an exact superset of the U-Net. Nothing else of
    D2-Net is in it.

    Args:
        unet: As for :class:`ToldUNet`.
        n_modalities: M.
    """

    def __init__(self, unet: nn.Module, n_modalities: int) -> None:
        super().__init__(unet)
        self.modulation = AvailabilityModulation(self.encoder, n_modalities, of_missing=True, lending=True)

    def features(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """Run the modulated encoder."""
        return self.modulation.encode(self.encoder, images, available)


def parts_of(unet: nn.Module) -> tuple[Encoder, UNetDecoder]:
    """Return encoder and decoder of a U-Net of nnU-Net's.

    Raises:
        ValueError: It is none with at least two stages.
    """
    encoder, decoder = getattr(unet, "encoder", None), getattr(unet, "decoder", None)
    if not isinstance(encoder, Encoder) or type(decoder) is not UNetDecoder:
        raise ValueError(
            f"D2-Net builds on PlainConvUNet or ResidualEncoderUNet, the plans describe {type(unet).__name__}: "
            "plan again with D2NetPlanner or nnU-Net's default planner"
        )
    if len(encoder.output_channels) < 2:
        raise ValueError("D2-Net needs a U-Net of at least 2 stages: plan with a larger -gpu_memory_target")
    return encoder, decoder


def _first_block(encoder: Encoder) -> Any:  # noqa: ANN401 - nnU-Net's stack of convolutions
    stem = getattr(encoder, "stem", None)
    return cast(Any, encoder.stages)[0][-1] if stem is None else stem
