"""The trainer of a U-Net behind a guess of what is missing: it learns to guess first, then everything to segment."""

import math
from typing import ClassVar, cast

import torch
import torch.distributed as dist
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch import Tensor, nn

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.method.modalities import zero_missing
from nnunetv2_d2net.method.network.companion import Companion
from nnunetv2_d2net.method.network.imputation import Imputation, ImputedUNet
from nnunetv2_d2net.plugin.training.adamw import nnUNetTrainerModalityDropoutAdamW
from nnunetv2_d2net.plugin.training.dropping import Step, ToldTrainer
from nnunetv2_d2net.plugin.training.pretrained import unwrapped

LESION_WEIGHT = 10.0
"""By how much more an error counts where the labels say that there is something."""

MAX_GRADIENT = 12
"""nnU-Net's: longer gradients are shortened."""

GUESS_RATE = 3e-3
"""Highest learning rate while the guess is learned, by Adam in one cycle."""


class nnUNetTrainerModalityDropoutImputed(ToldTrainer, nnUNetTrainerModalityDropoutAdamW):
    """Modality dropout with a U-Net that sees a guess of what is missing; where nothing is, it is the planned U-Net.

    Before the first epoch the guess is learned from the training cases as they are preprocessed, without augmentation,
    by the mean absolute error of images that are hidden; the U-Net stays as it is. From then on everything is trained
    to segment. A guess that came with the weights to start from is not learned anew.

    Attributes:
        n_guess_steps: How many batches the guess is learned from.
    """

    n_guess_steps: ClassVar[int] = 1000

    @classmethod
    def network_around(cls, unet: nn.Module, n_modalities: int) -> nn.Module:
        """Put the planned U-Net behind a guess."""
        return ImputedUNet(unet, n_modalities)

    @property
    def imputation(self) -> Imputation:
        """What guesses, in the network or in the companion's student."""
        network = unwrapped(self.network)
        student = network.student if isinstance(network, Companion) else network
        return cast(ImputedUNet, student).imputation

    def on_train_start(self) -> None:
        """Start as the others do, and learn to guess unless training goes on or the guess has been learned."""
        super().on_train_start()
        if self.current_epoch == 0 and self.imputation.is_blank:
            self.learn_to_guess()

    def learn_to_guess(self) -> None:
        """Learn to guess what is missing; what a case really lacks is neither shown nor asked for.

        Raises:
            UserError: It came to nothing but NaN.
        """
        if self.n_guess_steps < 1 or not self._hides():
            self.print_to_log_file("guess of what is missing: not learned, as nothing is hidden, or in no steps")
            return
        imputation, loader = self.imputation.train(), self._plain_loader()
        optimizer = torch.optim.Adam(imputation.parameters(), GUESS_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, GUESS_RATE, self.n_guess_steps)
        steps, shown = range(self.n_guess_steps), self.local_rank == 0
        errors = torch.zeros(2, device=self.device)  # with the guess and with zeros, over the last tenth
        for i in Bar(steps, title="learn to guess", total=len(steps), unit="step", shown=shown):
            batch = cast(dict, next(loader))
            present = self.present_modalities(batch)
            step = self.step_on(batch, present, self.draw(present, p_complete=0.0))
            loss, of_zeros = guess_errors(imputation, step, self.label_manager.ignore_label)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._average_gradients(imputation)
            nn.utils.clip_grad_norm_(imputation.parameters(), MAX_GRADIENT)
            optimizer.step()
            schedule.step()
            if i >= len(steps) - max(1, len(steps) // 10):
                errors += torch.stack([loss.detach(), of_zeros])
        guess, zeros = errors.tolist()
        if not math.isfinite(guess):
            raise UserError("the guess came to NaN: train again, or with -tr nnUNetTrainerModalityDropout")
        error = f"{guess / max(zeros, 1e-12):.2f}"
        self.print_to_log_file(f"guess of what is missing: error relative to that of zeros, lesions first: {error}")

    def _hides(self) -> bool:
        """Tell whether there is a subset to draw in which something is missing."""
        weights = self.subset_weights
        return self.num_input_channels > 1 and (weights is None or bool(weights[1:-1].any()))

    def _plain_loader(self) -> nnUNetDataLoader:
        """Return nnU-Net's loader of training patches, without augmentation."""
        patch_size = self.configuration_manager.patch_size
        return nnUNetDataLoader(
            self.get_tr_and_val_datasets()[0],
            self.batch_size,
            patch_size,
            patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            probabilistic_oversampling=self.probabilistic_oversampling,
        )

    def _average_gradients(self, module: nn.Module) -> None:
        """Average over the processes, which then go on with the same weights."""
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        for gradient in gradients if self.is_ddp else ():
            dist.all_reduce(gradient)
            gradient.div_(dist.get_world_size())


def guess_errors(imputation: Imputation, step: Step, ignore_label: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean absolute error of what is hidden, lesions counting more: of the guess, and of zeros.

    Args:
        imputation: What guesses.
        step: Its target holds labels, ``(B, 1, *spatial)``.
        ignore_label: One that is no lesion.

    Returns:
        Two scalars; 0 where nothing is hidden.
    """
    target = cast(Tensor, step.target)[:, :1]
    weight = 1 + LESION_WEIGHT * ((target > 0) & (target != (0 if ignore_label is None else ignore_label)))
    images = zero_missing(step.images, step.present)  # what a case lacks has no influence
    hidden = (step.present & ~step.available)[(...,) + (None,) * (images.ndim - 2)]
    scale = (weight * hidden).sum().clamp(min=1)
    guess = imputation(images, step.available)
    of_guess, of_zeros = ((weight * hidden * error.abs()).sum() / scale for error in (guess - images, images))
    return of_guess, of_zeros
