"""The trainer of companions: it starts from a stock nnU-Net, keeps it beside the student, and chooses between them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray
from scipy.stats import permutation_test
from torch import Tensor, nn

from nnunetv2_d2net.base.dataset import channels_of, subset_name
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json_or, write_json
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.base.text import counted, listed
from nnunetv2_d2net.method.modalities import modality_subsets, subset_codes
from nnunetv2_d2net.method.network.companion import GATE, STOCK, STUDENT, Companion, chosen_network
from nnunetv2_d2net.method.network.td_stage import gate_opening
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from nnunetv2_d2net.plugin.start import STOCK_TRAINER, check_same_fold
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer
from nnunetv2_d2net.plugin.training.pretrained import (
    load_fitting_weights,
    load_whole_network,
    pretrained_weights,
    unwrapped,
)
from nnunetv2_d2net.plugin.training.splits import perhaps_trained_on, validation_cases
from nnunetv2_d2net.plugin.training.validation import hard_counts

CHOICE = "companion.json"
"""File in a fold's folder that says which network predicts with which subset, and what that is based on."""

CHANCE = 0.05
"""With all modalities the student has to win at this level, in a one-sided test over the validation cases."""


class CompanionTrainer(ModalityDroppingTrainer):
    """Trains a companion of a stock nnU-Net that was trained with the same plans and fold.

    It is mixed in before the student's trainer. The student starts with the stock network's weights. When the training
    ends, both networks predict the fold's validation cases with every subset of their modalities, and the better one
    gets the subset; complete input stays with the stock network unless the student wins by more than chance. Fold
    ``all`` has no validation cases: there the stock network predicts complete input, and nothing else.

    Attributes:
        n_choice_cases: How many validation cases the choice looks at, at most.
    """

    absent_voxel: ClassVar[float] = math.nan
    n_choice_cases: ClassVar[int] = 24

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,  # noqa: FBT001, FBT002 - nnU-Net's signature
    ) -> nn.Module:
        """Build the student's network and, beside it, the one that the plans describe."""
        shared = (plans_manager, configuration_manager, num_input_channels, num_output_channels)
        student = super().build_network_architecture(*shared, enable_deep_supervision)
        stock = nnUNetTrainer.build_network_architecture(*shared, enable_deep_supervision=False)
        return Companion(student, stock, num_input_channels)

    @property
    def companion(self) -> Companion:
        """The network without the wrappers of DDP and torch.compile.

        Raises:
            UserError: It is none, because a class mixed in builds its own.
        """
        network = unwrapped(self.network)
        if not isinstance(network, Companion):
            raise self.silenced("build_network_architecture")
        return network

    def start_from(self, path: Path) -> None:
        """Take a stock model's weights, whole into the stock network and as far as they fit into the student.

        The axes along which it may be mirrored are taken, too: complete cases would not come out as before otherwise.

        Raises:
            UserError: The checkpoint is of another network, of other plans, modalities or fold, or cannot be read.
        """
        checkpoint = read_checkpoint(path)
        check_same_fold(path, checkpoint["init_args"].get("fold", self.fold), self.fold)
        axes = checkpoint.get("inference_allowed_mirroring_axes")
        self.inference_allowed_mirroring_axes = None if axes is None else tuple(axes)
        channels, stock = channels_of(self.dataset_json), cast(nn.Module, self.companion.stock)
        load_whole_network(stock, path, channels, self.plans_manager.plans, self.configuration_name)
        for line in load_fitting_weights(self.companion.student, path, channels):
            self.print_to_log_file(f"start: {line}")

    def on_train_start(self) -> None:
        """Start from the stock model of the same plans and fold, unless another one was named or training goes on.

        Raises:
            UserError: There is none.
        """
        if not self.was_initialized:
            self.initialize()
        start = None
        if self.current_epoch == 0 and (start := pretrained_weights()) is None:
            start = self._stock_checkpoint()
            self.start_from(start)
        super().on_train_start()
        if start is not None:
            self._tell_of_cases_seen(start)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        """Let training mirror along the axes of the stock model, along which both networks are mirrored later."""
        axes = self.inference_allowed_mirroring_axes
        *others, own = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = axes
        if tuple(own or ()) != tuple(axes or ()):
            self.print_to_log_file(f"mirroring: along the axes {axes}, as the stock model, in the place of {own}")
        return *others, axes

    def _note_orientation(self) -> None:
        """Leave the plans as they are: a companion predicts what its stock model does, which turns nothing."""
        self._orientations()

    def on_validation_epoch_start(self) -> None:
        """Let the pseudo-Dice, and with it ``checkpoint_best``, speak for the student alone."""
        super().on_validation_epoch_start()
        self.companion.student_only = True

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Let the table speak again."""
        self.companion.student_only = False
        super().on_validation_epoch_end(val_outputs)

    def on_train_end(self) -> None:
        """Choose which network predicts with which subset, and end as nnU-Net does."""
        self.current_epoch -= 1  # as nnU-Net's on_train_end does: the counter is one ahead
        self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_latest.pth"))
        self.current_epoch += 1
        self._choose()
        super().on_train_end()

    def _tell_of_cases_seen(self, start: Path) -> None:
        """Say on which validation cases the stock network may have trained, so that the choice would favor it."""
        splits = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        if cases := perhaps_trained_on(start, validation_cases(splits, self.fold)):
            self.print_to_log_file(
                f"start: WARNING: {start} was validated on other cases than fold {self.fold} has now, and may have "
                f"trained on {listed(cases, 5)}: the choice between the two networks would favor the stock one. Put "
                "its splits_final.json back, if there was another, and train again"
            )

    def _stock_checkpoint(self) -> Path:
        folder = Path(self.output_folder_base)
        stock = folder.parent / "__".join((STOCK_TRAINER, *folder.name.split("__")[1:]))
        path = stock / f"fold_{self.fold}" / "checkpoint_final.pth"
        if not path.is_file():
            raise UserError(
                f"{path} does not exist, from which {type(self).__name__} starts: "
                "train nnUNetTrainer first, or name another stock model with d2net train --start_from"
            )
        return path

    def _choose(self) -> None:
        if self.fold == "all":
            self.print_to_log_file("fold all has no validation cases: the stock network predicts complete input only")
            return
        cases = self.do_split()[1]
        chosen = np.random.default_rng(0).permutation(len(cases))[: self.n_choice_cases]
        cases = sorted(cases[i] for i in chosen)
        subsets = modality_subsets(len(channels_of(self.dataset_json)))
        if self.subset_weights is not None:
            named = self.subset_weights[subset_codes(subsets)] > 0
            subsets = subsets[named | subsets.all(1)]
        dice = self._dice_of(cases, subsets)
        of_stock = [s.mean() > t.mean() if len(s) else False for s, t in zip(*map(_known, dice), strict=True)]
        of_stock[-1] = not _wins(dice[1, -1], dice[0, -1])
        table = self.companion.by_stock
        table[subset_codes(subsets).to(table.device)] = torch.tensor(of_stock, device=table.device)
        if self.local_rank == 0:
            self._note(cases, subsets, dice, of_stock)

    def _dice_of(self, cases: Sequence[str], subsets: Tensor) -> NDArray[np.float64]:
        """Return the mean Dice of the regions, ``(2, S, N)``: stock and student, NaN where a case lacks a modality."""
        world = dist.get_world_size() if self.is_ddp else 1
        self.set_deep_supervision_enabled(enabled=False)
        self.network.eval()
        data = cast(Any, self.dataset_class)(self.preprocessed_dataset_folder, list(cases))
        dice = np.full((2, len(subsets), len(cases)), np.nan)
        predictor = self._predictor()
        mine = range(self.local_rank, len(cases), world)
        for i in Bar(mine, title="choose between stock and student", total=len(mine), shown=self.local_rank == 0):
            case = cast(str, cases[i])
            images, labels, *_ = data.load_case(case)
            present = torch.tensor(self.cohort.get(case, [True] * subsets.shape[1]))
            target = target_of(torch.from_numpy(np.array(labels[:])), self.label_manager)
            for s, subset in enumerate(subsets):
                if not (subset & ~present).any():
                    for kind, name in enumerate((STOCK, STUDENT)):
                        predictor.network = OneOfTwo(self.companion, name, subset)
                        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.array(images[:])))
                        dice[kind, s, i] = mean_dice(logits.float().cpu(), target, self.label_manager)
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        compute_gaussian.cache_clear()
        if self.is_ddp:
            of_all: list[Any] = [None] * world
            dist.all_gather_object(of_all, dice)
            dice = np.array(of_all)
            dice = np.where(np.isnan(dice).all(0), np.nan, np.nansum(dice, 0))
        return dice

    def _predictor(self) -> nnUNetPredictor:
        """Return nnU-Net's window in as few tiles as cover a case, without mirroring: there are many subsets."""
        predictor = nnUNetPredictor(tile_step_size=1, device=self.device, allow_tqdm=False)
        arguments = (self.plans_manager, self.configuration_manager, None, self.dataset_json, type(self).__name__, None)
        predictor.manual_initialization(self.companion, *arguments)
        return predictor

    def _note(self, cases: Sequence[str], subsets: Tensor, dice: NDArray[np.float64], of_stock: Sequence[bool]) -> None:
        names = channels_of(self.dataset_json)
        rows: dict[str, Mapping[str, Any]] = {}
        for s, (subset, to_stock) in enumerate(zip(subsets, of_stock, strict=True)):
            stock, student = (float(_known(d)[s].mean()) if len(_known(d)[s]) else None for d in dice)
            predicts = STOCK if to_stock else STUDENT
            rows[subset_name(subset.tolist(), names)] = {STOCK: stock, STUDENT: student, "predicts": predicts}
        self.print_to_log_file(f"choice on {counted(len(cases), 'validation case')}, mean Dice:", rows)
        write_json(Path(self.output_folder) / CHOICE, {"cases": list(cases), "subsets": rows}, indent=4)


