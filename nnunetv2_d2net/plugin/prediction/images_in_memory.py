"""Images in memory, as SimpleITK has them, in the form that nnU-Net's reader would give them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import available_from_names

_TOLERANCE = 1e-3


def stack_images(
    images: Mapping[str, sitk.Image], names: Sequence[str]
) -> tuple[NDArray[np.floating], dict[str, Any], sitk.Image]:
    """Put the images of one case side by side, absent ones as zeros.

    Args:
        images: Image by name of the modality, in any case, all on one grid.
        names: M names, in the order of the channels.

    Returns:
        ``(M, z, y, x)``, a 2D image as one slice; nnU-Net's properties with the spacing (z, y, x); a grid image.

    Raises:
        UserError: An unknown name, no image, two of one modality, a color image, or images on different grids.
    """
    flags = {name: available_from_names(names, keep=[name]).index(True) for name in images}
    if not flags:
        raise UserError(f"no modality is given: pass at least one of {', '.join(names)}")
    if len(set(flags.values())) < len(flags):
        raise UserError(f"{', '.join(flags)}: several images for one modality: pass one of each")
    for name, image in images.items():
        if image.GetNumberOfComponentsPerPixel() > 1:
            raise UserError(f"{name} has several values per voxel: pass a gray image")
    first, *others = images
    for other in others:
        _check_grid(other, images[other], first, images[first])
    planar = images[first].GetDimension() == 2
    arrays = {position: sitk.GetArrayFromImage(images[name]) for name, position in flags.items()}
    shape = next(iter(arrays.values())).shape
    stacked = np.zeros((len(names), *((1,) if planar else ()), *shape), dtype=np.float32)
    for position, array in arrays.items():
        stacked[position] = array
    spacing = list(images[first].GetSpacing())[::-1]
    return stacked, {"spacing": [999 * max(spacing), *spacing] if planar else spacing}, images[first]


def _check_grid(name: str, image: sitk.Image, other: str, reference: sitk.Image) -> None:
    for what in ("Size", "Spacing", "Origin", "Direction"):
        a, b = (np.array(getattr(i, f"Get{what}")()) for i in (image, reference))
        if a.shape != b.shape or np.abs(a - b).max() > _TOLERANCE:
            raise UserError(f"{name} and {other} differ in {what.lower()}: resample them onto each other")
