"""Modality dropout whose first part, which sees complete input only, is shorter or longer than half of the training.

For the variable ``nnUNet_extTrainer``; docs/results.md has the command and what came out.
"""

from nnunetv2_d2net.plugin.training.variants import nnUNetTrainerModalityDropoutCompleteFirst


class nnUNetTrainerModalityDropoutCompleteQuarter_20epochs(nnUNetTrainerModalityDropoutCompleteFirst):
    """A quarter."""

    n_epochs, complete_share = 20, 0.25


class nnUNetTrainerModalityDropoutCompleteThreeQuarters_20epochs(nnUNetTrainerModalityDropoutCompleteFirst):
    """Three quarters."""

    n_epochs, complete_share = 20, 0.75
