"""How far groups of vectors lie apart: as a number, and as points of a plane."""

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.base.palette import REGION_COLORS

_NEIGHBORS = 30.0  # t-SNE's perplexity, where there are enough points


class Points(NamedTuple):
    """Vectors ``(n, k)`` and the name of each one's group, ``(n,)``."""

    vectors: NDArray[np.floating]
    groups: NDArray[np.str_]


def thinned(points: Points, most: int, seed: int) -> Points:
    """Keep so many of each group at most, drawn at random."""
    generator = np.random.default_rng(seed)
    kept = [generator.permutation(np.flatnonzero(points.groups == group))[:most] for group in np.unique(points.groups)]
    chosen = np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)
    return Points(points.vectors[chosen], points.groups[chosen])


def silhouette(points: Points) -> float:
    """Say how much nearer vectors are to their own group than to the next one, by Euclidean distance.

    Returns:
        Mean over the vectors, in [-1, 1]: 1 for groups far apart, about 0 for groups that lie in each other; NaN where
        there are not two groups, or no group has two vectors.
    """
    n_groups = len(np.unique(points.groups))
    if not 2 <= n_groups < len(points.groups):
        return math.nan
    return float(silhouette_score(points.vectors, points.groups))


def in_plane(points: Points, seed: int) -> Points:
    """Lay vectors out in a plane by t-SNE, ``(n, 2)``: neighbors stay neighbors, distances mean little."""
    perplexity = min(_NEIGHBORS, (len(points.groups) - 1) / 3)
    # from random places: the principal components of vectors that are all alike are no numbers
    tsne = TSNE(2, perplexity=perplexity, init="random", random_state=seed)
    with threadpool_limits(1):  # several threads wait for each other, for minutes where the cores are busy
        plane = tsne.fit_transform(points.vectors)
    return Points(plane, points.groups)


@style.context("default")  # another library may have changed the style of this process
def draw_planes(path: Path, planes: Sequence[tuple[str, Points]], groups: Sequence[str]) -> None:
    """Draw planes side by side, which have titles, a color for each group: those that regions have elsewhere.

    Raises:
        UserError: The picture cannot be written.
    """
    figure = Figure(figsize=(4.2 * len(planes), 4.6), dpi=100, facecolor="black")
    axes = figure.subplots(1, len(planes), squeeze=False)[0]
    for axis, (title, points) in zip(axes, planes, strict=True):
        for group, color in zip(groups, cycle(REGION_COLORS), strict=False):
            x, y = points.vectors[points.groups == group].T
            axis.scatter(x, y, s=8, linewidths=0, color=color, label=group)
        axis.set_facecolor("black")
        axis.spines[:].set_color("gray")
        axis.set_title(title, color="white", fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    handles, names = axes[0].get_legend_handles_labels()
    look = {"ncols": len(groups), "frameon": False, "labelcolor": "white", "markerscale": 2}
    figure.legend(handles, names, loc="lower center", **look)
    figure.subplots_adjust(0.02, 0.1, 0.98, 0.9, wspace=0.05)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished)
