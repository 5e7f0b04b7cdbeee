"""Tell the tumor encoder which modalities there are, at every stage."""

from typing import cast

from torch import Tensor, nn

from nnunetv2_d2net.method.network.blocks import Encoder, scale_and_shift


class AvailabilityModulation(nn.Module):
    """Scale and shift the features of every stage of E_T by the mask of available, or of missing, modalities.

    A modality set to 0 after normalization looks like a flat brain; the mask tells it from a real one. It starts as the
    identity. An option of this project, not part of the paper, where only the codes know what is missing.

    Args:
        encoder: E_T.
        n_modalities: M.
        of_missing: Modulate by what is missing, without a bias: with everything there it stays the identity.
    """

    def __init__(self, encoder: Encoder, n_modalities: int, *, of_missing: bool = False) -> None:
        super().__init__()
        self.of_missing = of_missing
        self.linears = nn.ModuleList(
            nn.Linear(n_modalities, 2 * channels, bias=not of_missing) for channels in encoder.output_channels
        )
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def encode(self, encoder: Encoder, images: Tensor, available: Tensor) -> list[Tensor]:
        """Run the encoder with its stages modulated.

        Args:
            encoder: E_T.
            images: ``(B, M, *spatial)``, missing modalities zero.
            available: Bool ``(B, M)``.

        Returns:
            Features of every stage, full resolution first.
        """
        stem = getattr(encoder, "stem", None)  # residual encoders have one
        x = images if stem is None else stem(images)
        mask = (~available if self.of_missing else available).to(x.dtype)
        features = []
        for stage, linear in zip(cast(nn.ModuleList, encoder.stages), self.linears, strict=True):
            x = scale_and_shift(stage(x), linear(mask))
            features.append(x)
        return features
