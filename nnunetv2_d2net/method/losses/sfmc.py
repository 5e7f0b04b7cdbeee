"""Spatial-frequency modality contrast (SFMC): codes of one modality agree, codes of different modalities do not.

Paper: Yang et al., D2-Net, IEEE TMI 41(10), 2022, doi:10.1109/TMI.2022.3175478, Eq. (1)-(5).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_d2net.method.losses.precision import in_float32

Sampling = Literal["paper", "all_pairs"]

POSITIVE_DISTANCE = 0.375  # 48 of the paper's 128 slices
NEGATIVE_RADIUS = 8  # slices on each side
SQUARED_NORM_FLOOR = 1e-4  # bounds the cosine's gradient at a zero code by 100 / temperature


@in_float32
def spatial_contrastive_loss(
    codes: Tensor,
    valid: Tensor,
    *,
    temperature: float = 0.07,
    sampling: Sampling = "paper",
    n_positives: int = 1,
    negative_radius: int = NEGATIVE_RADIUS,
) -> Tensor:
    r"""Pull a modality's codes together across slices, push the other modalities' codes away.

    .. math::
        \mathcal{L}_{sc}^{i,u,v} = -\log
        \frac{h(c_{i,u}, c_{i,v})}{h(c_{i,u}, c_{i,v}) + \sum_{n} h(c_{i,u}, n)},
        \quad h(p, q) = e^{\cos(p, q) / \tau}

    Paper: Eq. (1), averaged as in Eq. (5). With ``all_pairs`` every other slice of the modality is a positive and the
    negatives n are the other modalities' codes of the anchor's own slice, as the equations say. With ``paper`` the
    sampling is the one that the text beside Table III describes: one positive at distance ``round(0.375 G)`` (the later
    slice; the earlier one where the later is outside the patch or invalid), and as negatives the other modalities'
    codes of the ``r = min(8, (G - 1) // 2)`` slices on both sides (at least 1), without the own slice. Near the border
    the window slides inward, so that it holds ``min(2 r, G - 1)`` slices everywhere. Table III varies both: more
    positives lie at the distances next to that one, more negatives within a larger radius than 8. With one slice (2D)
    positives are the batch's other cases, negatives the same case's other modalities, in either sampling.

    Deviates: the mean is over valid pairs; Eq. (5) divides by M G^2, its empty pairs u = v included. Norms below 0.01
    count as 0.01 in the cosine.

    Args:
        codes: Modality-specific codes, ``(B, M, G, N)``: case, modality, slice, code.
        valid: Bool ``(B, M, G)``: the modality is available and the slice not constant. Other codes take no part.
        temperature: tau > 0, dimensionless; the paper prints no value.
        sampling: Which pairs and negatives, ``"paper"`` or ``"all_pairs"``.
        n_positives: Of an anchor, in the sampling ``"paper"``; fewer where there are fewer slices.
        negative_radius: Slices on each side that give negatives, in the sampling ``"paper"``.

    Returns:
        Scalar; 0 if there is no pair whose anchor has a negative (for instance one modality left).

    Raises:
        ValueError: If the sampling has another name.

    Example:
        >>> codes = torch.ones(1, 4, 2, 8)  # all codes equal: log M
        >>> spatial_contrastive_loss(codes, torch.ones(1, 4, 2, dtype=torch.bool), sampling="all_pairs")
        tensor(1.3863)
    """
    if sampling not in ("paper", "all_pairs"):
        raise ValueError(f"sampling is {sampling!r}: use 'paper' or 'all_pairs'")
    as_paper = sampling == "paper" and codes.shape[2] > 1
    if codes.shape[2] == 1:
        codes, valid = codes.transpose(0, 2), valid.transpose(0, 2)
    directions = _directions(codes.masked_fill(~valid[..., None], 0))
    negative, has_negative = _log_sum_negatives(
        directions, valid, temperature, negative_radius if as_paper else 0
    )  # (B, M, G)
    positive = torch.einsum("bmgn,bmhn->bmgh", directions, directions) / temperature  # (B, M, G, G)
    pair = _positive_pairs(valid, n_positives if as_paper else None) & has_negative[..., None]
    losses = F.softplus(negative[..., None] - positive).masked_fill(~pair, 0)
    return losses.sum() / pair.sum().clamp_min(1)


@in_float32
def frequency_contrastive_loss(  # noqa: PLR0913
    codes: Tensor,
    valid: Tensor,
    *,
    temperature: float = 0.07,
    sampling: Sampling = "paper",
    n_positives: int = 1,
    negative_radius: int = NEGATIVE_RADIUS,
    drop_dc: bool = False,
) -> Tensor:
    """Contrast amplitude spectra as :func:`spatial_contrastive_loss` contrasts the codes.

    Paper: Eq. (4), averaged as in Eq. (5); same sampling and deviations as the spatial loss. Table VIII contrasts the
    images or feature maps instead of the codes: then the transform is that of a slice's two axes.

    Args:
        codes: Modality-specific codes, ``(B, M, G, N)``, or maps of every slice, ``(B, M, G, K, H, W)``.
        valid: Bool ``(B, M, G)``: the modality is available and the slice not constant.
        temperature: tau > 0, dimensionless.
        sampling: Which pairs and negatives, ``"paper"`` or ``"all_pairs"``.
        n_positives: As in the spatial loss.
        negative_radius: As in the spatial loss.
        drop_dc: Leave out the amplitude of frequency 0, which otherwise dominates the cosine.

    Returns:
        Scalar; 0 if there is no pair whose anchor has a negative.
    """
    codes = codes.masked_fill(~valid[(...,) + (None,) * (codes.ndim - valid.ndim)], 0)
    is_map = codes.ndim == valid.ndim + 3  # K, H, W in the place of N
    spectrum = map_spectrum(codes, drop_dc=drop_dc) if is_map else amplitude_spectrum(codes, drop_dc=drop_dc)
    return spatial_contrastive_loss(
        spectrum,
        valid,
        temperature=temperature,
        sampling=sampling,
        n_positives=n_positives,
        negative_radius=negative_radius,
    )


@in_float32
def amplitude_spectrum(codes: Tensor, *, drop_dc: bool = False) -> Tensor:
    """Return the amplitude of the full discrete Fourier transform along the code axis; its gradient at 0 is 0.

    Paper: Eq. (2) and (3).

    Args:
        codes: ``(..., N)``.
        drop_dc: Leave out frequency 0.

    Returns:
        ``(..., N)``, or ``(..., N - 1)`` without frequency 0.
    """
    amplitudes = torch.fft.fft(codes, dim=-1).abs()
    return amplitudes[..., 1:] if drop_dc else amplitudes


@in_float32
def map_spectrum(maps: Tensor, *, drop_dc: bool) -> Tensor:
    """Return the amplitudes of the discrete Fourier transform of every slice, all channels in one row.

    Paper: Eq. (2) and (3), of images or feature maps as in Table VIII, which does not say along which axes: here along
    both axes of the slice.

    Args:
        maps: ``(..., K, H, W)``.
        drop_dc: Leave out frequency 0 of every channel.

    Returns:
        ``(..., K H W)``, or ``(..., K (H W - 1))`` without frequency 0.
    """
    amplitudes = torch.fft.fft2(maps).abs().flatten(-2)
    return (amplitudes[..., 1:] if drop_dc else amplitudes).flatten(-2)


def _directions(codes: Tensor) -> Tensor:
    return codes * codes.square().sum(-1, keepdim=True).clamp_min(SQUARED_NORM_FLOOR).rsqrt()


def _log_sum_negatives(directions: Tensor, valid: Tensor, temperature: float, radius: int) -> tuple[Tensor, Tensor]:
    """Log of the sum of h over each anchor's negatives, ``(B, M, G)``, and whether it has any."""
    n_modalities, n_slices = valid.shape[1:]
    slices = torch.arange(n_slices, device=valid.device)[:, None]  # (G, W): without a radius the own slice
    if radius:
        slices = _window(n_slices, radius, valid.device)
    similarity = torch.einsum("bmgn,bkgwn->bmgkw", directions, directions[:, :, slices]) / temperature
    other = ~torch.eye(n_modalities, dtype=torch.bool, device=valid.device)[:, None, :, None]  # (M, 1, M, 1)
    is_negative = other & valid[:, :, slices].transpose(1, 2)[:, None]  # (B, M, G, M, W)
    similarity = similarity.masked_fill(~is_negative, torch.finfo(similarity.dtype).min)
    return similarity.logsumexp((-2, -1)), is_negative.any(-1).any(-1)


def _window(n_slices: int, radius: int, device: torch.device) -> Tensor:
    """Neighbors of every slice without itself, ``(G, W)``; the window slides inward at the border."""
    radius = max(1, min(radius, (n_slices - 1) // 2))
    width = min(2 * radius + 1, n_slices)
    own = torch.arange(n_slices, device=device)
    start = (own - radius).clamp(0, n_slices - width)
    neighbors = start[:, None] + torch.arange(width - 1, device=device)
    return neighbors + (neighbors >= own[:, None])


def _positive_pairs(valid: Tensor, n_positives: int | None) -> Tensor:
    """Which slice v is a positive of the anchor slice u, ``(B, M, G, G)``; None for all other slices."""
    n_slices = valid.shape[2]
    own = torch.arange(n_slices, device=valid.device)
    step = own[None] - own[:, None]  # v - u
    both_valid = valid[..., :, None] & valid[..., None, :]
    if n_positives is None:
        return both_valid & (step != 0)
    pairs = torch.zeros_like(both_valid)
    center = round(POSITIVE_DISTANCE * n_slices)
    for distance in sorted(range(1, n_slices), key=lambda length: abs(length - center))[:n_positives]:
        later = both_valid & (step == distance)
        pairs |= later | (both_valid & (step == -distance) & ~later.any(-1, keepdim=True))
    return pairs
