"""A patient's sequences on one grid: that of the finest, or of one that was chosen."""

from collections.abc import Mapping
from typing import NamedTuple

import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.grids import resample_onto, take_grid
from nnunetv2_d2net.base.heads import match_heads
from nnunetv2_d2net.base.images import ROUNDED, Image, ImageError, differences, properties_of
from nnunetv2_d2net.patient.reading import SequenceImage
from nnunetv2_d2net.patient.registration import describe, register

OWN = "its own grid"


class OnOneGrid(NamedTuple):
    """Sequences that lie voxel by voxel on each other.

    Attributes:
        images: By sequence, 32-bit floats.
        reference: The sequence whose grid it is.
        how: How each came onto it, in words.
    """

    images: dict[str, sitk.Image]
    reference: str
    how: dict[str, str]


def on_one_grid(
    sequences: Mapping[str, SequenceImage], reference: str | None = None, *, registered: bool = False
) -> OnOneGrid:
    """Bring sequences onto one grid, linearly, and refuse those that do not show the same head in the same place.

    Args:
        sequences: By name.
        reference: Whose grid; None for that of the finest voxels.
        registered: Register the others rigidly onto it first; else they lie where their headers say.

    Raises:
        UserError: One shows another head than the reference, or lies elsewhere; or there is no such reference.
    """
    if reference is not None and reference not in sequences:
        raise UserError(f"{reference} cannot be the reference, it is absent: choose from {', '.join(sequences)}")
    chosen = reference or _finest(sequences)
    grid = sequences[chosen]
    images, how = {}, {}
    for name, sequence in sequences.items():
        if name == chosen:
            images[name], how[name] = grid.image, OWN
        elif registered:
            images[name], how[name] = _register(sequence, grid)
        else:
            images[name], how[name] = _placed_on(sequence, grid)
    _check_heads(images, chosen, sequences, remedy="see that all are of one patient" if registered else "")
    return OnOneGrid(images, chosen, how)


def _finest(sequences: Mapping[str, SequenceImage]) -> str:
    """The sequence whose voxels' longest edge is the shortest, of several the one of the smallest voxels."""

    def size(name: str) -> tuple[float, ...]:
        edges = sorted((round(edge, 2) for edge in sequences[name].image.GetSpacing()), reverse=True)
        return tuple(edges)

    return min(sequences, key=size)


def _placed_on(one: SequenceImage, grid: SequenceImage) -> tuple[sitk.Image, str]:
    ways = differences(_located(one), _located(grid))
    if not ways:
        return one.image, OWN
    if not differences(_located(one), _located(grid), ROUNDED):
        return take_grid(one.image, grid.image), f"takes the grid of {grid.source}: it differed in {' and '.join(ways)}"
    image = resample_onto(one.image, grid.image, one.source)
    return image, f"resampled onto {grid.source}: it differed in {' and '.join(ways)}"


def _register(one: SequenceImage, grid: SequenceImage) -> tuple[sitk.Image, str]:
    try:
        transform = register(one.image, grid.image)
    except RuntimeError as error:  # ITK's, where the images have too little in common
        remedy = "see that both are of one patient, or leave --register out"
        raise ImageError(one.source, "geometry", f"cannot be registered onto {grid.source}", remedy) from error
    image = resample_onto(one.image, grid.image, one.source, transform)
    return image, f"registered onto {grid.source}: {describe(transform, grid.image)}"


def _located(one: SequenceImage) -> Image:
    return Image(one.file or one.source, one.voxels[None], properties_of(one.image))  # pyright: ignore


def _check_heads(
    images: Mapping[str, sitk.Image], reference: str, sequences: Mapping[str, SequenceImage], remedy: str
) -> None:
    matches = match_heads([sitk.GetArrayViewFromImage(image) for image in images.values()])
    differing = [(match.likeness, name) for name, match in zip(images, matches, strict=True) if match and match.differ]
    if differing:
        _, name = min(differing)
        other = reference if name != reference else next(n for n in images if n != reference)
        raise ImageError(
            sequences[name].source,
            "geometry",
            f"shows another head than {sequences[other].source}, or lies elsewhere in space",
            remedy or "pass --register if both are of one patient",
        )
