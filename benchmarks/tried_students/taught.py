"""The default companion, whose student is also taught the features of the frozen stock network, as ADT-KD does it.

For the variable ``nnUNet_extTrainer``; trained with ``d2net train --start_from nnUNetTrainer_20epochs``.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from nnunetv2_d2net.method.losses.adt_kd import adt_kd_losses
from nnunetv2_d2net.method.modalities import zero_missing
from nnunetv2_d2net.method.network.companion import STOCK, STUDENT
from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.dropping import Step
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed

FEATURE_WEIGHT = 0.2


class nnUNetTrainerTaughtCompanion_20epochs(CompanionTrainer, nnUNetTrainerModalityDropoutImputed):
    """The stock network sees all that a case has; each level of the student's decoder learns from its own there."""

    n_epochs = 20

    def initialize(self) -> None:
        """Initialize as the default does, and keep what the stages of both decoders return."""
        super().initialize()
        self.kept: dict[str, list[Tensor]] = {STUDENT: [], STOCK: []}
        for name, kept in self.kept.items():
            for stage in self._decoder(name).stages:
                stage.register_forward_hook(lambda _module, _inputs, output, kept=kept: self._keep(output, kept))

    def _keep(self, features: Tensor, kept: list[Tensor]) -> None:
        if self.network.training:  # prediction would keep those of every tile
            kept.append(features)

    def _decoder(self, name: str) -> Any:  # noqa: ANN401 - nnU-Net's
        return cast(Any, getattr(self.companion, name)).decoder

    def network_outputs(self, step: Step) -> Any:  # noqa: ANN401 - logits, or several under deep supervision
        """Run the student, and in training the stock network, too."""
        for kept in self.kept.values():
            kept.clear()
        outputs = super().network_outputs(step)
        if self.network.training:
            with torch.no_grad():
                cast(nn.Module, self.companion.stock)(zero_missing(step.images, step.present))
        return outputs

    def loss_of(self, outputs: Any, step: Step) -> Tensor:  # noqa: ANN401
        """Add the mean over the levels of what ADT-KD says of their features."""
        loss = super().loss_of(outputs, step)
        if not self.network.training:
            return loss
        heads = self._decoder(STUDENT).seg_layers
        levels = list(zip(self.kept[STUDENT], self.kept[STOCK], strict=True))
        for i, (student, stock) in enumerate(levels):
            logits = [heads[i](student).detach()]
            of_features, _ = adt_kd_losses(logits, logits, [student], [stock.detach()], regions=True)
            loss = loss + FEATURE_WEIGHT / len(levels) * of_features
        return loss
