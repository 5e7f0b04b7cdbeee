"""Training by AdamW where nnU-Net has SGD."""

from typing import Any, ClassVar

import torch
from torch.optim import Optimizer

from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer, nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer


class AdamWTrainer(ModalityDroppingTrainer):
    """Trains with AdamW, which in few steps learns more than nnU-Net's SGD, on nnU-Net's schedule.

    Attributes:
        learning_rate: The first one; it falls as nnU-Net's does.
    """

    learning_rate: ClassVar[float] = 3e-3

    def configure_optimizers(self) -> tuple[Optimizer, Any]:
        """Return AdamW with nnU-Net's schedule."""
        self.initial_lr, self.weight_decay = self.learning_rate, 1e-4
        parameters = self.network.parameters()
        optimizer = torch.optim.AdamW(parameters, self.initial_lr, (0.9, 0.99), weight_decay=self.weight_decay)
        return optimizer, self.schedule_of(optimizer)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Load a checkpoint; how many steps were done stays on the host, where AdamW reads it for each weight.

        nnU-Net loads everything to the device, which would have to be waited for at each step.

        Raises:
            UserError: As for other trainers.
        """
        super().load_checkpoint(filename_or_checkpoint)
        for state in self.optimizer.state.values():
            state["step"] = state["step"].cpu()


class nnUNetTrainerModalityDropoutAdamW(AdamWTrainer, nnUNetTrainerModalityDropout):
    """Modality dropout by AdamW, every subset as often as any other: in few steps far ahead of nnU-Net's SGD."""

    p_complete: ClassVar[float] = 0.0
    learning_rate: ClassVar[float] = 1e-3


class D2NetTrainerAdamW(AdamWTrainer, D2NetTrainer):  # pyright: ignore[reportIncompatibleVariableOverride]
    """D2-Net by AdamW, every subset as often as any other; its encoders need no momentum of their own."""

    p_complete: ClassVar[float] = 0.0
    learning_rate: ClassVar[float] = 1e-3
