"""One case as a picture: its modalities, the reference and predictions, in the slice that shows most of the tumor."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.base.images import read_image

_COLORS = ("#2ca02c", "#e6b800", "#d62728", "#1f77b4", "#9467bd", "#8c564b")


def draw_case(
    path: Path, *, images: dict[str, Path], segmentations: dict[str, Path], regions: dict[str, tuple[int, ...]]
) -> None:
    """Draw one axial slice.

    Args:
        path: PNG to write.
        images: Image file by title.
        segmentations: Segmentation file by title; the first one chooses the slice.
        regions: Label values by region, drawn in this order, later ones on top.
    """
    labels = {title: read_image(file).voxels[0] for title, file in segmentations.items()}
    first = next(iter(labels.values()))
    z = int(np.argmax((first > 0).sum((1, 2))))
    volumes = {title: read_image(file).voxels[0] for title, file in images.items()}
    figure = Figure(figsize=(2.4 * (len(volumes) + len(labels)), 2.9), dpi=100, facecolor="black")
    axes = figure.subplots(1, len(volumes) + len(labels), squeeze=False)[0]
    for axis, (title, volume) in zip(axes, volumes.items(), strict=False):
        _show(axis, volume[z], title)
    background = next(iter(volumes.values()))[z]
    for axis, (title, label) in zip(axes[len(volumes) :], labels.items(), strict=True):
        _show(axis, background, title)
        for color, values in zip(_COLORS, regions.values(), strict=False):
            mask = np.isin(label[z], values)
            axis.imshow(np.where(mask, 1.0, np.nan), cmap=ListedColormap([color]), alpha=0.65, origin="lower")
    patches = [Patch(color=color, label=name) for color, name in zip(_COLORS, regions, strict=False)]
    figure.legend(
        handles=patches, loc="lower center", ncols=len(patches), frameon=False, labelcolor="white", fontsize=9
    )
    figure.subplots_adjust(0.005, 0.1, 0.995, 0.92, wspace=0.03)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished)


def _show(axis: Axes, image: np.ndarray, title: str) -> None:
    inside = image[image != 0]
    low, high = np.percentile(inside, (1, 99)) if inside.size else (0, 1)
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower")
    axis.set_title(title, color="white", fontsize=10)
    axis.set_axis_off()
