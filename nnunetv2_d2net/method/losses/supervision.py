"""Losses that compare a prediction with the truth, or the two final predictions with each other.

Paper: Yang et al., D2-Net, IEEE TMI 41(10), 2022, doi:10.1109/TMI.2022.3175478, Eq. (6), (7) and (10).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_d2net.method.losses.pooling import any_pool, average_pool
from nnunetv2_d2net.method.losses.precision import in_float32


class Target(NamedTuple):
    """The truth at one resolution.

    Attributes:
        masks: One mask per target, float in [0, 1], ``(B, C, *spatial)``.
        ignore: Voxels without truth, bool ``(B, 1, *spatial)``, or None if the data set has no ignore label.
    """

    masks: Tensor
    ignore: Tensor | None


def split_targets(
    target: Tensor | Sequence[Tensor], n_targets: int, *, regions: bool, ignore_label: int | None
) -> list[Target]:
    """Turn nnU-Net's target into masks and ignored voxels, one entry per resolution.

    Args:
        target: With deep supervision a list that starts at full resolution, otherwise one tensor. Labels are
            ``(B, 1, *spatial)`` of any dtype; regions are ``(B, C, *spatial)``, bool or 0 / 1, followed by one channel
            of ignored voxels if the data set has an ignore label.
        n_targets: C, the number of segmentation heads; with labels this includes the background.
        regions: Whether the targets are regions.
        ignore_label: The data set's ignore label or None; with regions only whether there is one matters.

    Returns:
        One entry per tensor in the target.
    """
    levels = [target] if isinstance(target, Tensor) else target
    return [_split_target(level, n_targets, regions=regions, ignore_label=ignore_label) for level in levels]


def _split_target(target: Tensor, n_targets: int, *, regions: bool, ignore_label: int | None) -> Target:
    if regions:
        return Target(target[:, :n_targets].float(), None if ignore_label is None else target[:, n_targets:].bool())
    labels = torch.arange(n_targets, device=target.device).view(-1, *(1,) * (target.ndim - 2))
    return Target((target == labels).float(), None if ignore_label is None else target == ignore_label)


def pool_target(target: Target, size: Sequence[int]) -> Target:
    """Bring the truth to a coarser grid: masks become fractions, a cell with any ignored voxel is ignored."""
    return Target(average_pool(target.masks, size), None if target.ignore is None else any_pool(target.ignore, size))


@in_float32
def reconstruction_loss(reconstructions: Tensor, images: Tensor, present: Tensor) -> Tensor:
    """Mean squared error between the reconstructions and the images, before any was dropped, that really exist.

    Paper: text above Eq. (6). Deviates: the images are average-pooled to the reconstructions' size; a modality that the
    case does not have is left out, one that was only dropped in this step is not.

    Args:
        reconstructions: ``(B, M, *size)``, at or below full resolution.
        images: Normalized images before dropping (z-score), ``(B, M, *spatial)``.
        present: Which modalities each case really has, bool ``(B, M)``.

    Returns:
        Scalar, in squared units of the images; 0 if there is no image.
    """
    absent = ~present[(...,) + (None,) * (images.ndim - 2)]
    truth = average_pool(images.masked_fill(absent, 0), reconstructions.shape[2:])
    errors = (reconstructions - truth).square().masked_fill(absent, 0)
    return errors.flatten(2).mean(2).sum() / present.sum().clamp_min(1)


@in_float32
def auxiliary_loss(teacher_logits: list[Tensor], targets: list[Target], level_weights: Sequence[float]) -> Tensor:
    r"""Binary cross-entropy of the teacher against every target's mask, at every supervised level.

    .. math:: -\sum_{c} \left[y_c \log p_c^T + (1 - y_c) \log(1 - p_c^T)\right]

    Paper: Eq. (7), which is printed without its minus sign. Deviates: mean over voxels and targets instead of a sum;
    ignored voxels are left out; weighted sum over the levels, as nnU-Net's deep supervision.

    Args:
        teacher_logits: From the finest level down, each ``(B, C, *spatial)``; at least as many as targets.
        targets: The supervised levels' truth, of the same sizes.
        level_weights: One weight per supervised level.

    Returns:
        Scalar, at least 0; 0 if every voxel is ignored.
    """
    levels = zip(teacher_logits[: len(targets)], targets, level_weights, strict=True)
    return torch.stack([weight * _cross_entropy(logits, target) for logits, target, weight in levels]).sum()


def _cross_entropy(logits: Tensor, target: Target) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(logits, target.masks.to(logits.dtype), reduction="none")
    return _valid_mean(losses, target.ignore)


@in_float32
def consistency_loss(
    teacher_logits: Tensor, student_logits: Tensor, *, regions: bool, ignore: Tensor | None = None
) -> Tensor:
    """Mean squared difference between the probabilities of the two final predictions.

    Paper: text below Eq. (10). Deviates: mean instead of the norm; ignored voxels are left out; the student's
    probabilities are average-pooled to the teacher's finest level.

    Args:
        teacher_logits: One binary map per target, ``(B, C, *coarse)``; a sigmoid each.
        student_logits: ``(B, C, *spatial)``; softmax over C, or a sigmoid each if the targets are regions.
        regions: Whether the targets are regions.
        ignore: Voxels without truth, bool ``(B, 1, *spatial)``, or None; a coarse voxel that holds any is left out.

    Returns:
        Scalar, in [0, 1]; 0 if every voxel is ignored.
    """
    student = student_logits.sigmoid() if regions else student_logits.softmax(1)
    size = teacher_logits.shape[2:]
    ignore = None if ignore is None else any_pool(ignore, size)
    return _valid_mean((teacher_logits.sigmoid() - average_pool(student, size)).square(), ignore)


def _valid_mean(losses: Tensor, ignore: Tensor | None) -> Tensor:
    if ignore is None:
        return losses.mean()
    count = (~ignore).sum() * losses.shape[1]
    return losses.masked_fill(ignore, 0).sum() / count.clamp_min(1)
