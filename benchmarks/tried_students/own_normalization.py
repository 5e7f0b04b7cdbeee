"""The default companion, whose student has a normalization of its own for each subset in its first stages.

For the variable ``nnUNet_extTrainer``; trained with ``d2net train --start_from nnUNetTrainer_20epochs``.
"""

from typing import Any, cast

from torch import Tensor, nn

from nnunetv2_d2net.method.modalities import subset_codes
from nnunetv2_d2net.method.network.blocks import scale_and_shift
from nnunetv2_d2net.method.network.imputation import ImputedUNet
from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed

N_FIRST = 2
"""Stages of the encoder, full resolution first."""


class OwnNormalizationUNet(ImputedUNet):
    """Scales and shifts every normalized map of the first stages by numbers that each subset has for itself.

    They start as the identity, and with all modalities they stay that.
    """

    def __init__(self, unet: nn.Module, n_modalities: int) -> None:
        super().__init__(unet, n_modalities)
        widths = [layer.norm.num_features for stage in self._stages()[:N_FIRST] for layer in _layers(stage)]
        self.own = nn.ModuleList(nn.Embedding(2**n_modalities, 2 * width) for width in widths)
        for table in self.own:
            nn.init.zeros_(cast(nn.Embedding, table).weight)

    def _stages(self) -> list[Any]:
        return list(cast(Any, self.encoder).stages)

    def features(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """Run the encoder on images that are filled in, its first stages with the numbers of each case's subset."""
        x, features = self.imputation(images, available), []
        codes, incomplete = subset_codes(available), ~available.all(1, keepdim=True)
        tables = iter(self.own)
        for level, stage in enumerate(self._stages()):
            if level >= N_FIRST:
                x = stage(x)
            for layer in _layers(stage) if level < N_FIRST else ():
                conv, norm, *others = layer.all_modules
                x = scale_and_shift(norm(conv(x)), next(tables)(codes) * incomplete)
                for module in others:
                    x = module(x)
            features.append(x)
        return features


def _layers(stage: Any) -> list[Any]:  # noqa: ANN401 - nnU-Net's blocks of convolutions
    return [layer for block in stage for layer in block.convs]


class nnUNetTrainerOwnNormalizationCompanion_20epochs(CompanionTrainer, nnUNetTrainerModalityDropoutImputed):
    """Trains it as the default student is trained."""

    n_epochs = 20

    @classmethod
    def network_around(cls, unet: nn.Module, n_modalities: int) -> nn.Module:
        """Put the planned U-Net, with normalizations of its own, behind a guess."""
        return OwnNormalizationUNet(unet, n_modalities)
