"""The whole objective: nnU-Net's segmentation loss and the weighted terms of both stages.

Paper: Yang et al., D2-Net, IEEE TMI 41(10), 2022, doi:10.1109/TMI.2022.3175478, Eq. (6), (10) and (11).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunetv2_d2net.method.losses.adt_kd import Reduction, adt_kd_losses
from nnunetv2_d2net.method.losses.precision import in_float32
from nnunetv2_d2net.method.losses.sfmc import (
    NEGATIVE_RADIUS,
    Sampling,
    frequency_contrastive_loss,
    spatial_contrastive_loss,
)
from nnunetv2_d2net.method.losses.supervision import (
    Target,
    auxiliary_loss,
    consistency_loss,
    pool_target,
    reconstruction_loss,
    split_targets,
)
from nnunetv2_d2net.method.network.outputs import D2NetOutputs

_CONTRAST = ("temperature", "sampling", "n_positives", "negative_radius")  # options of both contrastive losses
LOSS_TERMS = ("seg", "sc", "fc", "rec", "kd_feature", "kd_logit", "aux", "consis")


class LossOptions(NamedTuple):
    """What the paper leaves open about the losses; the defaults are this project's choices.

    Attributes:
        sampling: Pairs of the contrastive losses, those of the paper's experiments or all pairs of Eq. (5).
        temperature: tau of Eq. (1) and (4).
        drop_dc: Leave frequency 0 out of Eq. (4).
        kd_reduction: Mean over the pairs of levels, or the sum that Eq. (9) prints.
        n_positives: Of an anchor, in the sampling ``paper`` (Table III).
        negative_radius: Slices on each side that give its negatives (Table III): 8 make 48 negatives with M = 4.
    """

    sampling: Sampling = "paper"
    temperature: float = 0.07
    drop_dc: bool = False
    kd_reduction: Reduction = "mean"
    n_positives: int = 1
    negative_radius: int = NEGATIVE_RADIUS


PAPER_LOSSES = LossOptions(kd_reduction="sum")
"""As the paper prints them."""


class D2NetLoss(nn.Module):
    r"""Segmentation loss plus the weighted sum of D2-Net's terms.

    .. math::
        \mathcal{L} = \mathcal{L}_{seg} + \lambda_1 (\mathcal{L}_{SFMC} + \mathcal{L}_{rec})
        + \lambda_2 (\mathcal{L}_{ADT-KD} + \mathcal{L}_{aux} + \mathcal{L}_{consis})

    Paper: Eq. (6), (10) and (11). Deviates: every term has its own weight, with SFMC and ADT-KD split in two. The
    paper's weights are all 1.

    Attributes:
        weights: One weight per name in ``LOSS_TERMS``.
        last_terms: The terms of the last training batch, detached and unweighted, in the order of ``LOSS_TERMS``.
    """

    def __init__(
        self,
        segmentation_loss: nn.Module,
        weights: Mapping[str, float],
        *,
        regions: bool,
        ignore_label: int | None,
        level_weights: Sequence[float],
        options: LossOptions | None = None,
    ) -> None:
        """Store the settings.

        Args:
            segmentation_loss: nnU-Net's loss; takes lists over resolution exactly when the targets are lists.
            weights: Weight by term; a term that is not named has weight 1.
            regions: Whether the data set trains regions.
            ignore_label: The data set's ignore label, or None.
            level_weights: nnU-Net's deep-supervision weights, ``[1.0]`` without deep supervision.
            options: What the paper leaves open.

        Raises:
            ValueError: If a weight has an unknown name.
        """
        super().__init__()
        self.segmentation_loss = segmentation_loss
        self.regions = regions
        self.options = options or LossOptions()
        self.ignore_label = ignore_label
        self.level_weights = tuple(float(weight) for weight in level_weights)
        self.weights: dict[str, float] = dict.fromkeys(LOSS_TERMS, 1.0)
        self.set_weights(weights)
        self.last_terms = torch.zeros(len(LOSS_TERMS))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change the weights that are named, keep the others.

        Raises:
            ValueError: If a weight has an unknown name.
        """
        unknown = sorted(set(weights) - set(LOSS_TERMS))
        if unknown:
            raise ValueError(f"unknown loss terms {unknown}: use names among {', '.join(LOSS_TERMS)}")
        self.weights.update({name: float(weight) for name, weight in weights.items()})

    def forward(
        self,
        outputs: D2NetOutputs | Tensor | list[Tensor],
        target: Tensor | list[Tensor],
        images: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Return the total; for what the network returns in eval mode the segmentation loss alone.

        Args:
            outputs: The network's training outputs, or its eval logits.
            target: nnU-Net's target, a list over resolution with deep supervision.
            images: Normalized images before dropping, ``(B, M, *spatial)``; needed with training outputs.
            present: Which modalities each case really has, bool ``(B, M)``; needed with training outputs.

        Returns:
            Scalar.

        Raises:
            ValueError: If training outputs come without images or without present.
        """
        if not isinstance(outputs, D2NetOutputs):
            return self._segmentation(outputs, target)
        if images is None or present is None:
            raise ValueError("training outputs need the images before dropping and which are present: pass both")
        terms = self.terms(outputs, target, images, present)
        self.last_terms = torch.stack([terms[name].detach().float() for name in LOSS_TERMS])
        total = torch.stack([self.weights[name] * terms[name].float() for name in LOSS_TERMS]).sum()
        return total + _touch(_levels_outside_the_banks(outputs))

    def terms(
        self, outputs: D2NetOutputs, target: Tensor | list[Tensor], images: Tensor, present: Tensor
    ) -> dict[str, Tensor]:
        """Return every term of ``LOSS_TERMS``, unweighted and attached to the graph; arguments as in ``forward``."""
        student, teacher = outputs.student_logits, outputs.teacher_logits
        targets = split_targets(target, teacher[0].shape[1], regions=self.regions, ignore_label=self.ignore_label)
        codes, valid = outputs.modality_codes, outputs.informative_slices
        of_frequency = codes if outputs.frequency_maps is None else outputs.frequency_maps
        contrast = {name: getattr(self.options, name) for name in _CONTRAST}
        common = {"regions": self.regions, "ignore": targets[0].ignore}
        kd_feature, kd_logit = adt_kd_losses(
            _bank_logits(student, outputs.student_features, outputs.first_bank_level),
            _bank_logits(teacher, outputs.teacher_features, outputs.first_bank_level - outputs.first_teacher_level),
            outputs.student_features,
            outputs.teacher_features,
            reduction=self.options.kd_reduction,
            **common,
        )
        return {
            "seg": self._segmentation(student[0] if isinstance(target, Tensor) else student, target),
            "sc": spatial_contrastive_loss(codes, valid, **contrast),
            "fc": frequency_contrastive_loss(of_frequency, valid, **contrast, drop_dc=self.options.drop_dc),
            "rec": reconstruction_loss(outputs.reconstructions, images, present),
            "kd_feature": kd_feature,
            "kd_logit": kd_logit,
            "aux": auxiliary_loss(teacher, *self._teacher_supervision(targets, outputs)),
            "consis": consistency_loss(teacher[0], student[0], **common),
        }

    def _teacher_supervision(self, targets: list[Target], outputs: D2NetOutputs) -> tuple[list[Target], list[float]]:
        """Targets and weights of the levels that the teacher decodes; the weights keep their sum."""
        first = outputs.first_teacher_level
        weights, total = self.level_weights[first:], sum(self.level_weights)
        if sum(weights) > 0:
            return targets[first:], [weight * total / sum(weights) for weight in weights]
        return [pool_target(targets[0], outputs.teacher_logits[0].shape[2:])], [total]

    def _segmentation(self, logits: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        return _apply(logits, target, self.segmentation_loss)


@in_float32
def _apply(logits: Tensor | list[Tensor], target: Tensor | list[Tensor], loss: nn.Module) -> Tensor:
    return loss(logits, target)


def _bank_logits(logits: list[Tensor], features: list[Tensor], first_level: int) -> list[Tensor]:
    return logits[first_level : first_level + len(features)]


def _levels_outside_the_banks(outputs: D2NetOutputs) -> list[Tensor]:
    """Logits that no term reads where deep supervision is off or gives their level no weight."""

    def outside(logits: list[Tensor], first: int) -> list[Tensor]:
        return logits[1:first] + logits[max(1, first + len(outputs.student_features)) :]

    first = outputs.first_bank_level
    return outside(outputs.student_logits, first) + outside(outputs.teacher_logits, first - outputs.first_teacher_level)


def _touch(logits: list[Tensor]) -> Tensor | int:
    """Zero that depends on these levels, so that no head is unused: DDP wants a gradient for every parameter."""
    return sum(level.flatten()[0].float() * 0.0 for level in logits)
