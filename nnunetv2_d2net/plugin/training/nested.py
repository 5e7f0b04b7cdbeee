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
        first, second = (
            torch.stack([self._loss_of_one(outputs, step, i) for i in r]) for r in (range(n), range(-n, 0))
        )
        logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
        flag = more[(...,) + (None,) * (logits.ndim - 1)]
        larger, smaller = torch.where(flag, logits[:n], logits[-n:]), torch.where(flag, logits[-n:], logits[:n])
        consistency = one_way_consistency(larger, smaller, regions=self.label_manager.has_regions)
        hinge = ranking_hinge(torch.where(more, first, second), torch.where(more, second, first))
        return loss + self.hinge_weight * hinge + self.consistency_weight * consistency

    def _loss_of_one(self, outputs: Any, step: Step, i: int) -> Tensor:  # noqa: ANN401
        def one(maps: Any) -> Any:  # noqa: ANN401
            return [x[i, None] for x in maps] if isinstance(maps, list | tuple) else maps[i, None]

        return self.loss(one(outputs), one(step.target))


class nnUNetTrainerModalityDropoutImputedNested(NestedTrainer, nnUNetTrainerModalityDropoutImputed):
    """The trainer of a U-Net behind a guess, which sees half of each batch with two nested subsets."""
