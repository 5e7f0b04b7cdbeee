"""A trainer that compares what two nested subsets of the modalities give, patch by patch."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from nnunetv2_d2net.method.losses.nested import one_way_consistency, ranking_hinge
from nnunetv2_d2net.plugin.training.dropping import Step
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.repeating import RepeatingTrainer


class NestedTrainer(RepeatingTrainer):
    """Sees half of each batch twice, and has losses of what the two subsets give.

    nnU-Net's loss is of all patches; a hinge costs where more modalities do worse than fewer, and a consistency lets
    the smaller subset learn from the larger.

    Attributes:
        hinge_weight: Of the hinge.
        consistency_weight: Of the consistency.
    """

    hinge_weight: ClassVar[float] = 0.1
    consistency_weight: ClassVar[float] = 0.5

    @property
    def in_one_pass(self) -> bool:
        """Always, because the pairs are compared."""
        return True

    def training_loss(self, outputs: Any, step: Step) -> Tensor:  # noqa: ANN401 - logits, or several under deep supervision
        """Add to nnU-Net's loss what the pairs say."""
        loss = super().training_loss(outputs, step)
        if self.current_epoch < self.n_complete_epochs:
            return loss
        n = max(1, len(step.available) // 3)
        more = step.available[:n].sum(1) > step.available[-n:].sum(1)
        # first of all the larger ones: a Dice over the batch gathers what all processes ask for at the same time
        larger, smaller = _of_pairs(outputs, more), _of_pairs(outputs, ~more)
        hinge = ranking_hinge(*(self._losses(of_pairs, step.target, n) for of_pairs in (larger, smaller)))
        logits = [of_pairs[0] if isinstance(of_pairs, list) else of_pairs for of_pairs in (larger, smaller)]
        consistency = one_way_consistency(*logits, regions=self.label_manager.has_regions)
        return loss + self.hinge_weight * hinge + self.consistency_weight * consistency

    def _losses(self, outputs: Any, target: Any, n: int) -> Tensor:  # noqa: ANN401
        """Return nnU-Net's loss of each of the first n patches, ``(n,)``."""

        def one(maps: Any, i: int) -> Any:  # noqa: ANN401
            return [x[i, None] for x in maps] if isinstance(maps, list | tuple) else maps[i, None]

        return torch.stack([self.loss(one(outputs, i), one(target, i)) for i in range(n)])


def _of_pairs(outputs: Any, in_first: Tensor) -> Any:  # noqa: ANN401
    """Return of each pair of patches the outputs of the first one, or of its repetition at the end of the batch.

    Args:
        outputs: Logits ``(B, C, *spatial)``, or several under deep supervision.
        in_first: Whether the first one is wanted, bool ``(n,)``.
    """
    if isinstance(outputs, list | tuple):
        return [_of_pairs(level, in_first) for level in outputs]
    flags = in_first[(...,) + (None,) * (outputs.ndim - 1)]
    return torch.where(flags, outputs[: len(in_first)], outputs[-len(in_first) :])


class nnUNetTrainerModalityDropoutImputedNested(NestedTrainer, nnUNetTrainerModalityDropoutImputed):
    """The trainer of a U-Net behind a guess, which sees half of each batch with two nested subsets."""