class OneOfTwo(nn.Module):
    """One network of a companion with one subset, for a sliding window that knows nothing but images.

    Args:
        companion: The two.
        name: Of the one.
        subset: Bool ``(M,)``.
    """

    def __init__(self, companion: Companion, name: str, subset: Tensor) -> None:
        super().__init__()
        self.companion = companion
        self.name = name
        self.subset = subset

    def forward(self, tile: Tensor) -> Tensor:
        """Map one tile ``(1, M, *patch)`` to logits ``(1, C, *patch)``."""
        return self.companion.by_name(self.name, tile, self.subset.to(tile.device)[None])


def target_of(labels: Tensor, label_manager: LabelManager) -> Tensor:
    """Return the target of whole preprocessed labels as nnU-Net's validation transforms make it.

    Args:
        labels: ``(1, *spatial)``; -1 outside the cropped region counts as background.
        label_manager: nnU-Net's.

    Returns:
        Labels ``(1, *spatial)``; or regions, bool ``(C, *spatial)``, followed by the ignored voxels if there are any.
    """
    labels = labels.clamp(min=0)
    if not label_manager.has_regions:
        return labels.long()
    regions: list[Any] = list(label_manager.foreground_regions)
    if label_manager.has_ignore_label:
        regions.append(label_manager.ignore_label)
    return torch.cat([torch.isin(labels, torch.tensor(region).flatten().to(labels.dtype)) for region in regions])


