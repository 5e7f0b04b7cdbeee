"""D2-Net as the student of a companion, trained as the default student is: by AdamW, each subset as often as any other.

For the variable ``nnUNet_extTrainer``; docs/results.md has the command.
"""

from nnunetv2_d2net.plugin.training.adamw import AdamWTrainer
from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer


class D2NetTrainerAdamWCompanion_20epochs(CompanionTrainer, AdamWTrainer, D2NetTrainer):  # pyright: ignore[reportIncompatibleVariableOverride]
    """D2-Net behind a gate that starts at zero, all its losses from the first step on."""

    p_complete = 0.0
    learning_rate = 1e-3
    n_epochs = 20
    network_options = D2NetTrainer.network_options._replace(
        gated_bottleneck=True, modulate_missing=True, modulate_encoder=False
    )


class D2NetTrainerAdamWLateCompanion_20epochs(D2NetTrainerAdamWCompanion_20epochs):
    """The same, whose contrastive and reconstruction losses set in after half of the training."""

    def current_weights(self) -> dict[str, float]:
        """Return the weight of each term, 0 for the late ones in the first half."""
        late = () if self.current_epoch >= self.num_epochs // 2 else ("sc", "fc", "rec")
        return {term: 0.0 if term in late else weight for term, weight in super().current_weights().items()}
