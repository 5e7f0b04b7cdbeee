"""What all trainers for missing modalities share: drawing subsets in training, and a fixed rotation in validation."""

# pyright: reportIncompatibleMethodOverride=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportFunctionMemberAccess=false, reportOptionalSubscript=false
# nnU-Net declares attributes as None until they are initialized, and narrower types than it uses.

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunetv2_d2net.errors import UserError
from nnunetv2_d2net.modalities import draw_available, subset_rotation, zero_missing
from nnunetv2_d2net.preprocessing.preprocessor import accept_absent_files


class ModalityDroppingTrainer(nnUNetTrainer):
    """nnU-Net's trainer that hides modalities from the network.

    Training draws a subset for every case of a batch, after augmentation. The validation of each epoch goes through a
    fixed rotation of subsets, the complete one first, so that the pseudo-Dice, and with it ``checkpoint_best``, speaks
    for all of them. The final validation on whole cases uses complete images, as nnU-Net's does.

    Attributes:
        p_complete: Probability that a training case keeps all its modalities.
        n_epochs: Length of the training, None for nnU-Net's.
    """

    p_complete: ClassVar[float] = 0.5
    n_epochs: ClassVar[int | None] = None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.n_epochs is not None:
            self.num_epochs = self.n_epochs
        # torch seeds every process alike, so ranks and runs would all draw the same subsets
        self.subset_generator = torch.Generator().manual_seed(int(np.random.randint(2**31)) + self.local_rank)
        self.validation_step_index = 0
        _respect_thread_limit(self.device)

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,  # noqa: FBT001, FBT002 - nnU-Net's signature
    ) -> nn.Module:
        """Build the network that the plans describe.

        Raises:
            UserError: The configuration is a cascade: the channels of its previous stage are not modalities.
        """
        if configuration_manager.previous_stage_name is not None:
            raise UserError(
                "the input of a cascade holds the segmentation of its previous stage, which is not a modality: "
                "train 3d_fullres or 3d_lowres instead"
            )
        accept_absent_files(configuration_manager)  # what predicts with this trainer's models passes through here
        return nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def present_modalities(self, batch: dict) -> Tensor:
        """Tell which modalities the cases of a batch really have, bool ``(B, M)`` on the CPU."""
        return torch.ones(batch["data"].shape[:2], dtype=torch.bool)

    @contextmanager
    def conditioned_on(self, images: Tensor, present: Tensor, available: Tensor) -> Iterator[None]:
        """Let one step know more than nnU-Net hands over: the images before dropping and the masks.

        Args:
            images: Images before dropping, ``(B, M, *spatial)``, on the device.
            present: What the cases really have, bool ``(B, M)``, on the device.
            available: What the network may see, bool ``(B, M)``, on the device.
        """
        del images, present, available
        yield

    def train_step(self, batch: dict) -> dict:
        """Do nnU-Net's training step on the modalities drawn for each case."""
        present = self.present_modalities(batch)
        available = draw_available(present, self.p_complete, self.subset_generator)
        with self._modalities(batch, present, available) as visible:
            return super().train_step(visible)

    def on_validation_epoch_start(self) -> None:
        """Begin the rotation anew, so that every epoch is measured alike."""
        super().on_validation_epoch_start()
        self.validation_step_index = 0

    def validation_step(self, batch: dict) -> dict:
        """Do nnU-Net's validation step on the next subset of the rotation."""
        present = self.present_modalities(batch)
        rotation = subset_rotation(present.shape[1], self.num_val_iterations_per_epoch)
        subset = rotation[self.validation_step_index % len(rotation)]
        self.validation_step_index += 1
        available = present & subset
        available = torch.where(available.any(1, keepdim=True), available, present)
        with self._modalities(batch, present, available) as visible:
            return super().validation_step(visible)

    @contextmanager
    def _modalities(self, batch: dict, present: Tensor, available: Tensor) -> Iterator[dict]:
        images = batch["data"].to(self.device, non_blocking=True)
        present, available = (mask.to(self.device, non_blocking=True) for mask in (present, available))
        with self.conditioned_on(images, present, available):
            yield {**batch, "data": zero_missing(images, available)}


def _respect_thread_limit(device: torch.device) -> None:
    # nnUNetv2_train sets one thread per core, which makes several trainings on one machine fight for the cores
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if device.type == "cpu" and limit.isdecimal() and int(limit) > 0:
        torch.set_num_threads(int(limit))
