"""What is measured in images: which voxels show the patient, and what tells modalities apart.

The latter do not depend on the scanner's scale and offset; swapped files are found by them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_fill_holes, distance_transform_edt
from scipy.stats import rankdata

Array = NDArray[np.floating]

PLAIN_SHARE = 0.5
"""Share of its border that has one value, above which an image has a background."""

_QUANTILES = (1, 5, 25, 50, 75, 95, 99)
_N_SHAPE = 5
_RIM = 30
"""Percent of the head, its outermost part: cortex, fluid around it, and the skull where there is one."""

_MAX_RANKED = 50_000
_MIN_VOXELS = 30
"""For a contrast to mean anything."""


class HeadMask(NamedTuple):
    """The patient in one image, or in several, ``(z, y, x)``.

    Attributes:
        exact: The background has one value, as in skull-stripped images; else its noise was told from tissue by Otsu's
            threshold, and the mask's border is rough.
    """

    voxels: NDArray[np.bool_]
    exact: bool


def find_head(image: NDArray[np.floating]) -> HeadMask:
    """Tell the patient from the background: the value that most of the border of (z, y, x) has, or what is dark."""
    value, share = border_value(image)
    if share > PLAIN_SHARE:
        return HeadMask(image != value, exact=True)
    return HeadMask(bright_voxels(image), exact=False)


def bright_voxels(image: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell the patient in (z, y, x) from noise by Otsu's threshold, and fill the holes of each slice."""
    bright = sitk.OtsuThreshold(sitk.GetImageFromArray(np.asarray(image, np.float32)), 0, 1)
    return _filled(sitk.GetArrayFromImage(bright))


def join_heads(heads: Iterable[HeadMask]) -> HeadMask:
    """Return what any of the images shows."""
    masks, exact = zip(*heads, strict=True)
    return HeadMask(np.logical_or.reduce(masks), all(exact))


def widen_rough(head: HeadMask, voxels: int = 3) -> NDArray[np.bool_]:
    """Return the mask, made larger if its border is rough."""
    return head.voxels if head.exact else np.asarray(binary_dilation(_filled(head.voxels), iterations=voxels), bool)


def _filled(mask: NDArray) -> NDArray[np.bool_]:
    return np.array([binary_fill_holes(plane) for plane in mask])


def border_value(image: NDArray[np.floating]) -> tuple[float, float]:
    """Return the most frequent value of the outermost voxels of (z, y, x), and its share of them."""
    axes = [axis for axis, length in enumerate(image.shape) if length > 2]
    faces = [image.take(end, axis).ravel() for axis in axes for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces) if faces else image.ravel(), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())


def measure_features(
    images: Mapping[int, Array], head: NDArray[np.bool_], labels: NDArray | None, values: Sequence[int], n: int
) -> Array:
    """Measure the images of one case, which lie on one grid.

    Args:
        images: ``(z, y, x)`` by modality.
        head: ``(z, y, x)``, True where the patient is.
        labels: ``(z, y, x)``, or None.
        values: The foreground label values of the data set.
        n: Number of modalities M.

    Returns:
        ``(M, M, F)``, NaN where there is no such image or label. On the diagonal, of each image: the histogram's shape,
        the head's rim against its center, each label against the rest; the last two are NaN. Elsewhere only the last
        two are known, of a pair of images: their rank correlation, and whether the first one has the longer bright tail
        over the second (to 1) or the other way round (to -1).
    """
    features = np.full((n, n, _N_SHAPE + 1 + len(values) + 2), np.nan)
    if np.count_nonzero(head) < _MIN_VOXELS:
        return features
    masks = [_rim(head)[head]]
    masks += [np.zeros_like(masks[0]) if labels is None else labels[head] == value for value in values]
    relative = {}
    for m, image in images.items():
        relative[m], shape = _relative(image[head])
        features[m, m, :-2] = [*shape, *(_contrast(relative[m], mask) for mask in masks)]
    step = max(1, int(head.sum()) // _MAX_RANKED)
    ranks = {m: rankdata(intensities[::step]) for m, intensities in relative.items()}
    for m, k in ((m, k) for m in images for k in images if m < k):
        correlation = float(np.corrcoef(ranks[m], ranks[k])[0, 1])
        asymmetry = _asymmetry(relative[m] - relative[k])
        features[m, k, -2:], features[k, m, -2:] = (correlation, asymmetry), (correlation, -asymmetry)
    return features


def _relative(intensities: Array) -> tuple[Array, Array]:
    """Intensities in units of their spread, and five quantiles of them: the shape of the histogram."""
    quantiles = np.percentile(intensities, _QUANTILES)
    spread = max(quantiles[5] - quantiles[1], 1e-6)
    shape = (np.delete(quantiles, (1, 5)) - quantiles[1]) / spread
    return np.asarray((intensities - quantiles[3]) / spread, np.float32), shape


def _rim(head: NDArray[np.bool_]) -> NDArray[np.bool_]:
    depth = np.asarray(distance_transform_edt(head))
    return depth <= np.percentile(depth[head], _RIM)


def _contrast(relative: Array, mask: NDArray[np.bool_]) -> float:
    if min(mask.sum(), (~mask).sum()) < _MIN_VOXELS:
        return np.nan
    return float(np.median(relative[mask]) - np.median(relative[~mask]))


def _asymmetry(difference: Array) -> float:
    low, middle, high = np.percentile(difference, (0.5, 50, 99.5))
    return float((high + low - 2 * middle) / max(high - low, 1e-6))
