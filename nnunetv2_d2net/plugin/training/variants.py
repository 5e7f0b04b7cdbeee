"""Every trainer that nnU-Net can find by name: lengths, the paper's settings, and the ablations of its Table II."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import Optimizer

from nnunetv2_d2net.method.network.d2net import D2NetOptions
from nnunetv2_d2net.plugin.training.demo import D2NetTrainerDemo
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer, nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.trainer import PAPER_WEIGHTS, D2NetTrainer

LENGTHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)  # those that nnU-Net offers
_EPOCHS = {f"{n}epoch{'s' if n > 1 else ''}": n for n in LENGTHS}


class D2NetTrainerPaper(D2NetTrainer):
    """The paper's training (section IV-B): Adam, batches of 2, 400 passes over the training cases, all weights 1.

    The paper names an initial learning rate and no schedule; it decays as in nnU-Net, polynomially.
    """

    p_complete: ClassVar[float] = 0.0
    n_epochs: ClassVar[int | None] = 400
    network_options: ClassVar[D2NetOptions] = D2NetTrainer.network_options._replace(teacher_level=0)
    loss_weights: ClassVar[Mapping[str, float]] = PAPER_WEIGHTS
    loss_ramps: ClassVar[Mapping[str, float]] = {}

    def configure_optimizers(self) -> tuple[Optimizer, PolyLRScheduler]:
        """Return Adam with the paper's learning rate and weight decay."""
        self.initial_lr, self.weight_decay = 3e-4, 5e-5
        optimizer = torch.optim.Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def on_train_start(self) -> None:
        """Make an epoch one pass over the training cases."""
        super().on_train_start()
        training_cases, _ = self.do_split()
        self.num_iterations_per_epoch = max(1, math.ceil(len(training_cases) / self.configuration_manager.batch_size))

    def _set_batch_size_and_oversample(self) -> None:
        self.configuration_manager.configuration["batch_size"] = 2
        super()._set_batch_size_and_oversample()


def _keep(*terms: str) -> Mapping[str, float]:
    """D2NetTrainer's weights, where of the four losses that Table II ablates only these are left."""
    dropped = {"sc", "fc", "kd_feature", "kd_logit"} - set(terms)
    return {**D2NetTrainer.loss_weights, **dict.fromkeys(dropped, 0.0)}


class D2NetTrainerNoSFMCNoKD(D2NetTrainer):
    """Table II, row 1: neither contrastive nor distillation losses."""

    loss_weights: ClassVar[Mapping[str, float]] = _keep()


class D2NetTrainerOnlySC(D2NetTrainer):
    """Table II, row 2: only the spatial contrastive loss."""

    loss_weights: ClassVar[Mapping[str, float]] = _keep("sc")


class D2NetTrainerOnlyFC(D2NetTrainer):
    """Table II, row 3: only the frequency contrastive loss."""

    loss_weights: ClassVar[Mapping[str, float]] = _keep("fc")


class D2NetTrainerNoKD(D2NetTrainer):
    """Table II, row 4: both contrastive losses, no distillation."""

    loss_weights: ClassVar[Mapping[str, float]] = _keep("sc", "fc")


class D2NetTrainerOnlyKDFeature(D2NetTrainer):
    """Table II, row 5: only feature distillation."""

    loss_weights: ClassVar[Mapping[str, float]] = _keep("kd_feature")


class D2NetTrainerOnlyKDLogit(D2NetTrainer):
    """Table II, row 6: only logit distillation."""

    loss_weights: ClassVar[Mapping[str, float]] = _keep("kd_logit")


class D2NetTrainerNoSFMC(D2NetTrainer):
    """Table II, row 7: both distillation losses, no contrastive ones."""

    loss_weights: ClassVar[Mapping[str, float]] = _keep("kd_feature", "kd_logit")


class D2NetTrainerSegOnly(D2NetTrainer):
    """D2-Net's network with nnU-Net's segmentation loss alone."""

    loss_weights: ClassVar[Mapping[str, float]] = dict.fromkeys(D2NetTrainer.loss_weights, 0.0)


class D2NetTrainerPaperWeights(D2NetTrainer):
    """D2NetTrainer with the paper's weights, all 1 and not ramped, on nnU-Net's schedule."""

    loss_weights: ClassVar[Mapping[str, float]] = PAPER_WEIGHTS
    loss_ramps: ClassVar[Mapping[str, float]] = {}


class D2NetTrainerModulatedSkips(D2NetTrainer):
    """D2NetTrainer whose tumor-specific codes also modulate the student's skips."""

    network_options: ClassVar[D2NetOptions] = D2NetTrainer.network_options._replace(modulate_skips=True)


class D2NetTrainerModulatedEncoder(D2NetTrainer):
    """D2NetTrainer whose tumor encoder is told at every stage which modalities there are."""

    network_options: ClassVar[D2NetOptions] = D2NetTrainer.network_options._replace(modulate_encoder=True)


class D2NetTrainerFullTeacher(D2NetTrainer):
    """D2NetTrainer whose teacher decodes up to full resolution, as the paper says."""

    network_options: ClassVar[D2NetOptions] = D2NetTrainer.network_options._replace(teacher_level=0)


class D2NetTrainerIndependentEncoders(D2NetTrainer):
    """D2NetTrainer with one modality encoder per modality, as the paper says."""

    network_options: ClassVar[D2NetOptions] = D2NetTrainer.network_options._replace(independent_encoders=True)


__all__ = [
    "D2NetTrainer",
    "D2NetTrainerDemo",
    "D2NetTrainerFullTeacher",
    "D2NetTrainerIndependentEncoders",
    "D2NetTrainerModulatedEncoder",
    "D2NetTrainerModulatedSkips",
    "D2NetTrainerNoKD",
    "D2NetTrainerNoSFMC",
    "D2NetTrainerNoSFMCNoKD",
    "D2NetTrainerOnlyFC",
    "D2NetTrainerOnlyKDFeature",
    "D2NetTrainerOnlyKDLogit",
    "D2NetTrainerOnlySC",
    "D2NetTrainerPaper",
    "D2NetTrainerPaperWeights",
    "D2NetTrainerSegOnly",
    "nnUNetTrainerModalityDropout",
]


def find_trainer(name: str) -> type[ModalityDroppingTrainer]:
    """Return a trainer of this module; those of nnU-Net's lengths are made when they are looked up.

    Args:
        name: Such as ``D2NetTrainer`` or ``D2NetTrainer_20epochs``.

    Raises:
        AttributeError: There is none of that name.
    """
    base, _, length = name.rpartition("_")
    if name not in __all__ and (base not in __all__ or length not in _EPOCHS):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in globals():  # the same class at every lookup
        words = {"n_epochs": _EPOCHS[length], "__module__": __name__, "__doc__": f"{base} for {length}."}
        globals()[name] = type(name, (globals()[base],), words)
    return globals()[name]


__getattr__ = find_trainer