def mean_dice(logits: Tensor, target: Tensor, label_manager: LabelManager) -> float:
    """Return the Dice of a case, the mean over its regions; 1 where neither holds anything.

    Args:
        logits: ``(C, *spatial)``.
        target: As :func:`target_of` makes it.
        label_manager: nnU-Net's.
    """
    counts = hard_counts(logits[None], target[None], label_manager)
    tp, fp, fn = (np.asarray(counts[f"{name}_hard"], float) for name in ("tp", "fp", "fn"))
    return float(np.where(tp + fp + fn > 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1), 1.0).mean())


def read_choice(checkpoint: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return which network of a companion predicts with which subset, as :data:`CHOICE` says it.

    The checkpoint says which, for by its own table it predicts; the file beside it, what that was based on. How far the
    gate of the student is open is said, too, if it is a D2-Net that has one.

    Args:
        checkpoint: Of a fold.
        names: M modality names.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    weights = read_checkpoint(checkpoint)["network_weights"]
    noted = read_json_or(checkpoint.with_name(CHOICE), {"cases": [], "subsets": {}})
    before, rows = noted.get("subsets"), {}
    for subset in modality_subsets(len(names)).tolist():
        name = subset_name(subset, names)
        based_on = before.get(name) if isinstance(before, dict) else None
        rows[name] = {**(based_on if isinstance(based_on, dict) else {}), "predicts": chosen_network(weights, subset)}
    gate = weights.get(f"{STUDENT}.bottleneck_gate.gate")
    opening = {} if gate is None else {GATE: gate_opening(gate)}
    return {"cases": noted.get("cases", []), "subsets": rows, **opening}


def has_stock(companion: Mapping[str, Any], stock: Mapping[str, Any]) -> bool:
    """Tell whether a companion's checkpoint holds the network of a stock model's; one without its own stock may.

    The first layer is not compared, whose filters go by the names of modalities.
    """
    held, weights = companion["network_weights"], stock["network_weights"]
    names = [name for name in weights if name.startswith("decoder.") and f"{STOCK}.{name}" in held]
    compared = [name for name in names if not name.startswith("decoder.encoder.")]
    return all(torch.equal(held[f"{STOCK}.{name}"], weights[name]) for name in compared)


def _known(dice: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [of_subset[~np.isnan(of_subset)] for of_subset in dice]


def _wins(student: NDArray[np.float64], stock: NDArray[np.float64]) -> bool:
    """Tell whether the student's mean is higher by more than chance, over the cases that have all modalities."""
    gain = (student - stock)[~np.isnan(student)]
    if len(gain) < 2:
        return False
    result = permutation_test((gain,), np.mean, permutation_type="samples", alternative="greater", rng=0)
    return bool(result.pvalue < CHANCE)
