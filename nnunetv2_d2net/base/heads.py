"""Whether the images of one case show one head: co-registered modalities do, files of several patients do not."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from nnunetv2_d2net.base.features import bright_voxels

_SAMPLES = 128  # along each axis, at most
_MOST_INSIDE = 50_000  # voxels whose intensities are compared
_BINS = 32
_PLAIN_BORDER = 0.6  # share of the border that is alike where the surroundings of the head are blank

_SAME_OUTLINE = 0.95
_CONTAINED = 0.98
_ALIKE = 0.15
_STEEPNESS = 2.5

_ROUGH_OUTLINE, _ROUGHLY_ALIKE = 0.905, 0.08
"""Six patients' overlap more or are more alike, in noise of up to 8 percent of the brightest; none of two patients."""

_PARTLY_SHOWN = 0.85
"""Outlines of Dice 0.95, as one patient's have, share 0.9 at the least."""


class HeadMatch(NamedTuple):
    """How well the heads of images fit, for a pair of images or on average.

    Attributes:
        overlap: Dice of their outlines, where the field of view of both is; one patient's modalities have 0.96 to 1.
        contained: Share of the smaller outline that lies inside the larger: nearly 1 where one is cut off.
        likeness: Share of the variance inside that the other image's intensities explain: 0.2 to 0.9 between the
            modalities of one patient, below 0.2 between patients.
        rough: Whether an outline was told from noise by a threshold.
        beside: Positions of the images that show the same head, where these are at most half of all and so left out.
    """

    overlap: float
    contained: float
    likeness: float
    rough: bool = False
    beside: tuple[int, ...] = ()

    def told(self, n: int, names: Sequence[str], rest: str) -> str:
        """Say what follows the name of the n-th image; the rest is what the others are called if it stands alone."""
        if self.beside:
            rest = " and ".join(name for i, name in enumerate(names) if i not in (n, *self.beside))
        shows = ("show" if self.beside else "shows") if self.differ else "may show"
        return " ".join([*(f"and {names[i]}" for i in self.beside), shows, "another head than", rest])

    @property
    def doubtful(self) -> bool:
        """Whether the outlines differ as those of one patient do not."""
        if self.rough:
            missing = _ROUGH_OUTLINE - self.overlap
            is_alike = self.contained >= _CONTAINED or self.likeness >= _ROUGHLY_ALIKE + missing / 2
            return missing > 0 and not is_alike
        return self.overlap < _SAME_OUTLINE and self.likeness < 2 * self._alike

    @property
    def differ(self) -> bool:
        """Whether these are different heads: the more the outlines differ, the more must be alike inside.

        Of rough outlines that is never certain.
        """
        return (
            not self.rough
            and self.overlap < _SAME_OUTLINE
            and self.contained < _CONTAINED
            and self.likeness < self._alike
        )

    @property
    def _alike(self) -> float:
        return _ALIKE + _STEEPNESS * (_SAME_OUTLINE - self.overlap)


class _Head(NamedTuple):
    voxels: NDArray[np.floating]
    outline: NDArray[np.bool_]
    rough: bool


def match_heads(images: Sequence[NDArray[Any]], *, rough: bool = False) -> list[HeadMatch | None]:
    """Compare each image of a case with the others.

    Args:
        images: All ``(z, y, x)`` of one shape.
        rough: Tell heads from surroundings that are not blank, too, if only roughly.

    Returns:
        Averages over the pairs that an image is part of, the rough ones only where there is no other, and those with
        images of the same head only where these are most of all, so that two patients' halves do not hide each other;
        None where nothing can be said, as the surroundings of a head are not blank, the image has one slice only, or
        there is no other.

    Example:
        >>> ball = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0)
        >>> here = np.where(ball < 10, 20 - ball, 0)
        >>> match_heads([here, here * 3])[0].differ, match_heads([here, np.roll(here, 5, 0)])[0].differ
        (False, True)
    """
    heads = [_head(image, rough=rough) for image in images]
    pairs: dict[tuple[int, int], HeadMatch] = {}
    alike = np.zeros((len(images), len(images)), bool)
    for i, j in itertools.combinations(range(len(images)), 2):
        one, other = heads[i], heads[j]
        match = _match(one, other) if one and other else None
        if match:
            pairs[i, j], alike[i, j] = match, not match.doubtful
    groups = connected_components(alike, directed=False)[1]
    return [_compared(n, pairs, groups) for n in range(len(images))]


def doubts(matches: Sequence[HeadMatch | None]) -> list[tuple[int, HeadMatch]]:
    """Return the doubtful matches with their positions, the least alike first; of groups that differ only one."""
    found = sorted((match.likeness, n, match) for n, match in enumerate(matches) if match and match.doubtful)
    of_groups = [n for _, n, match in found if match.beside]
    return [(n, match) for _, n, match in found if n not in of_groups[1:]]


