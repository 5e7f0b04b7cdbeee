"""Which voxels show the patient."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_fill_holes


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
    value, share = _border_value(image)
    if share > 0.5:
        return HeadMask(image != value, exact=True)
    bright = sitk.OtsuThreshold(sitk.GetImageFromArray(np.asarray(image, np.float32)), 0, 1)
    return HeadMask(_filled(sitk.GetArrayFromImage(bright).astype(bool)), exact=False)


def join_heads(heads: Iterable[HeadMask]) -> HeadMask:
    """Return what any of the images shows."""
    masks, exact = zip(*heads, strict=True)
    return HeadMask(np.logical_or.reduce(masks), all(exact))


def widen_rough(head: HeadMask, voxels: int = 3) -> NDArray[np.bool_]:
    """Return the mask, made larger if its border is rough."""
    return head.voxels if head.exact else np.asarray(binary_dilation(_filled(head.voxels), iterations=voxels), bool)


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.stack([np.asarray(binary_fill_holes(plane), bool) for plane in mask])


def _border_value(image: NDArray[np.floating]) -> tuple[float, float]:
    """The most frequent value of the outermost voxels, and its share of them."""
    axes = [axis for axis, length in enumerate(image.shape) if length > 2]
    faces = [image.take(end, axis).ravel() for axis in axes for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces) if faces else image.ravel(), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())
