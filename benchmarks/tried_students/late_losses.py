"""D2-Net as the student of a companion, by AdamW, whose contrastive and reconstruction losses set in late.

For the variable ``nnUNet_extTrainer``; trained with ``d2net train --start_from nnUNetTrainer_20epochs``.
"""

from typing import Any

from nnunetv2_d2net.plugin.training.variants import find_trainer

BASE: Any = find_trainer("D2NetTrainerAdamWCompanion_20epochs")


class D2NetTrainerAdamWLateCompanion_20epochs(BASE):
    """They set in after half of the training."""

    def current_weights(self) -> dict[str, float]:
        """Return the weight of each term, 0 for the late ones in the first half."""
        late = () if self.current_epoch >= self.num_epochs // 2 else ("sc", "fc", "rec")
        return {term: 0.0 if term in late else weight for term, weight in super().current_weights().items()}
