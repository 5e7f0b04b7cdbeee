"""Images in memory, as SimpleITK has them, in the form that nnU-Net's reader would give them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.base.dataset import available_from_names
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import Image, differences, is_placed, properties_of


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
    read = {name: _as_read(name, image) for name, image in images.items()}
    first, *others = read
    for other in others:
        if ways := differences(read[other], read[first]):
            raise UserError(f"{other} and {first} differ in {', '.join(ways)}: resample them onto each other")
    planar, shape = images[first].GetDimension() == 2, read[first].voxels.shape[1:]
    stacked = np.zeros((len(names), *((1,) if planar else ()), *shape), dtype=np.float32)
    for name, position in flags.items():
        stacked[position] = read[name].voxels
    spacing = list(images[first].GetSpacing())[::-1]
    spacing = [999 * max(spacing), *spacing] if planar else spacing
    place = {"sitk_stuff": properties_of(images[first])} if is_placed(images[first]) else {}
    return stacked, {"spacing": spacing, **place}, images[first]


def _as_read(name: str, image: sitk.Image) -> Image:
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise UserError(f"{name} has several values per voxel: pass a gray image")
    return Image(Path(name), sitk.GetArrayFromImage(image)[None], properties_of(image))
