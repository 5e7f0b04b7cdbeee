"""Bringing an image onto the grid of another one."""

from pathlib import Path

import SimpleITK as sitk

from nnunetv2_d2net.base.features import PLAIN_SHARE, border_value
from nnunetv2_d2net.base.images import ImageError, is_constant


def take_grid(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Put an image onto a grid of the same size, its voxels as they are: for headers that were rounded or lost."""
    moved = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(image))
    moved.CopyInformation(grid)
    return moved


def resample_onto(
    image: sitk.Image, grid: sitk.Image, source: Path | str, transform: sitk.Transform | None = None
) -> sitk.Image:
    """Resample an image linearly onto another one's grid; its air, or 0 if that is noise, where it does not reach.

    Args:
        image: The image.
        grid: The other one.
        source: Where the image comes from, for messages.
        transform: From points of the grid to those of the image; None where both lie in one space.

    Raises:
        ImageError: Nothing of it lies on the grid.
    """
    value, share = border_value(sitk.GetArrayViewFromImage(image))
    air = value if share > PLAIN_SHARE else 0.0  # of a z-scored image it is not 0
    resampled = sitk.Resample(image, grid, transform or sitk.Transform(), sitk.sitkLinear, air)
    if is_constant(sitk.GetArrayViewFromImage(resampled)) and not is_constant(sitk.GetArrayViewFromImage(image)):
        reason, remedy = "does not overlap the case's other images", "its header is wrong, or it is of somebody else"
        raise ImageError(source, "geometry", reason, remedy)
    return resampled
