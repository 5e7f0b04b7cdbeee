"""What all trainers for missing modalities share: drawing subsets in training, and a fixed rotation in validation."""

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn
from torch.optim import Optimizer

from nnunetv2_d2net.base.dataset import channels_of, dataset_number
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import write_json
from nnunetv2_d2net.base.orientation import mixed_line
from nnunetv2_d2net.base.processes import hearing_later
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.method.modalities import (
    draw_available,
    draw_subsets,
    subset_rotation,
    weighted_rotation,
    zero_missing,
)
from nnunetv2_d2net.method.network.availability import ModulatedUNet
from nnunetv2_d2net.plugin.named_code import check_architecture
from nnunetv2_d2net.plugin.preprocessing.cohort import (
    availability_file,
    check_preprocessed,
    orientations_of,
    read_availability,
)
from nnunetv2_d2net.plugin.preprocessing.preprocessor import (
    MissingModalityConfiguration,
    accept_absent_files,
    planned_shape,
)
from nnunetv2_d2net.plugin.protocols import SUBSETS, note_subsets, subsets_of_training, weights_of
from nnunetv2_d2net.plugin.seams import dataset_seam
from nnunetv2_d2net.plugin.training.pretrained import lies_otherwise, load_fitting_weights, pretrained_weights
from nnunetv2_d2net.plugin.training.resuming import ResumingTrainer
from nnunetv2_d2net.plugin.training.same_plans import check_other_folds
from nnunetv2_d2net.plugin.training.schedule import PhasedPolyLR
from nnunetv2_d2net.plugin.training.seeds import N_SEEDS, repeatable
from nnunetv2_d2net.plugin.training.splits import N_FOLDS, balanced_splits, check_fold
from nnunetv2_d2net.plugin.training.validation import blanking_dataset, hard_counts


class Step(NamedTuple):
    """What one step knows of its batch, on the device.

    Attributes:
        images: Before any modality is hidden, ``(B, M, *spatial)``.
        target: nnU-Net's: a tensor, or a list over resolution with deep supervision.
        present: Which modalities the cases really have, bool ``(B, M)``.
        available: Which the network may see, bool ``(B, M)``.
        holds_air: In some case the network sees only zeros; False where nobody asks.
    """

    images: Tensor
    target: Tensor | list[Tensor]
    present: Tensor
    available: Tensor
    holds_air: bool = False


