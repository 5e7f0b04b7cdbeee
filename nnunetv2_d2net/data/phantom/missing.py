"""Which images of a cohort are left out, so that it becomes as incomplete as real ones."""

import numpy as np
from numpy.typing import NDArray

_STREAM = 2  # of the seed; 0 and 1 are those of the training and the test cases


def draw_kept(n_cases: int, n_modalities: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Draw which images stay when a share of all is removed at random; every case keeps at least one.

    Args:
        n_cases: Training cases.
        n_modalities: M.
        share: Of the images that are removed, from 0 to (M - 1) / M, rounded to whole images.
        seed: The data set's; the same seed, share and numbers remove the same images.

    Returns:
        Bool ``(n_cases, n_modalities)``.

    Example:
        >>> int(draw_kept(60, 4, 0.2, seed=0).sum())
        192
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM,)))
    kept = np.ones((n_cases, n_modalities), dtype=bool)
    n_left = round(share * kept.size)
    for case, modality in (divmod(int(slot), n_modalities) for slot in rng.permutation(kept.size)):
        if n_left and kept[case].sum() > 1:
            kept[case, modality] = False
            n_left -= 1
    return kept