def partly_shown(images: Sequence[tuple[str, NDArray[Any]]]) -> dict[str, str]:
    """Say which images show only a part of another's head, be it that their field of view ended or that they were cut.

    Args:
        images: Name and voxels ``(z, y, x)`` of each, all of one shape. Those without blank surroundings do not count.

    Returns:
        By name, a line about the other image of which the least is seen.

    Example:
        >>> ball = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0)
        >>> here = np.where(ball < 10, 20 - ball, 0)
        >>> partly_shown([("T1", here), ("T2", np.where(np.arange(24)[:, None, None] < 12, here, 0))])
        {'T2': 'T2 shows nothing in 50% of the head that T1 shows'}
    """
    heads = [(name, head.outline) for name, voxels in images if (head := _head(voxels, rough=False))]
    pairs = itertools.permutations(heads, 2)
    shares = sorted((float(np.mean(one[head])), name, other) for (name, one), (other, head) in pairs)
    parts = [(name, 1 - share, other) for share, name, other in shares[::-1] if share < _PARTLY_SHOWN]
    return {name: f"{name} shows nothing in {part:.0%} of the head that {other} shows" for name, part, other in parts}


def _compared(n: int, pairs: Mapping[tuple[int, int], HeadMatch], groups: Sequence[int]) -> HeadMatch | None:
    own = {sum(pair) - n: match for pair, match in pairs.items() if n in pair}
    if not own:
        return None
    same = tuple(other for other in own if groups[other] == groups[n])
    beside = same if 2 * len(same) < len(own) else ()
    others = [match for other, match in own.items() if other not in beside]
    used = [match for match in others if not match.rough] or others
    overlap, contained, likeness = np.mean([match[:3] for match in used], axis=0).tolist()
    return HeadMatch(overlap, contained, likeness, used[0].rough, beside)


def _head(image: NDArray[Any], *, rough: bool) -> _Head | None:
    """What differs from blank surroundings, or is bright."""
    if min(image.shape) < 2:
        return None
    voxels = image[tuple(slice(None, None, -(-n // _SAMPLES)) for n in image.shape)].astype(np.float32)
    border = np.concatenate([voxels.take((0, -1), axis).ravel() for axis in range(voxels.ndim)])
    rounding = 1e-4 * float(np.ptp(voxels))
    blank = float(np.median(border))
    outline = np.abs(voxels - blank) > rounding
    plain = np.mean(np.abs(border - blank) <= rounding) > _PLAIN_BORDER
    if rough and not plain:
        outline = bright_voxels(voxels)  # what lies outside a field of view may be 0
    return _Head(voxels, outline, not plain) if (plain or rough) and outline.any() else None


def _match(one: _Head, other: _Head) -> HeadMatch | None:
    both = one.outline & other.outline
    n_both, sizes = int(both.sum()), (int(one.outline.sum()), int(other.outline.sum()))
    step = n_both // _MOST_INSIDE + 1
    inside = one.voxels[both][::step], other.voxels[both][::step]
    if n_both and any(voxels.min() == voxels.max() for voxels in inside):
        return None  # such as a mask
    box = tuple(slice(*span) for span in zip(*_common_box(one.outline, other.outline), strict=True))
    in_view = int(one.outline[box].sum()) + int(other.outline[box].sum())
    likeness = max(_explained(*inside), _explained(*inside[::-1])) if n_both > _BINS else 0.0
    return HeadMatch(2 * n_both / max(in_view, 1), n_both / min(sizes), likeness, one.rough or other.rough)


def _common_box(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """First and last + 1 position, along each axis, of where both have something."""
    first, last = [], []
    for axis in range(one.ndim):
        rest = tuple(other_axis for other_axis in range(one.ndim) if other_axis != axis)
        there = [np.flatnonzero(outline.any(rest)) for outline in (one, other)]
        first.append(max(int(t[0]) for t in there))
        last.append(max(first[-1], min(int(t[-1]) for t in there) + 1))
    return first, last


def _explained(voxels: NDArray[np.floating], by: NDArray[np.floating]) -> float:
    """Share of the variance of intensities that the mean over another image's intensities explains."""
    clipped = np.clip(voxels, *np.quantile(voxels, (0.01, 0.99))).astype(float)
    edges = np.quantile(by, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(edges, by)
    means = np.bincount(bins, clipped) / np.maximum(np.bincount(bins), 1)
    total = float(clipped.var())
    return float(np.var(means[bins])) / total if total > 0 else 0.0
