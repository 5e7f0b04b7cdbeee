"""Which modalities a case has: subsets, drawing them, and zeroing what is missing.

``available`` is always a boolean tensor ``(B, M)``: case, modality, in the order of dataset.json's ``channel_names``.
"""

import numpy as np
import torch
from torch import Tensor


def modality_subsets(n_modalities: int) -> Tensor:
    """List every non-empty subset of the modalities, small subsets first, the complete one last.

    Args:
        n_modalities: How many modalities there are, at least 1.

    Returns:
        Bool ``(2^M - 1, M)``.

    Example:
        >>> modality_subsets(2).int().tolist()
        [[1, 0], [0, 1], [1, 1]]
    """
    codes = torch.arange(1, 2**n_modalities)
    subsets = (codes[:, None] >> torch.arange(n_modalities)) & 1
    return subsets[torch.argsort(subsets.sum(1), stable=True)].bool()


def subset_codes(available: Tensor) -> Tensor:
    """Return the number of each case's subset: bit m is set where modality m is there.

    Args:
        available: Bool ``(B, M)``.

    Returns:
        Whole numbers ``(B,)`` below ``2^M``.

    Example:
        >>> subset_codes(torch.tensor([[True, False, True], [True, True, True]])).tolist()
        [5, 7]
    """
    return (available.long() << torch.arange(available.shape[1], device=available.device)).sum(1)


def draw_available(present: Tensor, p_complete: float, generator: torch.Generator) -> Tensor:
    """Draw, for each case on its own, which of its present modalities training may see.

    Args:
        present: Modalities that each case really has, bool ``(B, M)`` on the CPU, at least one per case.
        p_complete: Probability in [0, 1] that a case keeps all it has; otherwise every non-empty subset of what it has
            is equally likely. The paper drops at random in every step, which is 0.
        generator: Source of randomness, on the CPU.

    Returns:
        Bool ``(B, M)``, a subset of ``present`` with at least one modality per case.
    """
    drawn = torch.zeros_like(present)
    while (empty := ~drawn.any(1)).any():  # rejecting the empty set keeps the other subsets equally likely
        coins = torch.rand(present.shape, generator=generator) < 0.5
        drawn = torch.where(empty[:, None], coins & present, drawn)
    keep = torch.rand(len(present), generator=generator) < p_complete
    return torch.where(keep[:, None], present, drawn)


