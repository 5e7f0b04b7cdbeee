"""Whether a case is like those that a model was trained on, as far as the training's fingerprint tells."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json

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


def unlike_training(fingerprint: Mapping[str, Any], properties: Mapping[str, Any]) -> list[str]:
    """Say in which ways a case is unlike every training case.

    Args:
        fingerprint: nnU-Net's, of the training data; may be empty.
        properties: nnU-Net's, of the preprocessed case.

    Example:
        >>> trained = {"spacings": [[1, 1, 1]], "shapes_after_crop": [[100, 100, 100]]}
        >>> case = {"spacing": [1, 1, 3], "shape_after_cropping_and_before_resampling": (200, 200, 100)}
        >>> for line in unlike_training(trained, case):
        ...     print(line)
        has voxels of 1 x 1 x 3 mm, the training data of 1 to 1 mm
        fills a box of 12.0 l, the training data 1.0 to 1.0 l: is it skull-stripped, 0 outside and whole, as they were?
    """
    spacings, shapes = fingerprint.get("spacings"), fingerprint.get("shapes_after_crop")
    if not spacings or not shapes:
        return []
    lines, spacing = [], [float(edge) for edge in properties["spacing"]]
    edges = [float(edge) for known in spacings for edge in known]
    if max(spacing) > _SPACING * max(edges) or min(spacing) < min(edges) / _SPACING:
        sizes = " x ".join(f"{edge:.3g}" for edge in spacing)
        lines.append(f"has voxels of {sizes} mm, the training data of {min(edges):.3g} to {max(edges):.3g} mm")
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
