"""At which probability a region begins: chosen on cases whose labels are known, and written into the network's bias.

A network that was trained on other images than it will see is too careful at first with what is large and faint. Where
its regions should begin is known as soon as there are cases that it has not learned from.
"""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from torch import Tensor

from nnunetv2_d2net.base.images import read_image
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.prediction.agreement import region_masks
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor

THRESHOLDS = np.linspace(0.1, 0.9, 17).round(2)
_LOG = logging.getLogger("nnunetv2_d2net")
_LAST_BIAS = re.compile(r"decoder\.seg_layers\.(\d+)\.bias")


def choose_thresholds(predictor: D2NetPredictor, images: Path, labels: Path, *, progress: bool = False) -> list[float]:
    """Choose the threshold of each region by its Dice, averaged over the subsets of a case's modalities, and say so.

    Args:
        predictor: Of a model that has regions, and has not learned from these cases; it predicts them with each subset.
        images: Folder of images named as nnU-Net names them.
        labels: Folder of the labels.
        progress: Show a bar.

    Returns:
        Probabilities, one for each region.
    """
    dataset = predictor.dataset
    cases = sorted(labels.glob(f"*{dataset.file_ending}"))
    subsets = [tuple(subset.tolist()) for subset in modality_subsets(len(dataset.channels))]
    dice = np.empty((len(cases), len(subsets), len(THRESHOLDS), len(dataset.regions)))
    for c, path in enumerate(Bar(cases, title="choose thresholds", total=len(cases), shown=progress)):
        name = path.name.removesuffix(dataset.file_ending)
        files = [str(images / f"{name}_{m:04d}{dataset.file_ending}") for m in range(len(dataset.channels))]
        masks = region_masks(torch.from_numpy(read_image(path).voxels[0]), dataset)
        for s, predictor.allowed in enumerate(subsets):
            with _silent():
                (found,) = cast(list, predictor.predict_from_files([files], None, save_probabilities=True))
            dice[c, s] = dice_by_threshold(found[1], masks.numpy())
    predictor.allowed = None
    chosen = sure_thresholds(dice.mean(1)).tolist()
    for region, threshold, means in zip(dataset.regions, chosen, dice.mean((0, 1)).T, strict=True):
        at = dict(zip(THRESHOLDS.tolist(), means, strict=True))
        best, half = max(at, key=at.__getitem__), min(at, key=lambda value: abs(value - 0.5))
        dice_at = "; ".join(f"at {value:.2f} {at[value]:.3f}" for value in (threshold, best, half))
        _LOG.info("%s begins at %.2f (mean Dice of chosen, best, one half: %s)", region, threshold, dice_at)
    return chosen


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what is told of each prediction from being told of those that nobody will see."""
    level = _LOG.level
    _LOG.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _LOG.setLevel(level)


def dice_by_threshold(
    probabilities: NDArray[np.floating], masks: NDArray[np.bool_], thresholds: NDArray[np.float64] = THRESHOLDS
) -> NDArray[np.float64]:
    """Return the Dice of each region from each threshold on; 1 where neither holds anything.

    Args:
        probabilities: Of regions, ``(C, *spatial)``.
        masks: Where they are, ``(C, *spatial)``.
        thresholds: ``(T,)``, ascending.

    Returns:
        ``(T, C)``.

    Example:
        >>> dice_by_threshold(np.array([[0.9, 0.4, 0.1]]), np.array([[True, True, False]]), np.array([0.3, 0.5]))
        array([[1.        ],
               [0.66666667]])
    """
    table = np.empty((len(thresholds), len(masks)))
    for region, (values, mask) in enumerate(zip(probabilities, masks, strict=True)):
        passed = np.searchsorted(thresholds, values.ravel(), side="left")  # how many thresholds a voxel is above
        above = [np.bincount(passed[chosen], minlength=len(thresholds) + 1) for chosen in (slice(None), mask.ravel())]
        n_predicted, n_both = (counts[::-1].cumsum()[::-1][1:] for counts in above)
        total = n_predicted + mask.sum()
        table[:, region] = np.where(total > 0, 2 * n_both / np.maximum(total, 1), 1.0)
    return table


def sure_thresholds(dice: NDArray[np.float64], thresholds: NDArray[np.float64] = THRESHOLDS) -> NDArray[np.float64]:
    """Return the threshold nearest to one half that is not surely worse than the best one, for each region.

    It is behind the best by at most one standard error of that difference over the cases: the one-standard-error rule
    of Breiman et al., Classification and Regression Trees, 1984. A lower threshold finds more where nothing is, too,
    which few cases show, so it has to be worth it.

    Args:
        dice: Of each case, ``(N, T, C)``.
        thresholds: ``(T,)``.

    Example:
        >>> sure_thresholds(np.array([[[0.7, 0.9], [0.6, 0.7]], [[0.9, 0.6], [0.8, 0.7]]]), np.array([0.2, 0.5]))
        array([0.2, 0.5])
    """
    best = dice.mean(0).argmax(0)
    behind = np.take_along_axis(dice, best[None, None], 1) - dice
    error = behind.std(0, ddof=1) / np.sqrt(len(dice)) if len(dice) > 1 else np.zeros(behind.shape[1:])
    distance = np.abs(thresholds - 0.5)[:, None]
    return thresholds[np.where(behind.mean(0) <= error, distance, np.inf).argmin(0)]


def with_thresholds(weights: Mapping[str, Tensor], thresholds: Sequence[float]) -> dict[str, Tensor]:
    """Return a network's weights with its last bias shifted so that regions begin where one half did not.

    Args:
        weights: Of a U-Net or a network that decodes as one.
        thresholds: The probability at which each region begins.

    Raises:
        ValueError: There is no such bias, or another number of regions.
    """
    levels = [int(found[1]) for name in weights if (found := _LAST_BIAS.fullmatch(name))]
    name = f"decoder.seg_layers.{max(levels, default=0)}.bias"
    if not levels or len(weights[name]) != len(thresholds):
        raise ValueError(f"{len(thresholds)} thresholds, but no {name} of as many regions")
    shift = torch.from_numpy(logit(np.array(thresholds))).to(weights[name])
    return {**weights, name: weights[name] - shift}
