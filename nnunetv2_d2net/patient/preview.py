"""One patient as a picture: the axial slice with most of the tumor, each sequence, without and with outlines.

The patient's right is on the left of the picture, anterior is on top, as the header says where they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.base.palette import REGION_COLORS

_MARGIN_MM = 8.0


class Preview(NamedTuple):
    """What is drawn.

    Attributes:
        images: By sequence, all on the segmentation's grid.
        segmentation: Label values.
        regions: Label values of each, large regions first.
        captions: Lines below the picture.
        placed: Whether the header says which side is which.
    """

    images: Mapping[str, sitk.Image]
    segmentation: sitk.Image
    regions: Mapping[str, Sequence[int]]
    captions: Sequence[str]
    placed: bool = True


def draw_preview(preview: Preview, path: Path) -> None:
    """Draw a PNG file.

    Raises:
        UserError: It cannot be written.
    """
    figure = make_figure(preview)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished)


def make_figure(preview: Preview) -> Figure:
    """Draw a column for each sequence: above as it is, below with the outline of each region."""
    labels = _axial(preview.segmentation)
    volumes = {name: _axial(image) for name, image in preview.images.items()}
    z = _largest_slice(labels, list(volumes.values()))
    rows, columns = _shown([volume[z] for volume in volumes.values()], preview.segmentation)
    width, height, _ = sitk.DICOMOrient(preview.segmentation, "LPS").GetSpacing()
    figure = Figure(figsize=(max(2.6 * len(volumes), 5.2), 6.4), dpi=110, facecolor="black")
    axes = figure.subplots(2, len(volumes), squeeze=False)
    for (name, volume), (plain, outlined) in zip(volumes.items(), axes.T, strict=True):
        for axis in (plain, outlined):
            _draw_slice(axis, volume[z][rows, columns], height / width)
            _mark_sides(axis, placed=preview.placed)
        plain.set_title(name, color="white", fontsize=11)
        _outline(outlined, labels[z][rows, columns], preview.regions)
    _write_below(figure, preview)
    return figure


def _axial(image: sitk.Image) -> NDArray[Any]:
    """Voxels ``(z, y, x)`` with x toward the patient's left, y toward posterior and z upward, not resampled."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))


def _largest_slice(labels: NDArray[Any], images: Sequence[NDArray[Any]]) -> int:
    """The slice with most that is segmented; where nothing is, the one in which most of the head is."""
    shown = labels > 0 if labels.any() else np.any([image != image.flat[0] for image in images], axis=0)
    return int(np.argmax(shown.sum((1, 2))))


def _shown(slices: Sequence[NDArray[Any]], grid: sitk.Image) -> tuple[slice, slice]:
    """Rows and columns around what is no air."""
    filled = np.any([image != image.flat[0] for image in slices], axis=0)
    edges = sitk.DICOMOrient(grid, "LPS").GetSpacing()[1::-1]
    spans = []
    for axis, edge in enumerate(edges):
        inside = np.flatnonzero(filled.any(1 - axis))
        first, last = (inside[0], inside[-1] + 1) if inside.size else (0, filled.shape[axis])
        margin = round(_MARGIN_MM / edge)
        spans.append(slice(max(0, int(first) - margin), int(last) + margin))
    return spans[0], spans[1]


def _draw_slice(axis: Axes, image: NDArray[Any], aspect: float) -> None:
    inside = image[image != image.flat[0]]
    low, high = np.percentile(inside, (1, 99.5)) if inside.size else (0, 1)
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
    axis.set_axis_off()


def _mark_sides(axis: Axes, *, placed: bool) -> None:
    for x, side in ((0.02, "R"), (0.98, "L")) if placed else ():
        look: dict[str, Any] = {"ha": "left" if side == "R" else "right", "va": "center", "fontsize": 10}
        axis.text(x, 0.5, side, color="white", transform=axis.transAxes, **look)


def _outline(axis: Axes, labels: NDArray[Any], regions: Mapping[str, Sequence[int]]) -> None:
    for color, values in zip(REGION_COLORS, regions.values(), strict=False):
        mask = np.isin(labels, values)
        if mask.any() and not mask.all() and min(mask.shape) > 1:
            axis.contour(mask, levels=[0.5], colors=[color], linewidths=1.2)


def _write_below(figure: Figure, preview: Preview) -> None:
    named = zip(REGION_COLORS, preview.regions, strict=False)
    lines = [Line2D([], [], color=color, label=name) for color, name in named]
    look: dict[str, Any] = {"frameon": False, "labelcolor": "white", "fontsize": 9}
    figure.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 0.12), ncols=len(lines), **look)
    sides = [] if preview.placed else ["the header does not say which side is which"]
    text = "\n".join([*preview.captions, *sides])
    figure.text(0.5, 0.115, text, color="white", fontsize=8, ha="center", va="top", wrap=True)
    figure.subplots_adjust(0.005, 0.17, 0.995, 0.95, wspace=0.02, hspace=0.02)
