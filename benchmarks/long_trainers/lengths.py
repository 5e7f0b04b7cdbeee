"""Trainers of 40 and 80 epochs, which nnU-Net does not offer: as many steps as a stock one of 20 and its companion.

For the variable ``nnUNet_extTrainer``; docs/results.md has the commands. 80 epochs of stock nnU-Net say what twice as
many steps still gain.
"""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_d2net.plugin.training.adamw import nnUNetTrainerModalityDropoutAdamW

CUDA = torch.device("cuda")


class nnUNetTrainer_40epochs(nnUNetTrainer):
    """Stock nnU-Net."""

    n_epochs = 40

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.n_epochs


class nnUNetTrainer_80epochs(nnUNetTrainer_40epochs):
    """Stock nnU-Net, twice as long."""

    n_epochs = 80


class nnUNetTrainerModalityDropoutAdamW_40epochs(nnUNetTrainerModalityDropoutAdamW):
    """Modality dropout by AdamW."""

    n_epochs = 40
