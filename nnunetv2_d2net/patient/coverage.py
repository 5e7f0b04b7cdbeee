"""How much of the patient's head the field of view of each sequence covers."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from nnunetv2_d2net.base.features import find_head

_SAMPLES = 96  # along each axis, at most
_POINTS = 3000
_BRAIN_MM = 130.0
"""How far below the top of a head its brain reaches; a neck that only one sequence shows is no loss."""

Points = list[tuple[float, ...]]


class Covered(NamedTuple):
    """The least share of the head of another sequence that lies within a field of view, and which sequence that is."""

    share: float
    other: str


def head_points(image: sitk.Image) -> Points:
    """Return points of the upper part of a head, at most 6000, (x, y, z) in mm of the image's own space."""
    steps = [-(-n // _SAMPLES) for n in image.GetSize()]
    found = np.argwhere(find_head(sitk.GetArrayFromImage(image[:: steps[0], :: steps[1], :: steps[2]])).voxels)
    voxels = found[:: len(found) // _POINTS + 1, ::-1] * steps
    points = [image.TransformContinuousIndexToPhysicalPoint(voxel) for voxel in voxels.astype(float).tolist()]
    top = max((z for *_, z in points), default=0.0)
    return [point for point in points if point[2] > top - _BRAIN_MM]


def centered(points: Points) -> sitk.Transform:
    """Return what takes 0 to the middle of a head: heads that are to be registered lie about alike from there."""
    return sitk.TranslationTransform(3, np.mean(points, axis=0).tolist() if points else [0.0] * 3)


def coverage(
    images: Mapping[str, sitk.Image], heads: Mapping[str, Points], frames: Mapping[str, sitk.Transform]
) -> dict[str, Covered]:
    """Tell how much of the others' heads each sequence covers; all of it where there is no other.

    Args:
        images: By sequence, each on its own grid.
        heads: Points of each, see :func:`head_points`.
        frames: From points of a space that all share to those of each sequence's own.
    """
    shared = {name: [frames[name].GetInverse().TransformPoint(p) for p in points] for name, points in heads.items()}
    return {
        name: min((Covered(_share(image, frames[name], shared[n]), n) for n in images if n != name), default=_ALONE)
        for name, image in images.items()
    }


_ALONE = Covered(1.0, "")


def _share(image: sitk.Image, frame: sitk.Transform, points: Points) -> float:
    if not points:
        return 1.0
    index = np.array([image.TransformPhysicalPointToContinuousIndex(frame.TransformPoint(p)) for p in points])
    return float(((index > -0.5) & (index < np.array(image.GetSize()) - 0.5)).all(1).mean())