class ModalityDroppingTrainer(ResumingTrainer):
    """nnU-Net's trainer that hides modalities from the network.

    Training draws a subset for every case of a batch, after augmentation. The validation of each epoch goes through a
    fixed rotation of subsets, the complete one first, so that the pseudo-Dice, and with it ``checkpoint_best``, speaks
    for all of them; subsets with weights are taken by weight. The final validation on whole cases uses all that each
    case has, as nnU-Net's does.

    Training cases may lack modalities: ``d2net plan_and_preprocess`` notes which each of them has, and what a case
    lacks is never drawn.

    Attributes:
        p_complete: Probability that a training case keeps all its modalities.
        complete_share: Share of the epochs, at the beginning, in which every case keeps all its modalities; the
            learning rate falls in each of the two parts.
        subsets: Those to draw from, as ``d2net train --subsets`` takes them; none for all, drawn by ``p_complete``.
        n_epochs: Length of the training, None for nnU-Net's.
        absent_voxel: What the final validation puts into the channels that a case lacks.
        n_folds: Of the splits, where there are none yet; with nnU-Net's number they are nnU-Net's.
        autocast: Makes the context of nnU-Net's precision: half on CUDA devices only.
    """

    p_complete: ClassVar[float] = 0.5
    complete_share: ClassVar[float] = 0.0
    subsets: ClassVar[Sequence[str]] = ()
    n_epochs: ClassVar[int | None] = None
    absent_voxel: ClassVar[float] = 0.0
    n_folds: ClassVar[int] = N_FOLDS
    validation_step_index: int = 0

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        self.continues = bool(plans.get("continue_training"))  # nnU-Net takes it out
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.n_epochs is not None:
            self.num_epochs = self.n_epochs
        self.processes_start = ExitStack()
        # torch seeds every process alike, so ranks and runs would all draw the same subsets
        self.subset_generator = torch.Generator().manual_seed(int(np.random.randint(N_SEEDS)) + self.local_rank)
        on_cuda = self.device.type == "cuda"
        self.autocast: Callable[[], AbstractContextManager] = (
            functools.partial(torch.autocast, "cuda") if on_cuda else nullcontext
        )
        _respect_thread_limit(self.device)

    @classmethod
    def get_training_transforms(cls, *args: Any, **settings: Any) -> BasicTransform:  # noqa: ANN401 - nnU-Net's
        """Build nnU-Net's augmentation; the same bits every time where the training has a seed."""
        return repeatable(super().get_training_transforms(*args, **settings))

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,  # noqa: FBT001, FBT002 - nnU-Net's signature
    ) -> nn.Module:
        """Build the network that the plans describe, or that another trainer among the base classes makes of them.

        Raises:
            UserError: The configuration is a cascade: the channels of its previous stage are not modalities. Or it
                names code from elsewhere as its network, or as one of the layers.
        """
        if configuration_manager.previous_stage_name is not None:
            raise UserError(
                "the input of a cascade holds the segmentation of its previous stage, which is not a modality: "
                "train 3d_fullres or 3d_lowres instead"
            )
        check_architecture(configuration_manager.configuration["architecture"], f"plans {plans_manager.plans_name}")
        # what predicts with this trainer's models passes through here
        accept_absent_files(configuration_manager, plans_manager)
        return super().build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def initialize(self) -> None:
        """Initialize as nnU-Net does, see that no class mixed in has silenced ours, and take pretrained weights.

        Raises:
            UserError: One has: it comes before ours and does not ask the next one. Or the weights fit nowhere.
        """
        super().initialize()
        if not isinstance(self.configuration_manager, MissingModalityConfiguration):
            raise self.silenced("build_network_architecture")
        path = pretrained_weights()
        if path is not None:
            self.start_from(path)

    def start_from(self, path: Path) -> None:
        """Take the weights of another training's checkpoint, as far as they fit."""
        for line in load_fitting_weights(self.network, path, channels_of(self.dataset_json)):
            self.print_to_log_file(f"pretrained weights: {line}")

    def silenced(self, hook: str) -> UserError:
        """Say that another class comes before ours and keeps it from acting."""
        other = next(base.__name__ for base in type(self).__mro__ if hook in vars(base))
        return UserError(
            f"{type(self).__name__}: {hook} is {other}'s, which leaves missing modalities out: "
            f"name {other} behind the trainer of this package among the base classes"
        )

    def on_train_start(self) -> None:
        """Start as nnU-Net does, once the preprocessed data have turned out to be what they should be.

        Raises:
            UserError: They have not, as those that stock nnU-Net makes of incomplete cases; or other plans made a fold.
        """
        check_preprocessed(
            Path(self.preprocessed_dataset_folder),
            channels_of(self.dataset_json),
            f"run d2net preprocess -d {dataset_number(self.plans_manager.dataset_name)} "
            f"-plans_name {self.plans_manager.plans_name} -c {self.configuration_name}",
            lambda properties: planned_shape(properties, self.plans_manager, self.configuration_manager),
        )
        self._note_orientation()
        check_other_folds(Path(self.output_folder), self.plans_manager.plans, self.dataset_json)
        if self.local_rank == 0:
            note_subsets(Path(self.output_folder), self.subset_table)
        super().on_train_start()

    def _note_orientation(self) -> None:
        """Let the model's plans say how the cases lie that it is trained on, if all of them lie alike."""
        plans, counts = self.plans_manager.plans, self._orientations()
        if not any(counts):
            return  # no header says it
        plans.pop(ORIENTATION, None)  # of the data that the plans were made for
        if len(counts) == 1:
            plans[ORIENTATION] = next(iter(counts))
        else:
            self.print_to_log_file(mixed_line(counts))

    def _orientations(self) -> Mapping[str, int]:
        """Count how the cases lie; say so where pretrained weights are of others."""
        counts, path = orientations_of(Path(self.preprocessed_dataset_folder)), pretrained_weights()
        for line in lies_otherwise(path, counts) if path and any(counts) else ():
            self.print_to_log_file(f"pretrained weights: {line}")
        return counts

    @functools.cached_property
    def subset_table(self) -> dict[str, float]:
        """Weights of the subsets to draw from, by name; empty for all of them.

        Raises:
            UserError: They cannot be read, or are not those that this training began with.
        """
        folder, names = Path(self.output_folder), channels_of(self.dataset_json)
        begun = self.continues and (self.current_epoch > 0 or (folder / SUBSETS).is_file())
        return subsets_of_training(folder, self.subsets, names, goes_on=begun)

    @functools.cached_property
    def subset_weights(self) -> Tensor | None:
        """Weights of the ``2^M`` subsets to draw from; None for all of them, drawn by ``p_complete``."""
        table = self.subset_table
        return torch.tensor(weights_of(table, channels_of(self.dataset_json))) if table else None

    @functools.cached_property
    def cohort(self) -> dict[str, list[bool]]:
        """M flags of each preprocessed case; empty where stock nnU-Net has preprocessed, which needs all files."""
        return read_availability(Path(self.preprocessed_dataset_folder))

    @property
    def n_complete_epochs(self) -> int:
        """How many epochs, at the beginning, show complete input only."""
        return round(self.complete_share * self.num_epochs)

    def configure_optimizers(self) -> tuple[Optimizer, Any]:
        """Return the optimizer and the schedule of the trainers behind this one, in two parts where asked for."""
        optimizer, scheduler = super().configure_optimizers()
        return optimizer, self.schedule_of(optimizer) if self.n_complete_epochs else scheduler

    def schedule_of(self, optimizer: Optimizer) -> PhasedPolyLR:
        """Return nnU-Net's polynomial decay for an optimizer, in two parts where asked for."""
        return PhasedPolyLR(optimizer, self.initial_lr, self.num_epochs, self.n_complete_epochs)

    def draw(self, present: Tensor, p_complete: float | None = None) -> Tensor:
        """Draw which modalities the network may see in a training step, bool ``(B, M)``.

        Args:
            present: Modalities that each case really has, bool ``(B, M)`` on the CPU.
            p_complete: In the place of the trainer's own, in its first epochs, too.
        """
        own = p_complete is None
        complete_first = own and self.complete_share > 0 and self.current_epoch < self.n_complete_epochs
        if self.subset_weights is not None and not complete_first:
            return draw_subsets(present, self.subset_weights, self.subset_generator)
        p_complete = self.p_complete if own else p_complete
        return draw_available(present, 1.0 if complete_first else p_complete, self.subset_generator)

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
                "preprocess again with d2net preprocess"
            )
        return torch.tensor([self.cohort[case] for case in batch["keys"]])

    def step_on(self, batch: dict, present: Tensor, available: Tensor) -> Step:
        """Move a batch and its masks, bool ``(B, M)`` on the CPU, to the device."""
        move = functools.partial(torch.Tensor.to, device=self.device, non_blocking=True)
        target = batch["target"]
        return Step(
            move(batch["data"]),
            [move(level) for level in target] if isinstance(target, list) else move(target),
            move(present),
            move(available),
        )

    def training_passes(self, batch: dict) -> list[Step]:
        """Draw what one training step sees of a batch, in one pass through the network or in several, one by one.

        Several accumulate the gradient of the mean over all patches, but for a Dice over the whole batch, which is one
        over each pass then.
        """
        present = self.present_modalities(batch)
        return [self.step_on(batch, present, self.draw(present))]

    def network_outputs(self, step: Step) -> Any:  # noqa: ANN401 - whatever the network returns
        """Run the network on what it may see."""
        return self.network(zero_missing(step.images, step.available))

    def loss_of(self, outputs: Any, step: Step) -> Tensor:  # noqa: ANN401
        """Compute the loss, a scalar, from what the network returned."""
        return self.loss(outputs, step.target)

    def training_loss(self, outputs: Any, step: Step) -> Tensor:  # noqa: ANN401
        """Compute the loss of a training step."""
        return self.loss_of(outputs, step)

    def train_step(self, batch: dict) -> dict:
        """Do nnU-Net's training step on the modalities drawn for each case.

        ``nnUNetTrainer.train_step`` of nnU-Net 2.8.1, written out, because it has no place for a mask; a test holds one
        against the other.
        """
        passes = self.training_passes(batch)
        n_patches = sum(len(step.images) for step in passes)
        losses = []
        self.optimizer.zero_grad(set_to_none=True)
        for step in passes:
            with self.autocast():
                loss = self.training_loss(self.network_outputs(step), step) * (len(step.images) / n_patches)
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
            losses.append(loss.detach())
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
        return {"loss": torch.stack(losses).sum().cpu().numpy()}

    def on_validation_epoch_start(self) -> None:
        """Begin the rotation anew, so that every epoch is measured alike."""
        super().on_validation_epoch_start()
        self.validation_step_index = 0

    def validation_step(self, batch: dict) -> dict:
        """Do nnU-Net's validation step on the next subset of the rotation; written out as :meth:`train_step` is."""
        present = self.present_modalities(batch)
        longest = self.num_val_iterations_per_epoch
        weights = self.subset_weights
        rotation = (
            subset_rotation(present.shape[1], longest) if weights is None else weighted_rotation(weights, longest)
        )
        available = present & rotation[self.validation_step_index % len(rotation)]
        self.validation_step_index += 1
        step = self.step_on(batch, present, torch.where(available.any(1, keepdim=True), available, present))
        with self.autocast():
            outputs = self.network_outputs(step)
            loss = self.loss_of(outputs, step)
        logits = outputs[0] if self.enable_deep_supervision else outputs
        target = step.target[0] if isinstance(step.target, list) else step.target
        return {"loss": loss.detach().cpu().numpy(), **hard_counts(logits, target, self.label_manager)}

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:  # noqa: FBT001, FBT002
        """Validate on whole cases, each with the modalities that it has; the processes that export hear no Ctrl-C."""
        real = self.dataset_class or infer_dataset_class(self.preprocessed_dataset_folder)
        with dataset_seam(self, blanking_dataset(real, self.absent_voxel)), self.processes_start:
            self.processes_start.enter_context(hearing_later())  # until do_split, which nnU-Net asks next
            super().perform_actual_validation(save_probabilities)

    def do_split(self) -> Any:  # noqa: ANN401 - nnU-Net's two lists
        """Return nnU-Net's split; a new one has every pattern of modalities in every fold, as far as there are enough.

        Cohorts of complete cases, and those that have a split, get exactly nnU-Net's.

        Raises:
            UserError: The file of the splits is damaged or names other cases, or there are too few cases to split.
        """
        self.processes_start.close()
        path = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        cases = [case.stem for case in Path(self.preprocessed_dataset_folder).glob("*.pkl")]
        check_fold(path, self.fold, cases)
        flags = self.cohort or dict.fromkeys(cases, ())
        ours = len(set(map(tuple, flags.values()))) > 1 or self.n_folds != N_FOLDS
        if self.fold != "all" and not path.is_file() and ours:
            write_json(path, balanced_splits(flags, self.n_folds), indent=4)
        return super().do_split()

    def random_states(self) -> dict[str, Any]:
        """Return the states of all generators, that of the subsets among them."""
        return {**super().random_states(), "subsets": self.subset_generator.get_state()}

    def restore_random_states(self, states: dict[str, Any]) -> None:
        """Go on drawing subsets, too, where a checkpoint stopped."""
        super().restore_random_states(states)
        if "subsets" in states:
            self.subset_generator.set_state(states["subsets"].cpu())


