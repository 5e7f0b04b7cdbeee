"""Two nested subsets of one patch: more modalities should tell no less, and those who see fewer learn from it."""

import torch.nn.functional as F
from torch import Tensor

from nnunetv2_d2net.method.losses.precision import in_float32


@in_float32
def one_way_consistency(larger_logits: Tensor, smaller_logits: Tensor, *, regions: bool) -> Tensor:
    """Mean divergence of what is said with fewer modalities from what is said with more, which gets no gradient.

    Args:
        larger_logits: With more modalities, ``(N, C, *spatial)``.
        smaller_logits: With fewer, of the same shape.
        regions: Whether each of the C maps stands for itself; else they are classes, of which a voxel has one.

    Returns:
        Scalar, at least 0: Kullback-Leibler divergence, mean over voxels, and over regions.
    """
    larger = larger_logits.detach()
    if not regions:
        return (
            F.kl_div(smaller_logits.log_softmax(1), larger.log_softmax(1), reduction="none", log_target=True)
            .sum(1)
            .mean()
        )
    sides = [(F.logsigmoid(sign * larger), F.logsigmoid(sign * smaller_logits)) for sign in (1, -1)]
    return sum((said.exp() * (said - other) for said, other in sides), start=larger.new_zeros(())).mean()


def ranking_hinge(larger_losses: Tensor, smaller_losses: Tensor) -> Tensor:
    """Mean of by how much the loss with more modalities is above that with fewer.

    Source: the ranking loss of SimMLM, Li et al., arXiv 2507.19264, 2025.

    Args:
        larger_losses: With more modalities, ``(N,)``.
        smaller_losses: With fewer, ``(N,)``.

    Returns:
        Scalar, at least 0.
    """
    return (larger_losses - smaller_losses).relu().mean()
