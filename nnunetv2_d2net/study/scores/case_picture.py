"""One case as a picture: its modalities, the reference and predictions, in the slice that shows most of the tumor."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.base.images import read_sitk
from nnunetv2_d2net.base.palette import REGION_COLORS


def draw_case(
    path: Path, *, images: dict[str, Path], segmentations: dict[str, Path], regions: dict[str, tuple[int, ...]]
) -> None:
    """Draw one axial slice of each image and segmentation, which have titles; the first segmentation chooses it.

    Regions, by their label values, are drawn in their order, later ones on top. The patient's right is on the left.
    """
    labels = [_read_axial(file) for file in segmentations.values()]
    z = int(np.argmax((labels[0] > 0).sum((1, 2))))
    slices = [_read_axial(file)[z] for file in images.values()]
    panels = [*slices, *[slices[0] for _ in labels]]
    figure = Figure(figsize=(2.4 * len(panels), 2.9), dpi=100, facecolor="black")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, image, title in zip(axes, panels, [*images, *segmentations], strict=True):
        inside = image[image != 0]
        low, high = np.percentile(inside, (1, 99)) if inside.size else (0, 1)
        axis.imshow(image, cmap="gray", vmin=low, vmax=high)
        axis.set_title(title, color="white", fontsize=10)
        axis.set_axis_off()
    for axis, label in zip(axes[len(slices) :], labels, strict=True):
        for color, values in zip(REGION_COLORS, regions.values(), strict=False):
            mask = np.where(np.isin(label[z], values), 1.0, np.nan)
            axis.imshow(mask, cmap=ListedColormap([color]), alpha=0.65)
    patches = [Patch(color=color, label=name) for color, name in zip(REGION_COLORS, regions, strict=False)]
    look = {"ncols": len(patches), "frameon": False, "labelcolor": "white", "fontsize": 9}
    figure.legend(handles=patches, loc="lower center", **look)
    figure.subplots_adjust(0.005, 0.1, 0.995, 0.92, wspace=0.03)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished)


def _read_axial(path: Path) -> NDArray[np.number]:
    return sitk.GetArrayFromImage(sitk.DICOMOrient(read_sitk(path), "LPS"))