class nnUNetTrainerModalityDropout(ModalityDroppingTrainer):
    """The honest rival: nnU-Net's own network and loss, and nothing but modality dropout.

    It drops as D2NetTrainer does and chooses ``checkpoint_best`` as that does, no more.
    """


class ToldTrainer(ModalityDroppingTrainer):
    """Trains a network around the planned U-Net, which is told what there is."""

    absent_voxel: ClassVar[float] = math.nan

    @classmethod
    def network_around(cls, unet: nn.Module, n_modalities: int) -> nn.Module:
        """Build the network that takes images and masks.

        Raises:
            ValueError: It cannot be built around this network, or for so many modalities.
        """
        raise NotImplementedError

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,  # noqa: FBT001, FBT002 - nnU-Net's signature
    ) -> nn.Module:
        """Build the network around the U-Net that the plans describe.

        Raises:
            UserError: The plans describe a cascade, a network that is no U-Net of nnU-Net's, or too few modalities.
        """
        shared = (plans_manager, configuration_manager, num_input_channels, num_output_channels)
        try:
            unet = super().build_network_architecture(*shared, enable_deep_supervision)
            return cls.network_around(unet, num_input_channels)
        except (ImportError, TypeError) as error:
            remedy = "plan again with D2NetPlanner or nnU-Net's default planner"
            raise UserError(f"plans {plans_manager.plans_name}: {error}: {remedy}") from error
        except ValueError as error:
            raise UserError(f"plans {plans_manager.plans_name}: {error}") from error

    def network_outputs(self, step: Step) -> Any:  # noqa: ANN401 - logits, or several under deep supervision
        """Run the network, which is told what there is."""
        return self.network(step.images, step.available)


class nnUNetTrainerModalityDropoutModulated(ToldTrainer, nnUNetTrainerModalityDropout):
    """Modality dropout with a U-Net that is told what is missing, and computes the planned U-Net where nothing is."""

    @classmethod
    def network_around(cls, unet: nn.Module, n_modalities: int) -> nn.Module:
        """Let the planned U-Net be told what is missing."""
        return ModulatedUNet(unet, n_modalities)


def _respect_thread_limit(device: torch.device) -> None:
    # nnUNetv2_train sets one thread per core, which makes several trainings on one machine fight for the cores
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if device.type == "cpu" and limit.isdecimal() and int(limit) > 0:
        torch.set_num_threads(int(limit))
