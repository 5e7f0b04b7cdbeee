"""Affinity-guided dense tumor-region knowledge distillation (ADT-KD) between the student's and the teacher's levels.

Paper: Yang et al., D2-Net, IEEE TMI 41(10), 2022, doi:10.1109/TMI.2022.3175478, Eq. (8)-(9).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_d2net.method.losses.pooling import any_pool, average_pool
from nnunetv2_d2net.method.losses.precision import in_float32

Reduction = Literal["mean", "sum"]
Size = tuple[int, ...]


class Pairs(NamedTuple):
    """The pairs of one common size.

    Attributes:
        student: ``(pairs, B, K or C, *spatial)``.
        teacher: The same.
    """

    student: Tensor
    teacher: Tensor


@in_float32
def affinity(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Cosine over the channels at every voxel, averaged over the voxels, without gradient.

    .. math:: a = \mathrm{GAP}\left(\frac{F^S \cdot F^T}{\|F^S\|_2 \|F^T\|_2}\right)

    Paper: Eq. (8). Deviates: detached, because lowering the affinity would be a shortcut to a lower Eq. (9).

    Args:
        student: Features, ``(B, K, *spatial)``.
        teacher: Features of the same shape.

    Returns:
        ``(B,)``, in [-1, 1]; a voxel without features counts as 0.
    """
    student, teacher = student.detach(), teacher.detach()
    norms = torch.linalg.vector_norm(student, dim=1) * torch.linalg.vector_norm(teacher, dim=1)
    cosine = (student * teacher).sum(1) / norms.clamp_min(1e-12)
    return cosine.flatten(1).mean(1)


@in_float32
def adt_kd_losses(  # noqa: PLR0913
    student_logits: list[Tensor],
    teacher_logits: list[Tensor],
    student_features: list[Tensor],
    teacher_features: list[Tensor],
    *,
    regions: bool,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
) -> tuple[Tensor, Tensor]:
    r"""Distill every student level with every teacher level, at the feature and at the logit level.

    .. math:: \sum_{s,t} a_{s,t} \left(\|F_t^T - F_s^S\|_2 + \mathrm{KL}(p_t^T \| p_s^S)\right)

    Each pair is compared at the coarser of its two sizes, to which the finer map is average-pooled. Gradients flow to
    both decoders (mutual learning).

    Paper: Eq. (9). Deviates: the affinity is mapped to [0, 1] by (1 + a) / 2 and detached, left negative it would leave
    the sum unbounded below; features pass a parameter-free instance norm after pooling (affinity included), so that
    shrinking them gains nothing; mean squared error and a mean over voxels, so that no term depends on the resolution;
    mean over pairs unless ``reduction="sum"``.

    Args:
        student_logits: Logits of the N_s student levels, each ``(B, C, *spatial)`` as large as its features.
        teacher_logits: Logits of the N_t teacher levels, one map per target, each ``(B, C, *spatial)``.
        student_features: N_s maps, each ``(B, K, *spatial)``.
        teacher_features: N_t maps, each ``(B, K, *spatial)``.
        regions: Targets are overlapping regions (a Bernoulli each, divergences summed over C) instead of exclusive
            labels (softmax over C).
        ignore: Bool ``(B, 1, *spatial)`` at full resolution, or None; a coarse voxel that holds any ignored voxel is
            left out of the logit level.
        reduction: Over the N_s N_t pairs.

    Returns:
        The feature loss and the logit loss, two scalars, each the batch's mean.

    Raises:
        ValueError: If a bank has not as many logits as features, or the reduction has another name.
    """
    if (len(student_logits), len(teacher_logits)) != (len(student_features), len(teacher_features)):
        raise ValueError("every level of a feature bank needs its own logits: pass as many logits as features")
    pairs = _pairs(student_features, teacher_features, _instance_norm)
    weights = [_weights(pair) for pair in pairs]
    errors = [_squared_errors(pair) for pair in pairs]
    divergences = [
        _divergences(pair, regions=regions, ignore=ignore) for pair in _pairs(student_logits, teacher_logits)
    ]
    feature, logit = ([w * x for w, x in zip(weights, terms, strict=True)] for terms in (errors, divergences))
    return _reduce(feature, reduction), _reduce(logit, reduction)


