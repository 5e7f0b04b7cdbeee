"""The paper's Fig. 8: what the weight of each loss does to the Dice."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.base.palette import REGION_COLORS

_MARKERS = "osD^v"  # so that nobody needs the colors


@style.context("default")  # another library may have changed the style of this process
def draw_weights(path: Path, curves: Mapping[str, Mapping[float, float]]) -> None:
    """Draw a curve for each loss.

    Args:
        path: Of the picture.
        curves: Dice in percent by weight, by loss; what has not been measured is left out.

    Raises:
        UserError: The picture cannot be written.
    """
    figure = Figure(figsize=(6.4, 4.6), dpi=100, facecolor="black", layout="constrained")
    axis = figure.subplots()
    for (loss, curve), color, marker in zip(curves.items(), REGION_COLORS, _MARKERS, strict=False):
        weights = sorted(curve)
        axis.plot(weights, [curve[weight] for weight in weights], color=color, marker=marker, label=loss)
    axis.set_facecolor("black")
    axis.spines[:].set_color("gray")
    axis.tick_params(colors="white")
    axis.set_xticks([0, 0.5, 1, 2])
    axis.set_xlabel("weight of the loss, all others 1", color="white")
    axis.set_ylabel("Dice in percent, mean of regions and subsets", color="white")
    axis.legend(frameon=False, labelcolor="white")
    with written_whole(path) as unfinished:
        figure.savefig(unfinished)
