"""The companion whose student sees nested subsets, without the losses of the pairs: the control for more patches.

For the variable ``nnUNet_extTrainer``; trained with ``d2net train --start_from nnUNetTrainer_20epochs``.
"""

from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.nested import nnUNetTrainerModalityDropoutImputedNested


class nnUNetTrainerPairsAloneCompanion_20epochs(CompanionTrainer, nnUNetTrainerModalityDropoutImputedNested):
    """Sees the same patches and subsets, by nnU-Net's loss alone."""

    n_epochs = 20
    hinge_weight, consistency_weight = 0.0, 0.0
