"""The trainer of ``d2net demo``, a few minutes on a CPU; and the progress bar of trainings that are watched."""

from collections.abc import Mapping
from typing import ClassVar

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA

from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.method.network.d2net import D2NetOptions
from nnunetv2_d2net.plugin.training.adamw import AdamWTrainer
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer


class WatchedTrainer(AdamWTrainer):
    """Trains with AdamW in epochs of its own length, saves after each, and shows a progress bar.

    Attributes:
        n_iterations: Steps of an epoch.
    """

    n_iterations: ClassVar[int]

    def on_train_start(self) -> None:
        """Shorten the epochs, save after each, and open the progress bar."""
        super().on_train_start()
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch, self.save_every = self.n_iterations, 10, 1
        total = self.num_epochs * self.num_iterations_per_epoch
        done = self.current_epoch * self.num_iterations_per_epoch
        self.progress = Bar(title="train", total=total, unit="step", n_done=done)

    def train_step(self, batch: dict) -> dict:
        """Do one step and move the bar."""
        outputs = super().train_step(batch)
        self.progress.update()
        return outputs

    def on_epoch_end(self) -> None:
        """Show the pseudo-Dice beside the bar."""
        super().on_epoch_end()
        self.progress.set_postfix({"pseudo Dice": f"{self.logger.get_value('mean_fg_dice', step=-1):.2f}"})

    def on_train_end(self) -> None:
        """Close the bar."""
        self.progress.close()
        super().on_train_end()


class D2NetTrainerDemo(nnUNetTrainerNoDA, WatchedTrainer, D2NetTrainer):  # pyright: ignore[reportIncompatibleVariableOverride]
    """D2NetTrainer for few short epochs: it shows the path, not what D2-Net can do.

    So short a training neither overfits nor has processor time to spare, so nothing is augmented, and it helps to tell
    the encoder what is missing.
    """

    n_epochs: ClassVar[int | None] = 8
    n_iterations: ClassVar[int] = 160
    network_options: ClassVar[D2NetOptions] = D2NetTrainer.network_options._replace(modulate_encoder=True)
    loss_ramps: ClassVar[Mapping[str, float]] = {}
