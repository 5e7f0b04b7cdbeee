"""D2NetTrainer: nnU-Net's training of D2-Net, its losses and what they do, epoch by epoch."""

import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from nnunetv2.utilities.helpers import empty_cache
from torch import Tensor, nn
from torch.optim import Optimizer

from nnunetv2_d2net.method.losses.d2net_loss import LOSS_TERMS, D2NetLoss, LossOptions
from nnunetv2_d2net.method.network.companion import Companion
from nnunetv2_d2net.method.network.d2net import D2Net, D2NetOptions
from nnunetv2_d2net.plugin.training.diagnostics import code_variances, gradient_shares, logit_changes
from nnunetv2_d2net.plugin.training.dropping import Step, ToldTrainer
from nnunetv2_d2net.plugin.training.logger import D2NetLogger
from nnunetv2_d2net.plugin.training.pretrained import unwrapped

PAPER_WEIGHTS: Mapping[str, float] = dict.fromkeys(("sc", "fc", "rec", "kd_feature", "kd_logit", "aux", "consis"), 1.0)

MODALITY_ENCODER_MOMENTUM = 0.9
# With all weights 1 the auxiliary terms make most of the gradient on the encoder at first.
GENTLE_WEIGHTS: Mapping[str, float] = {
    "sc": 0.1,
    "fc": 0.1,
    "rec": 0.1,
    "kd_feature": 0.05,
    "kd_logit": 0.2,
    "aux": 0.5,
    "consis": 0.5,
}


_ABLATED = ("sc", "fc", "kd_feature", "kd_logit")


def ablated(weights: Mapping[str, float], *kept: str) -> dict[str, float]:
    """Set the weights of the four losses that the paper's Table II ablates to 0, except for those that are kept."""
    return {term: 0.0 if term in _ABLATED and term not in kept else weight for term, weight in weights.items()}


