"""The companion's default student that sees half of each batch twice: the control of nested subsets for more patches.

For the variable ``nnUNet_extTrainer``; trained with ``d2net train --start_from nnUNetTrainer_20epochs``.
"""

from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.repeating import RepeatingTrainer


class nnUNetTrainerModalityDropoutImputedRepeatedCompanion_20epochs(
    CompanionTrainer, RepeatingTrainer, nnUNetTrainerModalityDropoutImputed
):
    """The same patches and subsets as nested subsets have, without the losses of the pairs."""

    n_epochs = 20
