"""What all trainers for missing modalities share: drawing subsets in training, and a fixed rotation in validation."""

# pyright: reportIncompatibleMethodOverride=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportFunctionMemberAccess=false, reportOptionalSubscript=false
# nnU-Net declares attributes as None until they are initialized, and narrower types than it uses.

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.modalities import draw_available, subset_rotation, zero_missing
from nnunetv2_d2net.plugin.preprocessing.cohort import AVAILABLE, availability_file, read_availability
from nnunetv2_d2net.plugin.preprocessing.preprocessor import accept_absent_files
from nnunetv2_d2net.plugin.training.resuming import ResumingTrainer
from nnunetv2_d2net.plugin.training.splits import balanced_splits


class ModalityDroppingTrainer(ResumingTrainer):
    """nnU-Net's trainer that hides modalities from the network.

    Training draws a subset for every case of a batch, after augmentation. The validation of each epoch goes through a
    fixed rotation of subsets, the complete one first, so that the pseudo-Dice, and with it ``checkpoint_best``, speaks
    for all of them. The final validation on whole cases uses all that each case has, as nnU-Net's does.

    Training cases may lack modalities: ``d2net plan_and_preprocess`` notes which each of them has, and what a case
    lacks is never drawn.

    Attributes:
        p_complete: Probability that a training case keeps all its modalities.
        n_epochs: Length of the training, None for nnU-Net's.
        batch_holds_air: Whether this step's batch has a case in which the network sees only zeros.
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
        self.batch_holds_air = False
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
        """Tell which modalities the cases of a batch really have, bool ``(B, M)`` on the CPU.

        Raises:
            UserError: Preprocessing has not seen one of the cases.
        """
        if not self.cohort:
            return torch.ones(batch["data"].shape[:2], dtype=torch.bool)
        unknown = sorted(set(batch["keys"]) - set(self.cohort))
        if unknown:
            raise UserError(
                f"{availability_file(Path(self.preprocessed_dataset_folder))} does not know {', '.join(unknown)}: "
                "preprocess again with d2net plan_and_preprocess"
            )
        return torch.tensor([self.cohort[case] for case in batch["keys"]])

    @functools.cached_property
    def cohort(self) -> dict[str, list[bool]]:
        """M flags of each preprocessed case; empty where stock nnU-Net has preprocessed, which needs all files."""
        return read_availability(Path(self.preprocessed_dataset_folder))

    def do_split(self) -> Any:  # noqa: ANN401 - nnU-Net's two lists
        """Return nnU-Net's split; a new one has every pattern of modalities in every fold, as far as there are enough.

        Cohorts of complete cases, and those that have a split, get exactly nnU-Net's.
        """
        path = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        patterns = set(map(tuple, self.cohort.values()))
        if self.fold != "all" and not path.is_file() and len(patterns) > 1 and len(self.cohort) >= 5:
            save_json(balanced_splits(self.cohort), str(path))
        return super().do_split()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:  # noqa: FBT001, FBT002
        """Validate on whole cases, each with the modalities that it has."""
        real = self.dataset_class or infer_dataset_class(self.preprocessed_dataset_folder)
        self.dataset_class = _announcing_dataset(real, self.validate_case)
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            self.dataset_class = real

    def validate_case(self, available: Sequence[bool] | None) -> None:
        """Know which modalities the case that is validated next has.

        Args:
            available: M flags; None for all.
        """

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

    def random_states(self) -> dict[str, Any]:
        """Return the states of all generators, that of the subsets among them."""
        return {**super().random_states(), "subsets": self.subset_generator.get_state()}

    def restore_random_states(self, states: dict[str, Any]) -> None:
        """Go on drawing subsets, too, where a checkpoint stopped."""
        super().restore_random_states(states)
        if "subsets" in states:
            self.subset_generator.set_state(states["subsets"].cpu())

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
        self.batch_holds_air = holds_air(batch["data"], available)  # where they are, so that the device need not wait
        images = batch["data"].to(self.device, non_blocking=True)
        present, available = (mask.to(self.device, non_blocking=True) for mask in (present, available))
        with self.conditioned_on(images, present, available):
            yield {**batch, "data": zero_missing(images, available)}


def holds_air(images: Tensor, available: Tensor) -> bool:
    """Tell whether in any case of a batch all that the network sees is 0.

    Args:
        images: ``(B, M, *spatial)``.
        available: Bool ``(B, M)``.
    """
    few = images[(..., *[slice(None, None, 8)] * (images.ndim - 2))].flatten(2).any(2)
    return any(
        not any(images[case, modality].any() for modality in available[case].nonzero()[:, 0])
        for case in (~(few & available).any(1)).nonzero()[:, 0]
    )


def _respect_thread_limit(device: torch.device) -> None:
    # nnUNetv2_train sets one thread per core, which makes several trainings on one machine fight for the cores
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if device.type == "cpu" and limit.isdecimal() and int(limit) > 0:
        torch.set_num_threads(int(limit))


def _announcing_dataset(real: type, announce: Callable[[Sequence[bool] | None], None]) -> type:
    """Make a dataset of nnU-Net's that tells which modalities a case has, and blanks the others, when it is loaded."""

    def load_case(self: Any, identifier: str) -> tuple[Any, ...]:  # noqa: ANN401 - nnU-Net's dataset
        data, *others, properties = real.load_case(self, identifier)
        available = properties.get(AVAILABLE)
        announce(available)
        if available is not None and not all(available):
            data = np.array(data[:])
            data[~np.array(available)] = 0
        return data, *others, properties

    return type(real.__name__, (real,), {"load_case": load_case})
