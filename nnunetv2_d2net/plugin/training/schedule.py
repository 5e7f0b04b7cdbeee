"""The learning rate of a training in two parts: first with complete input only, then with modalities missing."""

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import Optimizer


class PhasedPolyLR(PolyLRScheduler):
    """nnU-Net's polynomial decay, which begins anew where the second part begins.

    Args:
        optimizer: Whose learning rates it sets.
        initial_lr: At the beginning of each part.
        max_steps: Length of both parts together, in epochs.
        first: Length of the first part; 0 for nnU-Net's schedule.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float, max_steps: int, first: int) -> None:
        self.total, self.first = max_steps, first
        super().__init__(optimizer, initial_lr, max_steps)

    def step(self, current_step: int | None = None) -> None:
        """Set the learning rate of an epoch, counted from the beginning of the training; None for the next one."""
        if current_step is None or current_step == -1:
            current_step = self.ctr
            self.ctr += 1
        begin, end = (0, self.first) if current_step < self.first else (self.first, self.total)
        self.max_steps = end - begin
        super().step(current_step - begin)
