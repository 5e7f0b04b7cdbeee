"""A patient's sequences on one grid: that of the finest which covers the head, or of one that was chosen."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.grids import resample_onto, take_grid
from nnunetv2_d2net.base.heads import doubts, match_heads, partly_shown
from nnunetv2_d2net.base.images import ROUNDED, Image, ImageError, differences, properties_of
from nnunetv2_d2net.patient.coverage import Covered, centered, coverage, head_points
from nnunetv2_d2net.patient.reading import SequenceImage
from nnunetv2_d2net.patient.registration import describe, register

OWN = "its own grid"
_REGISTER = "pass --register if both are of one patient"

_NEARLY = 0.95
"""Share of the largest coverage from which on a sequence may give the grid."""

_CLEARLY_LESS = 0.9
"""Coverage of a head below which it is told; stacks that miss its last 15 mm at one end have 0.94 to 1."""

_SCRAP = 0.1
"""Below which it is refused: a few slices, the rest of which a network would take for dark tissue."""


class OnOneGrid(NamedTuple):
    """Sequences that lie voxel by voxel on each other.

    Attributes:
        images: By sequence, 32-bit floats.
        reference: The sequence whose grid it is.
        how: How each came onto it, in words.
        remarks: Which sequences cover only a part of the head, a line each.
    """

    images: dict[str, sitk.Image]
    reference: str
    how: dict[str, str]
    remarks: tuple[str, ...] = ()


def on_one_grid(
    sequences: Mapping[str, SequenceImage], reference: str | None = None, *, registered: bool = False
) -> OnOneGrid:
    """Bring sequences onto one grid, linearly, and refuse those that do not show the same head in the same place.

    Args:
        sequences: By name.
        reference: Whose grid; None for that of the finest voxels, among the sequences that cover the head.
        registered: Register the others rigidly onto it first; else they lie where their headers say.

    Raises:
        UserError: One shows another head than the reference, next to nothing of it, or lies elsewhere; or there is no
            such reference.
    """
    if reference is not None and reference not in sequences:
        raise UserError(f"{reference} cannot be the reference, it is absent: choose from {', '.join(sequences)}")
    own = {name: sequence.image for name, sequence in sequences.items()}
    heads = {name: head_points(image) for name, image in own.items()}
    frames = {name: centered(heads[name]) if registered else sitk.Transform() for name in own}
    chosen = reference or _finest(own, coverage(own, heads, frames))
    grid = sequences[chosen]
    images, how, frames = {}, {}, dict.fromkeys(own, sitk.Transform())
    for name, sequence in sequences.items():
        if name == chosen:
            images[name], how[name] = grid.image, OWN
        elif registered:
            images[name], how[name], frames[name] = _register(sequence, grid)
        else:
            images[name], how[name] = _placed_on(sequence, grid)
    lines = _check_heads(images, chosen, sequences, "see that all are of one patient" if registered else _REGISTER)
    shown = partly_shown([(name, sitk.GetArrayViewFromImage(image)) for name, image in images.items()])
    told = shown.keys() - {chosen}
    return OnOneGrid(images, chosen, how, (*lines, *_partial(sequences, chosen, coverage(own, heads, frames), told)))


def _finest(images: Mapping[str, sitk.Image], covered: Mapping[str, Covered]) -> str:
    """Of the sequences that cover the head, the one whose voxels' longest edge is the shortest, then the largest."""
    enough = _NEARLY * max(share for share, _ in covered.values())

    def size(name: str) -> tuple[float, ...]:
        edges = sorted((round(edge, 2) for edge in images[name].GetSpacing()), reverse=True)
        return *edges, -images[name].GetNumberOfPixels()

    return min((name for name in images if covered[name].share >= enough), key=size)


def _partial(
    sequences: Mapping[str, SequenceImage], reference: str, covered: Mapping[str, Covered], told: Collection[str]
) -> list[str]:
    """Say which sequences cover only a part of the head, and refuse those that show next to nothing of it.

    Those told are the ones whose blank part the prediction tells, as it does of any image.
    """
    lines = []
    for name, (share, other) in covered.items():
        what = f"covers only {share:.0%} of the head that {other} shows"
        remedy = f"pass the whole of it, or leave {name} out"
        if share < _SCRAP:
            raise ImageError(sequences[name].source, "geometry", what, remedy)
        if share < _CLEARLY_LESS and name not in told:
            rest = "the segmentation reaches no further" if name == reference else "beyond it tumor may be missed"
            lines.append(f"{name} {what}, and {rest}: {remedy}")
    return lines


def _placed_on(one: SequenceImage, grid: SequenceImage) -> tuple[sitk.Image, str]:
    ways = differences(_located(one), _located(grid))
    if not ways:
        return one.image, OWN
    if not differences(_located(one), _located(grid), ROUNDED):
        return take_grid(one.image, grid.image), f"takes the grid of {grid.source}: it differed in {' and '.join(ways)}"
    image = resample_onto(one.image, grid.image, one.source)
    return image, f"resampled onto {grid.source}: it differed in {' and '.join(ways)}"


def _register(one: SequenceImage, grid: SequenceImage) -> tuple[sitk.Image, str, sitk.Transform]:
    try:
        transform = register(one.image, grid.image)
    except RuntimeError as error:  # ITK's, where the images have too little in common
        remedy = "see that both are of one patient, or leave --register out"
        raise ImageError(one.source, "geometry", f"cannot be registered onto {grid.source}", remedy) from error
    image = resample_onto(one.image, grid.image, one.source, transform)
    return image, f"registered onto {grid.source}: {describe(transform, grid.image)}", transform


def _located(one: SequenceImage) -> Image:
    return Image(one.file or one.source, one.voxels[None], properties_of(one.image))  # pyright: ignore


def _check_heads(
    images: Mapping[str, sitk.Image], reference: str, sequences: Mapping[str, SequenceImage], remedy: str
) -> list[str]:
    """Refuse sequences that show another head; say where it is only likely, or nothing is known."""
    found = match_heads([sitk.GetArrayViewFromImage(image) for image in images.values()], rough=True)
    names, lines = list(images), []
    sources = [str(sequences[name].source) for name in names]
    for n, match in doubts(found):
        other = names.index(reference) if names[n] != reference else int(n == 0)
        if match.differ:
            verb = "lie" if match.beside else "lies"
            what = f"{match.told(n, sources, sources[other])}, or {verb} elsewhere in space"
            raise ImageError(sequences[names[n]].source, "geometry", what, remedy)
        if match.rough and not lines:
            outlines = f"their outlines overlap by {match.overlap:.0%}"
            lines = [f"{names[n]} {match.told(n, names, names[other])}, or lie elsewhere ({outlines}): {remedy}"]
    unknown = [name for name, match in zip(names, found, strict=True) if not match and len(images) > 1]
    if unknown:
        lines.append(f"it was not checked that the head in {' and '.join(unknown)} is that of the others")
    return lines
