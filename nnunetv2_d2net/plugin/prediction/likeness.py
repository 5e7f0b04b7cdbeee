"""Whether a case is like those that a model was trained on, as far as the training's fingerprint tells."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.appearance import APPEARANCE, CohortAppearance, appearance_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json

LOOKS = "unlike_training"
"""Key of nnU-Net's case properties under which travels how a case looks like no training case, a line for each way."""

_SPACING = 1.5  # times the coarsest, or below the finest, of the training data
_LARGER, _SMALLER = 1.5, 2.0  # times the largest, or below the smallest, box around what is not 0


def read_fingerprint(model: Path) -> dict[str, Any]:
    """Return what nnU-Net has measured in the training data; empty where the model's folder does not have it whole."""
    try:
        content = read_json(model / "dataset_fingerprint.json", "", {"spacings": list, "shapes_after_crop": list})
        rows = [[float(n) for n in row] for key in ("spacings", "shapes_after_crop") for row in content[key]]
    except (UserError, TypeError, ValueError):
        return {}
    return content if all(rows) else {}


def compared_with_training(fingerprint: Mapping[str, Any], cohort: CohortAppearance | None) -> list[str]:
    """Name what can be compared with the training data: nothing where nobody noted anything about them."""
    head = "head and background" if cohort else "field of view"
    modalities = ["looks of the modalities"] if cohort and cohort.tells_modalities else []
    return ["voxel size", head, *modalities] if fingerprint else []


def read_appearance(fingerprint: Mapping[str, Any]) -> CohortAppearance | None:
    """Return what the training cases look like; None where their fingerprint does not say it, as nnU-Net's own."""
    try:
        return CohortAppearance.from_json(fingerprint[APPEARANCE])
    except (KeyError, TypeError, ValueError):
        return None


def looks_unlike(
    cohort: CohortAppearance | None,
    images: NDArray[np.floating],
    available: Sequence[bool],
    spacing: Sequence[float],
    names: Sequence[str],
    *,
    masked: bool = False,
) -> dict[str, list[str]]:
    """Say how a case looks like no training case, as properties to travel with it; none where nothing is known.

    Args:
        cohort: The training cases.
        images: ``(M, z, y, x)``, before preprocessing.
        available: M flags.
        spacing: In mm, (z, y, x).
        names: M names.
        masked: The training data are normalized where they are not 0, so 0 is their background.
    """
    if cohort is None:
        return {}
    case = appearance_of(images, available, spacing)
    if case.features.shape != cohort.reference[0].shape:  # of another version
        return {}
    lines = cohort.doubts(case, names)
    grounds = {names[m]: float(images[m].flat[0]) for m in np.flatnonzero(available).tolist()}
    if masked and case.plain and any(grounds.values()):
        told = " and ".join(f"{name} of {value:g}" for name, value in grounds.items() if value)
        lines.append(f"has a background in {told}, the training data of 0: write 0 outside the head")
    return {LOOKS: lines}


def unlike_training(fingerprint: Mapping[str, Any], properties: Mapping[str, Any], finest: float = 0.0) -> list[str]:
    """Say in which ways a case is unlike every training case.

    Args:
        fingerprint: nnU-Net's, of the training data; may be empty.
        properties: nnU-Net's, of the preprocessed case, with what :func:`looks_unlike` gave. Where it gave nothing, the
            box around what is not 0 is compared.
        finest: Shortest edge of a voxel that the network sees, in mm: finer ones it never sees.

    Example:
        >>> trained = {"spacings": [[1, 1, 1]], "shapes_after_crop": [[100, 100, 100]]}
        >>> case = {"spacing": [1, 1, 3], "shape_after_cropping_and_before_resampling": (200, 200, 100)}
        >>> for line in unlike_training(trained, case):
        ...     print(line)
        has voxels of 1 x 1 x 3 mm, the training data of 1 mm
        fills a box of 12.0 l, the training data 1.0 to 1.0 l: is it skull-stripped, 0 outside and whole, as they were?
    """
    spacings, shapes = fingerprint.get("spacings"), fingerprint.get("shapes_after_crop")
    if not spacings or not shapes:
        return []
    lines, spacing = [], [float(edge) for edge in properties["spacing"]]
    edges = [float(edge) for known in spacings for edge in known]
    if max(spacing) > _SPACING * max(edges) or max(finest, min(spacing)) < min(edges) / _SPACING:
        sizes = " x ".join(f"{edge:.3g}" for edge in spacing)
        known = " to ".join(dict.fromkeys(f"{edge:.3g}" for edge in (min(edges), max(edges))))
        lines.append(f"has voxels of {sizes} mm, the training data of {known} mm")
    if LOOKS in properties:
        return [*lines, *properties[LOOKS]]
    boxes = [_liters(shape, known) for shape, known in zip(shapes, spacings, strict=False)]
    box = _liters(properties["shape_after_cropping_and_before_resampling"], spacing)
    if box > _LARGER * max(boxes) or box < min(boxes) / _SMALLER:
        lines.append(
            f"fills a box of {box:.1f} l, the training data {min(boxes):.1f} to {max(boxes):.1f} l: is it "
            "skull-stripped, 0 outside and whole, as they were?"
        )
    return lines


def _liters(shape: Any, spacing: Any) -> float:  # noqa: ANN401 - rows of JSON
    return math.prod(map(float, shape)) * math.prod(map(float, spacing)) / 1e6
