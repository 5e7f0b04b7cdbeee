"""How much the segmentation of one patient hangs on single parts of what it was made with.

A segmentation is compared with those that the same network makes without one of the modalities, those of single folds,
and the one without mirroring. The first share its sliding windows, the others are on the way to it. All are compared on
the preprocessed grid, in the crop and normalization of the modalities that were given.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nnunetv2_d2net.base.dataset import Dataset

Subset = tuple[bool, ...]

AGREEMENT = "agreement (Dice)"
"""Key of the note, and of nnU-Net's case properties: Dice by what was left out, and region."""

WITHOUT_MIRRORING = "without mirroring"


class Witnesses:
    """What else a network says of one case, gathered while it is segmented with one or several subsets.

    Args:
        wanted: The subsets that segmentations are wanted of.
        names: M names of the modalities.
        masks_of: Turns logits ``(C, *spatial)`` into a mask of each region, bool ``(R, *spatial)``.

    Attributes:
        subsets: What must go through the network: these, and each without one of its modalities; small ones first, so
            that all that a subset is compared with is there before it.
        window: The subsets that share the present sliding window.
    """

    def __init__(self, wanted: Sequence[Subset], names: Sequence[str], masks_of: Callable[[Tensor], Tensor]) -> None:
        self.wanted, self.names, self.masks_of = tuple(wanted), names, masks_of
        fewer = (less for subset in wanted for less in _one_less(subset).values())
        self.subsets: list[Subset] = sorted({*wanted, *fewer}, key=lambda subset: (sum(subset), subset))
        self.window: list[Subset] = []
        self._folds = itertools.count()
        self._segmented: dict[Subset, Tensor] = {}
        self._on_the_way: dict[Subset, dict[str, Tensor]] = {subset: {} for subset in wanted}

    @property
    def wanted_in_window(self) -> list[int]:
        """Positions of the wanted subsets among those of the present window."""
        return [n for n, subset in enumerate(self.window) if subset in self.wanted]

    def next_fold(self, n_folds: int) -> int:
        """Count the folds of a window."""
        return next(self._folds) % n_folds

    def hear(self, what: str, logits: Sequence[Tensor] | Tensor) -> None:
        """Take what was found on the way to the average.

        Args:
            what: How it differs from the average, in words.
            logits: ``(C, *spatial)`` of each wanted subset of the window.
        """
        for n, maps in zip(self.wanted_in_window, logits, strict=True):
            self._on_the_way[self.window[n]][what] = self.masks_of(maps)

    def agreement(self, subset: Subset, logits: Tensor, regions: Sequence[str]) -> dict[str, dict[str, float]]:
        """Compare a segmentation with all that was heard of it; subsets must come in the order of ``subsets``.

        Args:
            subset: M flags.
            logits: ``(C, *spatial)``, the average.
            regions: R names.

        Returns:
            Dice by what was left out, and region; empty where the subset is not wanted.
        """
        own = self._segmented[subset] = self.masks_of(logits)
        if subset not in self.wanted:
            return {}
        others = {f"without {self.names[m]}": self._segmented[less] for m, less in _one_less(subset).items()}
        return {
            what: dict(zip(regions, _dice(own, masks), strict=True))
            for what, masks in (others | self._on_the_way.pop(subset)).items()
        }


def region_masks(labels: Tensor, dataset: Dataset) -> Tensor:
    """Return the mask of each region, bool ``(R, *spatial)``, of label values ``(*spatial)``."""
    values = [torch.tensor(values, device=labels.device) for values in dataset.regions.values()]
    return torch.stack([torch.isin(labels, of_region) for of_region in values]).cpu()


def worst_agreement(agreement: Mapping[str, Mapping[str, float]]) -> str:
    """Name the region that hangs most on one thing.

    Example:
        >>> worst_agreement({"without T1": {"core": 0.9}, "without T1ce": {"core": 0.41}})
        'least agreement: core without T1ce, Dice 0.41'
        >>> worst_agreement({})
        'agreement: nothing to leave out'
    """
    pairs = [(dice, region, what) for what, regions in agreement.items() for region, dice in regions.items()]
    if not pairs:
        return "agreement: nothing to leave out"
    dice, region, what = min(pairs)
    return f"least agreement: {region} {what}, Dice {dice:.2f}"


def _one_less(subset: Subset) -> dict[int, Subset]:
    """The subset without each of its modalities, by the modality; nothing for a single one."""
    there = [m for m, flag in enumerate(subset) if flag]
    return {m: (*subset[:m], False, *subset[m + 1 :]) for m in there} if len(there) > 1 else {}


def _dice(one: Tensor, other: Tensor) -> list[float]:
    """Dice of each of R masks ``(R, *spatial)``; 1 where both are empty."""
    both, sizes = (one & other).flatten(1).sum(1), one.flatten(1).sum(1) + other.flatten(1).sum(1)
    return [round(2 * b / s, 4) if s else 1.0 for b, s in zip(both.tolist(), sizes.tolist(), strict=True)]
