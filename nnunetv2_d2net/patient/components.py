"""Which components of a lesion to believe: those that are large and bright, held against the brightest large one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BELIEVED = 0.1
"""Smallest weight of a component that is kept, as a share of the heaviest one's."""


def believed_components(labels: NDArray[np.integer], image: NDArray[np.floating]) -> NDArray[np.integer]:
    """Take away the components of a lesion that weigh little beside the heaviest one.

    A component's weight is its volume times how far its mean lies above the healthy brain's median, as a share of that:
    false components in healthy tissue are large or bright, but seldom both.

    Args:
        labels: Of the lesion, ``(z, y, x)``, 0 outside; components touch by a face, an edge or a corner.
        image: FLAIR, or T2, ``(z, y, x)``, 0 outside the brain.

    Returns:
        The labels of the components that are kept, 0 elsewhere; all of them where none is brighter than the brain.
    """
    found: Any = ndimage.label(labels > 0, np.ones((3, 3, 3)))
    components, n_components = found
    if n_components < 2:
        return labels
    healthy = np.median(image[(image > 0) & (labels == 0)])
    numbers = np.arange(1, n_components + 1)
    brightness = ndimage.mean(image, components, numbers) / healthy - 1
    weights = ndimage.sum_labels(labels > 0, components, numbers) * brightness
    if weights.max() <= 0:
        return labels
    kept = numbers[weights >= BELIEVED * weights.max()]
    return np.where(np.isin(components, kept), labels, 0).astype(labels.dtype)
