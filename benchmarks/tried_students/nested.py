"""The default companion, whose student sees one patch of each batch twice, with two nested subsets.

For the variable ``nnUNet_extTrainer``; trained with ``d2net train --start_from nnUNetTrainer_20epochs``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.dropping import Step
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed

HINGE, CONSISTENCY = 0.1, 0.5
"""Weights: of a loss that is higher with more modalities than with fewer, and of what the fewer learn from the more."""


class nnUNetTrainerNestedCompanion_20epochs(CompanionTrainer, nnUNetTrainerModalityDropoutImputed):
    """Each step takes half as many patches again, in which the first ones come back with more modalities, or fewer.

    The hinge is after the ranking loss of SimMLM, the one-way consistency is the divergence of what regions' logits say
    with fewer modalities from what they say with more, which gets no gradient.
    """

    n_epochs = 20

    def step_on(self, batch: dict, present: Tensor, available: Tensor) -> Step:
        """Append the first half of the patches with other subsets, so that each pair is nested."""
        step = super().step_on(batch, present, available)
        if not (self.network.training and torch.is_grad_enabled()):
            return step
        n = max(1, len(available) // 2)
        other = torch.stack([self._nested(of, has) for of, has in zip(available[:n], present[:n], strict=True)])
        targets = step.target if isinstance(step.target, list) else [step.target]
        targets = [torch.cat([target, target[:n]]) for target in targets]
        return Step(
            torch.cat([step.images, step.images[:n]]),
            targets if isinstance(step.target, list) else targets[0],
            torch.cat([step.present, step.present[:n]]),
            torch.cat([step.available, other.to(self.device)]),
        )

    def _nested(self, available: Tensor, present: Tensor) -> Tensor:
        """Draw a subset that holds another one, or is part of it if that is complete; bool ``(M,)`` on the CPU."""
        complete = torch.equal(available, present)
        of = available if complete else present & ~available
        drawn = of & self._coins(len(of))
        while not drawn.any() or (complete and torch.equal(drawn, available) and available.sum() > 1):
            drawn = of & self._coins(len(of))
        return drawn if complete else available | drawn

    def _coins(self, n: int) -> Tensor:
        return torch.rand(n, generator=self.subset_generator) < 0.5

    def loss_of(self, outputs: Any, step: Step) -> Tensor:  # noqa: ANN401 - logits, or several under deep supervision
        """Add to the mean loss of all patches what the pairs say."""
        if not self.network.training:
            return super().loss_of(outputs, step)
        size = len(step.available)
        n = max(1, size // 3)
        losses = torch.stack([self._loss_of_one(outputs, step, i) for i in range(size)])
        more = step.available[:n].sum(1) > step.available[-n:].sum(1)
        larger, smaller = torch.where(more, losses[:n], losses[-n:]), torch.where(more, losses[-n:], losses[:n])
        finest = outputs[0] if isinstance(outputs, list | tuple) else outputs
        flag = more[(...,) + (None,) * (finest.ndim - 1)]
        teaching, taught = torch.where(flag, finest[:n], finest[-n:]), torch.where(flag, finest[-n:], finest[:n])
        soft = teaching.detach().sigmoid()
        divergence = F.binary_cross_entropy_with_logits(taught, soft) - F.binary_cross_entropy(soft, soft)
        return losses.mean() + HINGE * (larger - smaller).relu().mean() + CONSISTENCY * divergence

    def _loss_of_one(self, outputs: Any, step: Step, i: int) -> Tensor:  # noqa: ANN401
        def one(maps: Any) -> Any:  # noqa: ANN401
            return [x[i : i + 1] for x in maps] if isinstance(maps, list | tuple) else maps[i : i + 1]

        return self.loss(one(outputs), one(step.target))
