"""The trainer of a U-Net behind a guess, in which each subset has a normalization of its own."""

from torch import nn

from nnunetv2_d2net.method.network.subset_normalization import ConditionedUNet
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed


class nnUNetTrainerModalityDropoutConditioned(nnUNetTrainerModalityDropoutImputed):
    """The trainer of a U-Net behind a guess, whose first stages have a normalization of its own for each subset."""

    @classmethod
    def network_around(cls, unet: nn.Module, n_modalities: int) -> nn.Module:
        """Put the planned U-Net, with these normalizations, behind a guess."""
        return ConditionedUNet(unet, n_modalities)