def draw_subsets(present: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw, for each case on its own, which of its present modalities training may see, where some subsets matter more.

    Args:
        present: Modalities that each case really has, bool ``(B, M)`` on the CPU, at least one per case.
        weights: Of each subset, ``(2^M,)`` on the CPU, at its number by :func:`subset_codes`. Subsets that share no
            modality with what a case has are not drawn for it.
        generator: Source of randomness, on the CPU.

    Returns:
        Bool ``(B, M)``: what a case has of the subset drawn for it; all it has where no subset is left.
    """
    codes = torch.arange(len(weights))
    shared = subset_codes(present)[:, None] & codes
    chances = torch.where(shared > 0, weights.double(), 0.0)
    chances[:, -1] += (chances.sum(1) == 0).double()  # all that the case has
    drawn = shared.gather(1, torch.multinomial(chances, 1, generator=generator))
    return _flags(drawn[:, 0], present.shape[1])


def draw_nested(
    available: Tensor, present: Tensor, generator: torch.Generator, weights: Tensor | None = None
) -> Tensor:
    """Draw a second subset for each case that holds the first one, or is part of it where the first is all there is.

    Args:
        available: The first subset of each case, bool ``(B, M)`` on the CPU.
        present: Modalities that each case really has, bool ``(B, M)`` on the CPU.
        generator: Source of randomness, on the CPU.
        weights: Of each subset, as :func:`draw_subsets` takes them; None for equal ones.

    Returns:
        Bool ``(B, M)``: another subset of ``present``, the first one again where none is left.

    Example:
        >>> first = torch.tensor([[True, False, False]])
        >>> draw_nested(first, torch.tensor([[True, True, False]]), torch.Generator()).tolist()
        [[True, True, False]]
    """
    codes = torch.arange(2 ** present.shape[1])
    first, all_there = subset_codes(available)[:, None], subset_codes(present)[:, None]
    holds = (codes & first == first) & (codes | all_there == all_there)
    part = (codes | first == first) & (codes > 0)
    others = torch.where(first == all_there, part, holds) & (codes != first)
    chances = others * (torch.ones(len(codes)) if weights is None else weights).double()
    chances.scatter_add_(1, first, (chances.sum(1, keepdim=True) == 0).double())
    return _flags(torch.multinomial(chances, 1, generator=generator)[:, 0], present.shape[1])


def weighted_rotation(weights: Tensor, length: int) -> Tensor:
    """List the subsets that validation takes in turn, each as often as its weight says.

    Each has its share of the whole list, rounded down or up, by the method of largest remainders, and is spread evenly
    over it. Among equals the complete one comes first, then the others in a fixed random order.

    Args:
        weights: Of each subset, ``(2^M,)``.
        length: How many are wanted.

    Returns:
        Bool ``(length, M)``, with repetitions; without a subset whose share is below one.

    Example:
        >>> weighted_rotation(torch.tensor([0, 1.0, 0, 3.0]), 4).int().tolist()
        [[1, 1], [1, 1], [1, 0], [1, 1]]
    """
    codes = weights.nonzero().flatten()
    is_complete = codes == len(weights) - 1
    order = np.random.default_rng(0).permutation(codes[~is_complete])
    codes = torch.cat((codes[is_complete], torch.from_numpy(order)))
    shares = weights[codes].double().numpy()
    shares = (length * shares / shares.sum()).round(9)  # so that equals are equal
    counts = shares.astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: length - counts.sum()]] += 1
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts if n] or [np.zeros(0)])
    rotation = np.repeat(np.arange(len(codes)), counts)[np.argsort(places, kind="stable")]
    return _flags(codes[torch.from_numpy(rotation)], (len(weights) - 1).bit_length())


def subset_rotation(n_modalities: int, max_length: int, seed: int = 0) -> Tensor:
    """List the subsets that validation takes in turn: the complete one first, then others in a fixed random order.

    Args:
        n_modalities: M.
        max_length: How many subsets are wanted at most, at least 1.
        seed: Seed of the order.

    Returns:
        Bool ``(min(max_length, 2^M - 1), M)``, without repetition.
    """
    n_incomplete = 2**n_modalities - 2
    order = np.random.default_rng(seed).choice(n_incomplete, min(max_length - 1, n_incomplete), replace=False) + 1
    codes = torch.cat((torch.tensor([n_incomplete + 1]), torch.from_numpy(order)))
    return _flags(codes, n_modalities)


def zero_missing(images: Tensor, available: Tensor) -> Tensor:
    """Return the images with every missing modality set to exactly 0.

    Args:
        images: Normalized images, ``(B, M, *spatial)``; NaN in a missing modality does not survive.
        available: Bool ``(B, M)``.

    Returns:
        A new tensor ``(B, M, *spatial)``.
    """
    return images.masked_fill(~available[(...,) + (None,) * (images.ndim - 2)], 0)


def infer_available(images: Tensor) -> Tensor:
    """Tell which modalities are there, for callers that know nothing but the images.

    A channel that holds NaN is missing, and all others are there. Where no channel does, one of zeros is missing; a
    tile in which every channel is zero (air) counts as complete.

    Args:
        images: Normalized images, ``(B, M, *spatial)``.

    Returns:
        Bool ``(B, M)``.

    Example:
        >>> nan = float("nan")
        >>> infer_available(torch.tensor([[[0.0], [nan]], [[0.0], [2.0]], [[0.0], [0.0]]])).tolist()
        [[True, False], [False, True], [True, True]]
    """
    voxels = images.flatten(2)
    marked = voxels.isnan().any(-1)
    nonzero = voxels.ne(0).any(-1)
    return torch.where(marked.any(1, keepdim=True), ~marked, nonzero | ~nonzero.any(1, keepdim=True))


def _flags(codes: Tensor, n_modalities: int) -> Tensor:
    """Return subsets by their numbers ``(S,)``, bool ``(S, M)``."""
    return ((codes[:, None] >> torch.arange(n_modalities)) & 1).bool()
