"""Trainers of 40 epochs, a length that nnU-Net does not offer: as many steps as a stock one of 20 and its companion.

For the variable ``nnUNet_extTrainer``; docs/results.md has the command.
"""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_d2net.plugin.training.adamw import nnUNetTrainerModalityDropoutAdamW

CUDA = torch.device("cuda")


class nnUNetTrainer_40epochs(nnUNetTrainer):
    """Stock nnU-Net."""

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 40


class nnUNetTrainerModalityDropoutAdamW_40epochs(nnUNetTrainerModalityDropoutAdamW):
    """Modality dropout by AdamW."""

    n_epochs = 40