class D2NetTrainer(ToldTrainer):
    """Train D2-Net around the U-Net of any nnU-Net plans.

    Attributes:
        network_options: What the paper leaves open about the network.
        loss_options: What it leaves open about the losses.
        loss_weights: Weight of every term beside the segmentation loss (Eq. 11); a term that is not named has 1.
        loss_ramps: Share of the training over which a term's weight grows linearly from 0.
    """

    network_options: ClassVar[D2NetOptions] = D2NetOptions()
    loss_options: ClassVar[LossOptions] = LossOptions()
    loss_weights: ClassVar[Mapping[str, float]] = GENTLE_WEIGHTS
    loss_ramps: ClassVar[Mapping[str, float]] = {"rec": 0.1}

    loss: D2NetLoss
    term_sums: Tensor
    train_step_index: int = 0

    @classmethod
    def network_around(cls, unet: nn.Module, n_modalities: int) -> D2Net:
        """Wrap the planned U-Net into D2-Net."""
        return D2Net(unet, n_modalities, cls.network_options)

    def _build_loss(self) -> D2NetLoss:
        segmentation_loss: Any = super()._build_loss()
        level_weights = tuple(map(float, getattr(segmentation_loss, "weight_factors", (1.0,))))
        segmentation_loss.weight_factors = level_weights  # torch.compile breaks its graph at numpy's numbers
        return D2NetLoss(
            segmentation_loss,
            self.loss_weights,
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            level_weights=level_weights,
            options=self.loss_options,
        )

    def configure_optimizers(self) -> tuple[Optimizer, Any]:
        """Return nnU-Net's SGD, with a momentum of its own for the modality encoders.

        The contrastive losses do not depend on the length of a code. nnU-Net's momentum of 0.99 then makes codes ever
        longer and all alike within a hundred steps, from where no gradient leads back.
        """
        optimizer, _ = super().configure_optimizers()
        encoder = list(self.bare_network.modality_encoder.parameters())  # a checkpoint relies on the order
        others = [p for p in self.network.parameters() if all(p is not own for own in encoder)]
        groups = [{"params": others}, {"params": encoder, "momentum": MODALITY_ENCODER_MOMENTUM}]
        optimizer = type(optimizer)(groups, **optimizer.defaults)
        return optimizer, self.schedule_of(optimizer)

    def initialize(self) -> None:
        """Initialize as nnU-Net does, and see that no class mixed in has silenced ours.

        Raises:
            UserError: One has: it comes before ours and does not ask the next one.
        """
        self.logger.local_logger = D2NetLogger(LOSS_TERMS, gated=self.network_options.gated_bottleneck)
        self.term_sums = torch.zeros(len(LOSS_TERMS), device=self.device)
        super().initialize()
        if not isinstance(self.loss, D2NetLoss):
            raise self.silenced("_build_loss")

    def step_on(self, batch: dict, present: Tensor, available: Tensor) -> Step:
        """Move a batch and its masks to the device; where gradients are scaled, see whether there is air in it."""
        step = super().step_on(batch, present, available)
        if self.grad_scaler is None or not torch.is_grad_enabled():
            return step
        return step._replace(holds_air=holds_air(batch["data"], available))  # here, so that the device need not wait

    def network_outputs(self, step: Step) -> Any:  # noqa: ANN401 - D2NetOutputs in training, logits in validation
        """Run D2-Net, which is told what there is.

        In bfloat16 where that is asked for on a CPU, and where a case holds only air: instance normalization of
        constant maps multiplies gradients by 1 / sqrt(1e-5) each time, which leaves the range of float16.
        """
        on_cpu = os.environ.get("D2NET_CPU_BFLOAT16", "0").lower() in ("1", "true", "t")
        wide = step.holds_air or (on_cpu and self.device.type == "cpu")
        with torch.autocast(self.device.type, torch.bfloat16) if wide else nullcontext():
            return self.network(step.images, step.available)

    def loss_of(self, outputs: Any, step: Step) -> Tensor:  # noqa: ANN401
        """Compute the loss, which also reads the images before any was hidden."""
        return self.loss(outputs, step.target, step.images, step.present)

    def train_step(self, batch: dict) -> dict:
        """Do one step; the first of an epoch also measures what each loss term does to the encoder."""
        self.loss.set_weights(self.current_weights())
        if self.train_step_index == 0:
            self._log_gradient_shares(batch)
        self.train_step_index += 1
        outputs = super().train_step(batch)
        self.term_sums += self.loss.last_terms
        return outputs

    def current_weights(self) -> dict[str, float]:
        """Return the weight of each term at this point of the training."""
        n_steps = self.num_epochs * self.num_iterations_per_epoch
        progress = (self.current_epoch * self.num_iterations_per_epoch + self.train_step_index) / n_steps
        ramped = {term: min(1.0, progress / ramp) for term, ramp in self.loss_ramps.items() if ramp > 0}
        return {term: weight * ramped.get(term, 1.0) for term, weight in self.loss_weights.items()}

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's means."""
        super().on_train_epoch_start()
        self.train_step_index = 0
        self.term_sums.zero_()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Log the mean of every loss term."""
        super().on_train_epoch_end(train_outputs)
        means = self.term_sums / max(1, self.train_step_index)
        if self.is_ddp:
            dist.all_reduce(means)
            means /= dist.get_world_size()
        self._log("loss", dict(zip(LOSS_TERMS, means.tolist(), strict=True)))

    def validation_step(self, batch: dict) -> dict:
        """Do one step; the first of an epoch also measures how much bottleneck and codes matter."""
        if self.validation_step_index == 0:
            images = batch["data"].to(self.device)
            available = self.present_modalities(batch).to(self.device)
            with self.autocast():
                self._log("logit_change", logit_changes(self.bare_network, images, available))
                self._log("codes", code_variances(self.bare_network, images, available))
            if self.bare_network.bottleneck_gate is not None:
                self._log("gate", {"opening": self.bare_network.bottleneck_gate.opening()})
        return super().validation_step(batch)

    @property
    def bare_network(self) -> D2Net:
        """The network without the wrappers of DDP and torch.compile.

        Raises:
            UserError: It is no D2-Net, because a class mixed in builds its own.
        """
        network = unwrapped(self.network)
        network = network.student if isinstance(network, Companion) else network
        if not isinstance(network, D2Net):
            raise self.silenced("build_network_architecture")
        return network

    def _log_gradient_shares(self, batch: dict) -> None:
        shares: Mapping[str, float]
        present = self.present_modalities(batch)
        step = self.step_on(batch, present, present)
        scale = self.grad_scaler.get_scale() if self.grad_scaler is not None else 1.0
        try:
            with self.autocast():
                outputs = self.bare_network(step.images, step.present)
                terms = self.loss.terms(outputs, step.target, step.images, step.present)
            weighted = {term: terms[term] * self.loss.weights[term] for term in LOSS_TERMS}
            shares = gradient_shares(weighted, self.bare_network.encoder, scale)
        except torch.OutOfMemoryError:  # one graph for all terms takes more than a step, which must not fail for it
            shares = dict.fromkeys(LOSS_TERMS, math.nan)
            empty_cache(self.device)
        self._log("gradient_share", shares)

    def _log(self, group: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.logger.log(f"{group}/{name}", value, self.current_epoch)
        self.print_to_log_file(group, {name: round(value, 4) for name, value in values.items()})


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
