"""A loss for cases that do not have a region, in which neither of nnU-Net's losses says much of what is found of it."""

from torch import Tensor

from nnunetv2_d2net.method.losses.precision import in_float32


@in_float32
def false_volume_loss(logits: Tensor, region: Tensor, scale: float, weights: Tensor) -> Tensor:
    r"""Penalize the volume that is found of a region where the case has nothing of it.

    .. math:: \frac{1}{B} \sum_{b:\, y_b = 0} w_b \log\left(1 + \frac{1}{s} \sum_x \sigma(l_{b,x})\right)

    Soft Dice is 0 there, whatever is found, so it has no gradient; and cross-entropy is a mean over all voxels, so a
    few milliliters hardly count. The logarithm lets the last milliliters count most, and a large finding not drown the
    other losses. Our own; neither nnU-Net nor the paper has it.

    Args:
        logits: Of one region, ``(B, *spatial)``.
        region: Where it is, 0 or 1, ``(B, *spatial)``.
        scale: Voxels up to which the loss grows in proportion.
        weights: Of the cases, ``(B,)``.

    Returns:
        Scalar, at least 0; 0 if each case has the region.
    """
    found = logits.sigmoid().flatten(1).sum(1)
    absent = region.flatten(1).amax(1) <= 0
    return (weights * absent * (found / scale).log1p()).mean()
