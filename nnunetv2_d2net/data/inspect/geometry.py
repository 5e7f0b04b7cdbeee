"""Where the images of one case lie in space, and which of them lie elsewhere."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.data.inspect.record import CaseRecord

_TOLERANCE = 1e-3
"""Largest difference, in mm or as a cosine, that preprocessing accepts, too."""

_REMEDY = "register and resample them onto each other; if only the header is wrong, copy the right one"


class Placed(NamedTuple):
    """An image or a segmentation.

    Attributes:
        file: Where it comes from.
        voxels: ``(z, y, x)``.
        properties: nnU-Net's: spacing, and what its reader keeps.
    """

    file: str
    voxels: NDArray
    properties: dict[str, Any]


def differences(one: Placed, other: Placed) -> list[str]:
    """Say in which ways one lies elsewhere than the other.

    Example:
        >>> here = Placed("a", np.zeros((2, 2, 2)), {"spacing": [1, 1, 1]})
        >>> there = Placed("b", np.zeros((2, 2, 2)), {"spacing": [1, 1, 3]})
        >>> differences(here, there)
        ['spacing (by 2)']
    """
    found = []
    if one.voxels.shape != other.voxels.shape:
        sizes = " and ".join("x".join(map(str, placed.voxels.shape)) for placed in (one, other))
        found.append(f"shape ({sizes} voxels)")
    expected = _numbers(other.properties)
    for what, value in _numbers(one.properties).items():
        if what not in expected or value.shape != expected[what].shape:
            found.append(what)
        elif not (distance := np.abs(value - expected[what]).max(initial=0)) <= _TOLERANCE:
            found.append(f"{what} (by {distance:.4g})")
    return found


def drop_misaligned(images: Mapping[int, Placed], record: CaseRecord, names: list[str]) -> dict[int, Placed]:
    """Note which images lie elsewhere than most of the case's, and return those that lie together.

    Args:
        images: By modality.
        record: Where to note it.
        names: M names of the modalities.
    """
    if not images:
        return {}
    together = {m: [n for n in images if not differences(images[m], images[n])] for m in images}
    reference = max(images, key=lambda m: len(together[m]))  # the first of equals
    for m, image in images.items():
        if m not in together[reference]:
            ways = ", ".join(differences(image, images[reference]))
            record.add("misaligned", image.file, f"{names[m]} differs from {names[reference]} in {ways}", _REMEDY)
    return {m: images[m] for m in together[reference]}


def check_label_place(label: Placed, image: Placed, record: CaseRecord) -> bool:
    """Note if the segmentation lies elsewhere than the images; return whether voxels can be compared."""
    ways = differences(label, image)
    if ways:
        record.add("misaligned", label.file, f"the label differs from the images in {', '.join(ways)}", _REMEDY)
    return label.voxels.shape == image.voxels.shape


def _numbers(properties: Mapping[str, Any]) -> dict[str, NDArray[np.floating]]:
    """Every array of numbers that a reader keeps, by name."""
    numbers: dict[str, NDArray[np.floating]] = {}
    for name, value in properties.items():
        if isinstance(value, dict):
            numbers |= _numbers(value)
        elif isinstance(value, (tuple, list, np.ndarray)):
            numbers["affine matrix" if "affine" in name else name] = np.asarray(value, dtype=float)
    return numbers