def _pairs(
    student: list[Tensor], teacher: list[Tensor], transform: Callable[[Tensor], Tensor] = lambda maps: maps
) -> list[Pairs]:
    """All N_s N_t pairs, those of one common size stacked; every map is pooled and transformed once per size."""
    by_size: dict[Size, list[tuple[int, int]]] = {}
    for i, s in enumerate(student):
        for j, t in enumerate(teacher):
            by_size.setdefault(_common_size(s, t), []).append((i, j))
    stacked = []
    for size, indices in by_size.items():
        of_student, of_teacher = zip(*indices, strict=True)
        stacked.append(
            Pairs(_stack(student, of_student, size, transform), _stack(teacher, of_teacher, size, transform))
        )
    return stacked


def _stack(maps: list[Tensor], indices: tuple[int, ...], size: Size, transform: Callable[[Tensor], Tensor]) -> Tensor:
    resized = {i: transform(average_pool(maps[i], size)) for i in dict.fromkeys(indices)}
    return resized[indices[0]][None] if len(indices) == 1 else torch.stack([resized[i] for i in indices])


def _common_size(student: Tensor, teacher: Tensor) -> Size:
    return tuple(min(lengths) for lengths in zip(student.shape[2:], teacher.shape[2:], strict=True))


def _instance_norm(maps: Tensor) -> Tensor:
    """Zero mean and unit variance per case and channel; a constant map, or one of a single voxel, gives 0."""
    if maps[0, 0].numel() == 1:
        return maps - maps
    shift = maps.detach().mean(tuple(range(2, maps.ndim)), keepdim=True)
    return F.instance_norm(maps - shift)  # alone it leaves rounding errors of constant maps


def _weights(pairs: Pairs) -> Tensor:
    """Affinities mapped to [0, 1], ``(pairs, B)``."""
    student, teacher = pairs
    return (1 + affinity(student.flatten(0, 1), teacher.flatten(0, 1)).unflatten(0, student.shape[:2])) / 2


def _squared_errors(pairs: Pairs) -> Tensor:
    return (pairs.student - pairs.teacher).square().flatten(2).mean(2)  # (pairs, B)


def _divergences(pairs: Pairs, *, regions: bool, ignore: Tensor | None) -> Tensor:
    """KL(p^T || p^S) of every pair, mean over each case's valid voxels, ``(pairs, B)``; 0 for a case that has none."""
    divergence = (_bernoulli_divergence if regions else _softmax_divergence)(*pairs)
    if ignore is None:
        return divergence.flatten(2).mean(2)
    valid = ~any_pool(ignore, divergence.shape[2:])[:, 0]  # (B, *spatial)
    return divergence.masked_fill(~valid, 0).flatten(2).sum(2) / valid.flatten(1).sum(1).clamp_min(1)


def _softmax_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = student.log_softmax(2), teacher.log_softmax(2)
    return (teacher.exp() * (teacher - student)).sum(2)


def _bernoulli_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    # log p = x - softplus(x) and log (1 - p) = -softplus(x), both exact where p is 0 or 1 in floating point
    return (teacher.sigmoid() * (teacher - student) + F.softplus(student) - F.softplus(teacher)).sum(2)


def _reduce(losses: list[Tensor], reduction: Reduction) -> Tensor:
    """Mean over the cases; mean or sum over the pairs, a list of ``(pairs, B)`` -> scalar."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}: use 'mean' or 'sum'")
    per_pair = torch.cat(losses).mean(1)
    return per_pair.sum() if reduction == "sum" else per_pair.mean()
