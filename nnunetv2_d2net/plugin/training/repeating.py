"""A trainer that sees half of each batch a second time, with other subsets of its modalities."""

import torch

from nnunetv2_d2net.method.modalities import draw_nested
from nnunetv2_d2net.plugin.training.conditioned import nnUNetTrainerModalityDropoutConditioned
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer, Step


class RepeatingTrainer(ModalityDroppingTrainer):
    """Sees the first half of each batch again, with subsets that hold the first ones or are part of them.

    Repeated augmentation (Hoffer et al., CVPR 2020), whose augmentation is modality dropout. A step takes half as long
    again, with batches of one twice. For networks that return logits, or several under deep supervision.
    """

    @property
    def in_one_pass(self) -> bool:
        """Whether all patches go through the network at once.

        They take half as much memory again, which a GPU lacks, but a CPU's convolutions of batches of one are slow.
        """
        return self.device.type == "cpu"

    def training_passes(self, batch: dict) -> list[Step]:
        """Draw what the batch shows, and what its first half shows then."""
        if self.current_epoch < self.n_complete_epochs:
            return super().training_passes(batch)
        present = self.present_modalities(batch)
        available = self.draw(present)
        n = max(1, len(present) // 2)
        other = draw_nested(available[:n], present[:n], self.subset_generator, self.subset_weights)
        step = self.step_on(batch, present, available)
        again = step._replace(
            images=step.images[:n],
            target=[level[:n] for level in step.target] if isinstance(step.target, list) else step.target[:n],
            present=step.present[:n],
            available=other.to(self.device, non_blocking=True),
        )
        return [_joined(step, again)] if self.in_one_pass else [step, again]


def _joined(*steps: Step) -> Step:
    images, targets, present, available, air = zip(*steps, strict=True)
    levels = [torch.cat(level) for level in zip(*targets, strict=True)] if isinstance(targets[0], list) else None
    return Step(torch.cat(images), levels or torch.cat(targets), torch.cat(present), torch.cat(available), any(air))


class nnUNetTrainerModalityDropoutConditionedRepeated(RepeatingTrainer, nnUNetTrainerModalityDropoutConditioned):
    """The trainer of a U-Net with a normalization of its own for each subset, which sees half of each batch twice."""
