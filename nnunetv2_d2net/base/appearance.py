"""What a case looks like, whatever the scale of its intensities, and whether it looks like those of a cohort."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.exchanges import Reference, best_exchange, fit_reference
from nnunetv2_d2net.base.features import find_head, join_heads, measure_features

APPEARANCE = "d2net_appearance"
"""Key of ``dataset_fingerprint.json`` under which stands what the training cases look like. nnU-Net reads its own keys,
and copies the file beside every model."""

_COARSE = 96
"""Voxels along each axis, at most, that are looked at."""

_MIN_GAIN = 12.0
"""Log likelihood by which exchanged names must fit better: twice as much as within a cohort, as scanners differ."""

_STRANGE = 20.0
"""Spreads by which one number of an image may differ from the cohort's: other scanners reach 15."""

_HEAD = 1.5
"""How many times the largest, or below the smallest, head of a cohort is unlike all of them."""


_LARGEST_BRAIN = 2200.0
"""In ml, with the fluid around it; a head with its skull has 3000 and more."""


class Appearance(NamedTuple):
    """One case.

    Attributes:
        features: ``(M, M, F)`` as :func:`measure_features` returns them, without labels.
        head_ml: Volume of the head.
        plain: The background has one value.
    """

    features: NDArray[np.floating]
    head_ml: float
    plain: bool

    @property
    def has_skull(self) -> bool:
        """Whether more than a brain is there: noise in the air around it, or too large a head."""
        return not self.plain or self.head_ml > _LARGEST_BRAIN


def appearance_of(images: NDArray[np.floating], available: Sequence[bool], spacing: Sequence[float]) -> Appearance:
    """Measure one case on a coarse grid.

    Args:
        images: ``(M, z, y, x)``.
        available: M flags; the other images may hold anything.
        spacing: In mm, (z, y, x).
    """
    steps = [-(-length // _COARSE) for length in images.shape[1:]]
    coarse = images[(slice(None), *(slice(None, None, step) for step in steps))]
    there = {m: coarse[m] for m in np.flatnonzero(available).tolist()}
    head = join_heads(find_head(image) for image in there.values())
    with np.errstate(invalid="ignore"):  # NaN where an image is constant in the head
        features = measure_features(there, head.voxels, None, (), len(images))
    return Appearance(features, float(head.voxels.sum() * np.prod(steps) * np.prod(spacing)) / 1000, head.exact)


class CohortAppearance(NamedTuple):
    """All cases of a cohort.

    Attributes:
        reference: Place and spread of the features, NaN where too few cases have an image.
        head_ml: The smallest and the largest head.
        plain: Every case's background has one value.
    """

    reference: Reference
    head_ml: tuple[float, float]
    plain: bool

    @classmethod
    def of(cls, cases: Sequence[Appearance]) -> "CohortAppearance":
        """Sum up what was measured in every case."""
        features, heads, plain = zip(*cases, strict=True)
        return cls(fit_reference(np.array(features)), (min(heads), max(heads)), all(plain))

    def as_json(self) -> dict[str, Any]:
        """The same for a JSON file, which has None for NaN."""
        place, spread = (np.where(np.isnan(part), np.array(None), part) for part in self.reference)
        return {
            "place": place.tolist(),
            "spread": spread.tolist(),
            "head (ml)": list(self.head_ml),
            "plain background": self.plain,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "CohortAppearance":
        """Read what :meth:`as_json` gave.

        Raises:
            KeyError: Something is missing.
            TypeError: Something has another type.
            ValueError: It is not whole.
        """
        place, spread = (np.array(content[key], float) for key in ("place", "spread"))
        if place.ndim != 3 or place.shape != spread.shape or place.shape[0] != place.shape[1]:
            raise ValueError(f"features of shapes {place.shape} and {spread.shape}")
        smallest, largest = map(float, content["head (ml)"])
        return cls((place, spread), (smallest, largest), bool(content["plain background"]))

    @property
    def is_of_brains(self) -> bool:
        """Whether all of them are skull-stripped."""
        return self.plain and self.head_ml[1] <= _LARGEST_BRAIN

    @property
    def tells_modalities(self) -> bool:
        """Whether enough cases had an image for anything to be said about its name."""
        return bool(np.isfinite(self.reference).any())

    def doubts(self, case: Appearance, names: Sequence[str]) -> list[str]:
        """Say in which ways a case looks like none of the cohort's, each as what follows the name of the case.

        Args:
            case: What was measured.
            names: M names of the modalities.

        Example:
            >>> nothing = np.full((1, 1, 8), np.nan)
            >>> cohort = CohortAppearance.of([Appearance(nothing, 1200, True), Appearance(nothing, 1500, True)])
            >>> cohort.doubts(Appearance(nothing, 1700, True), ["T1"])
            []
            >>> cohort.doubts(Appearance(nothing, 4000, False), ["T1"])
            ['has a head of 4.0 l, the training data 1.2 to 1.5 l: is it skull-stripped and whole, as they were?']
        """
        lines, (smallest, largest) = [], self.head_ml
        if case.head_ml > _HEAD * largest or case.head_ml < smallest / _HEAD:
            known = f"{smallest / 1000:.1f} to {largest / 1000:.1f} l"
            lines.append(
                f"has a head of {case.head_ml / 1000:.1f} l, the training data {known}: is it skull-stripped and "
                "whole, as they were?"
            )
        elif self.plain and not case.plain:
            lines.append("has no plain background, as all training cases have: is it skull-stripped, as they were?")
        exchange = best_exchange(case.features, self.reference, _MIN_GAIN)
        if exchange is not None:
            pairs = " and ".join(f"{names[m]} that looks like {names[k]}" for m, k in exchange.names_of.items())
            lines.append(
                f"has {pairs} by the intensities of the training data (log odds {exchange.gain:.0f}): see that no "
                "image is given as another modality"
            )
            return lines
        strange = [names[m] for m in self._strange(case.features)]
        if strange:
            lines.append(
                f"has {' and '.join(strange)} with intensities like none of the training data: is it an image of the "
                "scanner, neither cut off, nor a mask, nor with single voxels far brighter than the rest?"
            )
        return lines

    def _strange(self, features: NDArray[np.floating]) -> list[int]:
        """List the modalities whose own image differs far from all of the cohort's."""
        own = np.arange(len(features))
        place, spread = (part[own, own] for part in self.reference)
        distance = np.abs((features[own, own] - place) / spread)
        return np.flatnonzero(np.nan_to_num(distance).max(1) > _STRANGE).tolist()
