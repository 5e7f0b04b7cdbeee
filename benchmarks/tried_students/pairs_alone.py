"""Companions whose students see nested subsets without the losses of the pairs: the control for more patches.

For the variable ``nnUNet_extTrainer``; trained with ``d2net train --start_from nnUNetTrainer_20epochs``.
"""

from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.conditioned import nnUNetTrainerModalityDropoutConditioned
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.nested import NestedTrainer


class PairsAloneTrainer(NestedTrainer):
    """Sees the same patches and subsets, by nnU-Net's loss alone."""

    hinge_weight, consistency_weight = 0.0, 0.0


class nnUNetTrainerPairsAloneCompanion_20epochs(
    CompanionTrainer, PairsAloneTrainer, nnUNetTrainerModalityDropoutImputed
):
    """The default student with more patches."""

    n_epochs = 20


class nnUNetTrainerPairsAloneConditionedCompanion_20epochs(
    CompanionTrainer, PairsAloneTrainer, nnUNetTrainerModalityDropoutConditioned
):
    """A student with a normalization of its own for each subset, with more patches."""

    n_epochs = 20
