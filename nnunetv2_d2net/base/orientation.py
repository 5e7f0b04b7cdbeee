"""How an image lies: which way its axes run in the patient, and turning cases by flips and permutations of their axes.

nnU-Net takes voxels in the order of the file, so a network knows patients only the way that its training data lie.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

TURNED = "d2net_turned"
"""Key of a turned case's properties: ``from`` and ``to`` which orientation, and the properties of its ``own`` place."""

UNPLACED = "d2net_unplaced"
"""Key of the properties of a case whose header does not say where the patient's sides are."""

_RAS = np.diag([-1.0, -1.0, 1.0])  # from ITK's patient axes to NIfTI's
_PLACES = ("spacing", "sitk_stuff", "nibabel_stuff")


def orientation_of(properties: Mapping[str, Any]) -> str:
    """Tell to which sides of the patient the voxel axes (x, y, z) run, oblique ones to the nearest.

    Args:
        properties: As nnU-Net's readers give them.

    Returns:
        Three letters; nothing where it is not known, as of pictures and of arrays without a header.

    Example:
        BraTS:

        >>> place = {"spacing": (1, 1, 1), "origin": (0, -239, 0), "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)}
        >>> orientation_of({"spacing": [1, 1, 1], "sitk_stuff": place})
        'LPS'
    """
    affine = _affine_of(properties)
    codes = () if affine is None else aff2axcodes(affine)
    return "".join(codes) if all(codes) else ""  # an axis of no length runs to no side


def turn(voxels: NDArray[Any], one: str, other: str) -> NDArray[Any]:
    """Turn voxels ``(..., z, y, x)`` from one orientation to another, without interpolation.

    Example:
        >>> turn(np.array([[[1, 2, 3]]]), "LPS", "RPS")
        array([[[3, 2, 1]]])
    """
    steps = ornt_transform(axcodes2ornt(one), axcodes2ornt(other))
    return np.ascontiguousarray(apply_orientation(voxels.T, steps).T)  # sums over it come out as over any other array


def turn_place(properties: Mapping[str, Any], shape: tuple[int, ...], other: str) -> dict[str, Any]:
    """Return the properties of a case whose voxels are turned: where the turned grid lies, and the case's own place.

    Args:
        properties: Of the case as it was read, whose orientation is known.
        shape: Of its voxels, (z, y, x).
        other: The orientation to which it is turned.
    """
    one, affine = orientation_of(properties), _affine_of(properties)
    steps = ornt_transform(axcodes2ornt(one), axcodes2ornt(other))
    order = np.argsort(steps[:, 0])  # the axis that each of the turned ones was
    turned = affine @ inv_ornt_aff(steps, shape[::-1])
    place: dict[str, Any] = {"spacing": [properties["spacing"][::-1][axis] for axis in order][::-1]}
    if "sitk_stuff" in properties:
        edges = [properties["sitk_stuff"]["spacing"][axis] for axis in order]
        axes, origin = _RAS @ turned[:3, :3] / edges, _RAS @ turned[:3, 3]
        where = {"spacing": tuple(edges), "origin": tuple(origin.tolist()), "direction": tuple(axes.ravel().tolist())}
        place["sitk_stuff"] = {**properties["sitk_stuff"], **where}
    else:
        place["nibabel_stuff"] = {**properties["nibabel_stuff"], "original_affine": turned}
    own = {key: properties[key] for key in _PLACES if key in properties}
    return {**properties, **place, TURNED: {"from": one, "to": other, "own": own}}


def turned_back(voxels: NDArray[Any], properties: Mapping[str, Any]) -> NDArray[Any]:
    """Return voxels ``(..., z, y, x)`` as they lay before their case was turned, if it was."""
    turned = properties.get(TURNED)
    return turn(voxels, turned["to"], turned["from"]) if turned else voxels


def own_place(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a case with its own place, whether it was turned or not."""
    own = properties.get(TURNED, {}).get("own", {})
    return {key: value for key, value in {**properties, **own}.items() if key != TURNED}


def mixed_line(counts: Mapping[str, int]) -> str:
    """Say that the cases of a cohort lie in several ways, and what to do; nothing where they do not.

    Example:
        >>> mixed_line({"LPS": 20})
        ''
        >>> mixed_line({"": 1, "RAS": 3})[:58]
        'cases lie in several ways (RAS 3, not known 1): nnU-Net tu'
    """
    if len(counts) < 2:
        return ""
    several = ", ".join(f"{name or 'not known'} {counts[name]}" for name in sorted(counts, key=lambda k: -counts[k]))
    return (
        f"cases lie in several ways ({several}): nnU-Net turns none, and a network learns better from one. To "
        'have all read as RAS, write "overwrite_image_reader_writer": "SimpleITKIOWithReorient" into dataset.json, and '
        "plan and preprocess again"
    )


def _affine_of(properties: Mapping[str, Any]) -> NDArray[np.floating] | None:
    """Return the matrix (4, 4) from voxels (x, y, z) to mm of NIfTI's axes; None where the place is not known."""
    itk, nifti = properties.get("sitk_stuff", {}), properties.get("nibabel_stuff", {})
    if properties.get(UNPLACED):
        return None
    if len(itk.get("direction", ())) == 9:
        affine = np.eye(4)
        affine[:3, :3] = _RAS @ np.reshape(itk["direction"], (3, 3)) * itk["spacing"]
        affine[:3, 3] = _RAS @ itk["origin"]
        return affine
    return nifti.get("reoriented_affine", nifti.get("original_affine"))
