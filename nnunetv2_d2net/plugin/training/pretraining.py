"""The trainer of ``d2net pretrain``: from simulated patients to weights that are to segment real ones."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_d2net.method.losses.absence import false_volume_loss
from nnunetv2_d2net.plugin.training.demo import WatchedTrainer
from nnunetv2_d2net.plugin.training.dropping import Step, nnUNetTrainerModalityDropoutModulated
from nnunetv2_d2net.plugin.training.seeds import N_SEEDS

Range = tuple[float, float]

LEVELS: Mapping[str, Sequence[Range]] = {
    "edema": ((-0.3, 0.5), (-0.8, 0.1), (-1.0, 0.0), (-0.2, 0.7)),
    "necrotic or not enhancing": ((-1.5, 1.8), (-0.8, 0.2), (-1.2, 0.2), (-0.3, 1.5)),
    "enhancing": ((0.0, 2.0), (-0.6, 0.3), (-0.6, 1.0), (0.0, 1.8)),
}
"""By how much a lesion's level is shifted in FLAIR, T1, T1ce and T2, in standard deviations over the brain."""

TEXTURE = 0.35
"""Spread of the smooth texture that a shift is multiplied with, around 1."""
_TEXTURE_VOXELS = 6

FALSE_VOLUME_SCALE = 10_000
"""Cubic millimeters of tumor, found in a head without one, up to which its loss grows in proportion."""


class nnUNetTrainerModalityDropoutPretraining(WatchedTrainer, nnUNetTrainerModalityDropoutModulated):
    """Modality dropout on simulated patients whose lesions are given other levels at every step.

    What a simulation gets wrong first is how bright a lesion is. A network that sees each at random levels has to find
    it by what does not depend on them. And it learns that there may be no tumor, which nnU-Net's losses hardly teach.

    Attributes:
        p_levels: Probability that a patch's lesions are shifted.
        false_volume_weight: Of the loss for what is found in a head without a tumor, of which all modalities are seen.
    """

    p_complete: ClassVar[float] = 0.25
    n_epochs: ClassVar[int | None] = 20
    n_iterations: ClassVar[int] = 250
    learning_rate: ClassVar[float] = 2e-3
    p_levels: ClassVar[float] = 0.8
    false_volume_weight: ClassVar[float] = 0.1

    def on_train_start(self) -> None:
        """Start, in bfloat16 where this processor computes in it."""
        states = self.loaded_random_states or {}
        super().on_train_start()
        self.level_generator = torch.Generator()
        if "levels" in states:
            self.level_generator.set_state(states["levels"].cpu())
        else:
            self.level_generator.manual_seed(int(torch.randint(N_SEEDS, ())))
        if self.device.type == "cpu" and _has_bfloat16():
            self.autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16)

    def random_states(self) -> dict[str, Any]:
        """Return the states of all generators, that of the lesions' levels among them."""
        return {**super().random_states(), "levels": self.level_generator.get_state()}

    def step_on(self, batch: dict, present: Tensor, available: Tensor) -> Step:
        """Move a batch to the device, in training with its lesions at other levels."""
        step = super().step_on(batch, present, available)
        if not self.network.training:
            return step
        regions = step.target[0] if isinstance(step.target, list) else step.target
        return step._replace(images=shift_levels(step.images, regions, self.p_levels, self.level_generator))

    def loss_of(self, outputs: Any, step: Step) -> Tensor:  # noqa: ANN401 - logits, or several under deep supervision
        """Add to nnU-Net's loss that of any region found where none is; the less is seen, the milder it is."""
        logits = outputs[0] if self.enable_deep_supervision else outputs
        regions = step.target[0] if isinstance(step.target, list) else step.target
        scale = FALSE_VOLUME_SCALE / math.prod(self.configuration_manager.spacing)
        weights = self.false_volume_weight * step.available.float().mean(1)
        return super().loss_of(outputs, step) + false_volume_loss(logits.amax(1), regions.amax(1), scale, weights)


def shift_levels(images: Tensor, regions: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Shift the levels of each lesion region in each image, by an amount drawn anew for every case.

    The amount is multiplied with a smooth texture, and its border is as soft as a voxel.

    Args:
        images: FLAIR, T1, T1ce and T2, standardized, ``(B, 4, z, y, x)``.
        regions: Whole tumor, tumor core and enhancing tumor, ``(B, 3, z, y, x)``.
        p: Probability that a case's lesions are shifted.
        generator: Of random numbers, on the CPU.

    Returns:
        ``(B, 4, z, y, x)``.
    """
    n_cases, n_images = images.shape[:2]
    whole, core, enhancing = regions[:, :3].float().unbind(1)
    tissues = F.avg_pool3d(torch.stack([whole - core, core - enhancing, enhancing], 1), 3, 1, 1)
    ranges = torch.tensor([LEVELS[name] for name in LEVELS])  # (tissue, image, 2)
    amounts = ranges[..., 0] + torch.rand(n_cases, *ranges.shape[:2], generator=generator) * ranges.diff(dim=-1)[..., 0]
    amounts *= (torch.rand(n_cases, 1, 1, generator=generator) < p).float()
    coarse = [max(2, extent // _TEXTURE_VOXELS) for extent in images.shape[2:]]
    noise = torch.randn(n_cases, n_images, *coarse, generator=generator).to(images.device, non_blocking=True)
    texture = 1 + TEXTURE * F.interpolate(noise, images.shape[2:], mode="trilinear", align_corners=False)
    shifts = torch.einsum("btm,bt...->bm...", amounts.to(images.device, non_blocking=True), tissues)
    return images + texture * shifts


def _has_bfloat16() -> bool:
    """Tell whether this processor computes in bfloat16, which then takes little more than half the time."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
