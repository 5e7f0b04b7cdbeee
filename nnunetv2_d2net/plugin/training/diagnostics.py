"""Do the modules matter? A part of the network that changes nothing must be seen to change nothing."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_d2net.method.modalities import zero_missing
from nnunetv2_d2net.method.network.d2net import Content, D2Net
from nnunetv2_d2net.method.network.md_stage import informative_slices


def gradient_shares(weighted_terms: Mapping[str, Tensor], encoder: nn.Module, scale: float = 1.0) -> dict[str, float]:
    """Measure each loss term's share of the gradient on the tumor encoder E_T.

    Args:
        weighted_terms: Loss terms times their weights, scalars of one graph.
        encoder: E_T.
        scale: Factor that keeps half-precision gradients from vanishing; the shares do not depend on it.

    Returns:
        For each term the norm of its gradient over the sum of all norms; NaN where nothing has a finite gradient.
    """
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    norms = {}
    for name, term in weighted_terms.items():
        learns = term.requires_grad  # not the frequency loss of the images themselves, for instance
        gradients = (
            torch.autograd.grad(term * scale, parameters, retain_graph=True, allow_unused=True) if learns else ()
        )
        squares = [g.float().square().sum() for g in gradients if g is not None]
        norms[name] = math.sqrt(sum(map(float, squares)))
    total = sum(norms.values())
    return {name: norm / total if 0 < total < math.inf else math.nan for name, norm in norms.items()}


@torch.no_grad()
def logit_changes(network: D2Net, images: Tensor, available: Tensor) -> dict[str, float]:
    """Measure how much the student's logits depend on the bottleneck and on the codes.

    Args:
        network: In evaluation mode.
        images: ``(B, M, *spatial)``.
        available: Bool ``(B, M)``.

    Returns:
        Relative change (Euclidean norm of the difference over norm of the logits) with what the student decodes from
        the bottleneck set to zero, with the tumor-specific codes of another case of the batch (NaN for a batch of one),
        and, where the bottleneck has a gate, with the tumor feature z alone.
    """
    content = network.encode(zero_missing(images, available), available)
    logits = _logits(network, content)
    zeroed = _logits(network, content, keep=0.0)
    changes = {"bottleneck_zeroed": _relative(zeroed, logits), "codes_swapped": math.nan}
    if len(images) > 1:
        swapped = content._replace(tumor_codes=content.tumor_codes.roll(1, 0))
        changes["codes_swapped"] = _relative(_logits(network, swapped), logits)
    if network.bottleneck_gate is not None:
        logits_of_z = network.decode(content, content.skips[-1])
        changes["gate_shut"] = _relative(logits_of_z if isinstance(logits_of_z, Tensor) else logits_of_z[0], logits)
    return changes


@torch.no_grad()
def code_variances(network: D2Net, images: Tensor, available: Tensor) -> dict[str, float]:
    """Measure whether the modality codes say anything: their directions within and between modalities.

    Args:
        network: In evaluation mode.
        images: ``(B, M, *spatial)``.
        available: Bool ``(B, M)``, at least one.

    Returns:
        Variance of the unit codes around their modality's mean, and of these means around the mean of all, both summed
        over the code; 0 and 0 for a code that is always the same, 0 and more for one constant per modality.
    """
    images = zero_missing(images, available)
    codes = F.normalize(network.modality_encoder(images).float(), dim=-1)
    valid = informative_slices(images, available)
    by_modality = [codes[:, m][valid[:, m]] for m in range(network.n_modalities) if valid[:, m].any()]
    if not by_modality:
        return {"within_modality": math.nan, "between_modalities": math.nan}
    within = [float(of_one.var(0, unbiased=False).sum()) for of_one in by_modality]
    between = torch.stack([of_one.mean(0) for of_one in by_modality]).var(0, unbiased=False).sum()
    return {"within_modality": sum(within) / len(within), "between_modalities": float(between)}


def _logits(network: D2Net, content: Content, keep: float = 1.0) -> Tensor:
    tumor_features = network.content_reconstruction(content.skips[-1], content.tumor_codes)
    logits = network.decode(content, network.holistic_features(content, tumor_features) * keep)
    return logits if isinstance(logits, Tensor) else logits[0]


def _relative(changed: Tensor, reference: Tensor) -> float:
    return float((changed - reference).float().norm() / reference.float().norm().clamp_min(1e-12))
