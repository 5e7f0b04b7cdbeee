"""How well one mask matches another: Dice, and in mm HD95, ASSD and surface Dice."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from surface_distance import (
    compute_robust_hausdorff,
    compute_surface_dice_at_tolerance,
    compute_surface_distances,
)

TOLERANCE_MM = 1.0
"""How far surfaces may lie apart and still count as matching, unless told otherwise."""


class CaseScore(NamedTuple):
    """One row of metrics.csv.

    Attributes:
        subset: Modalities that the prediction was made from, ``FLAIR+T1ce``.
        dice: In [0, 1].
        hd95: 95th percentile of the Hausdorff distance in mm.
        assd: Average symmetric surface distance in mm.
        surface_dice: Share of both surfaces that lies within the tolerance of the other one, in [0, 1].
        reference_voxels: Size of the region in the reference; ``prediction_voxels`` likewise.
    """

    case: str
    subset: str
    region: str
    dice: float
    hd95: float
    assd: float
    surface_dice: float
    reference_voxels: int
    prediction_voxels: int


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Compute the Dice coefficient of two masks as BraTS does: 1 if both are empty, 0 if one of them is."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else 1.0


def surface_scores(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: Sequence[float],
    *,
    tolerance_mm: float = TOLERANCE_MM,
    empty_distance: float = math.inf,
) -> tuple[float, float, float]:
    """Compare the surfaces of two masks, every piece of surface weighted with its area.

    HD95 is the larger of the two directed 95th percentiles. ASSD is the integral of the distance over both surfaces
    divided by their area. Masks of two axes have contours for surfaces.

    Convention of BraTS: two empty masks match perfectly (0 mm, surface Dice 1); against an empty mask any other has
    surface Dice 0 and, as distance, the diagonal of the image, which may be larger than these arrays.

    Source: Nikolov et al., J Med Internet Res 23(7):e26151, 2021, doi:10.2196/26151 (surface Dice and its area
    weights), by their library ``surface-distance``.

    Args:
        prediction: Bool, 2 or 3 axes.
        reference: Bool, the same shape.
        spacing: Of each axis, in mm.
        tolerance_mm: Of the surface Dice.
        empty_distance: That diagonal, in mm.

    Returns:
        HD95 and ASSD in mm, surface Dice in [0, 1].
    """
    filled = bool(prediction.any()), bool(reference.any())
    if not any(filled):
        return 0.0, 0.0, 1.0
    if not all(filled):
        return empty_distance, empty_distance, 0.0
    with warnings.catch_warnings():  # it uses names that SciPy 2 will remove
        warnings.simplefilter("ignore", DeprecationWarning)
        found = compute_surface_distances(reference, prediction, spacing)
    distances = np.concatenate([found["distances_gt_to_pred"], found["distances_pred_to_gt"]])
    areas = np.concatenate([found["surfel_areas_gt"], found["surfel_areas_pred"]])
    return (
        float(compute_robust_hausdorff(found, 95)),
        float(np.average(distances, weights=areas)),
        float(compute_surface_dice_at_tolerance(found, tolerance_mm)),
    )


def score_labels(
    prediction: NDArray[np.generic],
    reference: NDArray[np.generic],
    spacing: Sequence[float],
    regions: Mapping[str, Sequence[int]],
    *,
    ignore: int | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, tuple[float, float, float, float, int, int]]:
    """Score every region of a segmentation.

    Args:
        prediction: Labels, 2 or 3 axes; an image of a single slice is compared in its plane.
        reference: Labels, the same shape.
        spacing: Of each axis, in mm.
        regions: Label values by region.
        ignore: Label of the reference whose voxels count as background in both.
        tolerance_mm: Of the surface Dice.

    Returns:
        By region: Dice, HD95, ASSD, surface Dice, voxels of the reference and of the prediction.
    """
    if reference.ndim == 3 and reference.shape.count(1) == 1:  # as a volume, its surface would be the whole mask
        axis = reference.shape.index(1)
        prediction, reference = prediction.squeeze(), reference.squeeze()
        spacing = np.delete(spacing, axis).tolist()
    worst = diagonal(reference.shape, spacing)
    box = ndimage.find_objects(((prediction != 0) | (reference != 0)).view(np.uint8))
    prediction, reference = (labels[box[0]] if box else labels for labels in (prediction, reference))
    counted = np.ones(reference.shape, bool) if ignore is None else reference != ignore
    scores = {}
    for region, values in regions.items():
        p, r = (np.isin(labels, values) & counted for labels in (prediction, reference))
        surfaces = surface_scores(p, r, spacing, tolerance_mm=tolerance_mm, empty_distance=worst)
        scores[region] = (dice(p, r), *surfaces, int(r.sum()), int(p.sum()))
    return scores


def diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Return the diagonal of an image in mm.

    Example:
        >>> round(diagonal((155, 240, 240), (1, 1, 1)), 2)  # BraTS's penalty for a region that is missed or made up
        373.13
    """
    return math.hypot(*(n * mm for n, mm in zip(shape, spacing, strict=True)))
