"""What a NIfTI header says about an image's place, and whether it can be believed.

A header states voxel sizes, a unit and up to two affine matrices, qform and sform. Programs read one of them, so a file
whose statements disagree lies elsewhere for some readers.
"""

import math

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

PLAUSIBLE_MM = (0.05, 20.0)
"""Smallest and largest edge of a voxel that an image of a patient has."""

NOT_KNOWN = "where left, right, front and back are is not known"
"""How the note ends on a header that does not say it."""

_SAME = 0.01
"""Share by which two statements of a voxel size may differ, and mm by which two matrices may."""

_SCALES = {1: 1000.0, 3: 0.001}
_UNITS = {1: "meter", 2: "millimeter", 3: "micrometer"}


class HeaderError(Exception):
    """A header that leaves an image's place unknown.

    Attributes:
        reason: What is wrong with it.
        remedy: What to do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def check_header(header: Nifti1Header) -> list[str]:
    """Say what is odd about a header, each in a few words that follow a file's name.

    Args:
        header: As it is in the file, unchecked.

    Raises:
        HeaderError: The place or the size of voxels, where they begin in the file or how they are scaled is unknown.
    """
    dim = [int(n) for n in header["dim"]]
    _check_encoding(header)
    axes = [axis for axis in range(min(dim[0], 3)) if dim[axis + 1] > 1]
    sizes = np.array(header["pixdim"][1:4], float)
    forms = _forms(header)
    _check_place(forms, sizes, axes)
    notes = _notes_on_forms(forms, np.abs(sizes), dim, axes)
    if not forms and len(axes) == 3:
        notes.append(f"has neither qform nor sform: {NOT_KNOWN}")
    edges = _edges(forms, np.abs(sizes))[axes] * _SCALES.get(_unit(header), 1.0)
    if len(axes) == 3 and not all(PLAUSIBLE_MM[0] <= edge <= PLAUSIBLE_MM[1] for edge in edges):
        what = f"has voxels of {_sizes(edges)} mm"
        if _unit(header) in _SCALES:
            unit = _UNITS[_unit(header)]
            raise HeaderError(f"{what}, because its unit is the {unit}", "set its unit to millimeters (xyzt_units 2)")
        notes.append(f"{what}, as no patient's image has")
    return notes


def _check_encoding(header: Nifti1Header) -> None:
    """Refuse headers from which programs read different voxels."""
    begin, (slope, inter) = float(header["vox_offset"]), (float(header[f"scl_{name}"]) for name in ("slope", "inter"))
    is_scaled = slope != 0 and math.isfinite(slope)  # all programs take an infinite one as none
    is_clear = math.isfinite(inter) if is_scaled else inter == 0 or math.isnan(inter)
    problem = "" if is_clear else f"has an scl_slope of {slope:g} and an scl_inter of {inter:g}"
    if bytes(header["magic"].item()).startswith(b"n+") and not begin >= header.single_vox_offset:
        problem = f"says that its voxels begin at byte {begin:g}, within its header"
    if problem:
        raise HeaderError(f"{problem}, of which programs make different voxels", "write it anew from its source")


def _check_place(forms: dict[str, NDArray[np.floating]], sizes: NDArray[np.floating], axes: list[int]) -> None:
    """Refuse headers that leave the place or the size of voxels unknown."""
    for name, form in forms.items():
        if not np.isfinite(form).all():
            raise HeaderError(f"has a {name} that holds NaN or infinity, so its place is lost", "write it anew")
    edges = _edges(forms, np.abs(sizes))[axes]
    if any(edge == 0 or not math.isfinite(edge) for edge in edges):
        without = "" if forms else " and neither qform nor sform"
        raise HeaderError(
            f"has voxels of {_sizes(edges)} mm{without}, so its spacing is lost",
            "write the right spacing into its header",
        )
    if any(sizes[axis] < 0 for axis in axes):
        raise HeaderError(
            f"has negative voxel sizes ({_sizes(sizes[axes])} mm), for which some programs mirror the image",
            "write it anew with nibabel, which takes them as positive (nibabel.load(...).to_filename(...))",
        )


def tells_sides(header: Nifti1Header) -> bool:
    """Tell whether a header says where the patient's sides are: it declares at least one matrix."""
    return bool(_forms(header))


def second_place(header: Nifti1Header) -> dict[str, NDArray[np.floating]]:
    """Return both matrices (4, 4) of a header whose qform and sform disagree; nothing where they do not."""
    forms, dim = _forms(header), [int(n) for n in header["dim"]]
    return forms if len(forms) == 2 and _distance(forms["qform"], forms["sform"], dim) > _SAME else {}


def shear_of(header: Nifti1Header) -> float:
    """Return by how many degrees the axes of a header's matrix miss right angles, at most; 0 without a matrix."""
    worst = 0.0
    for affine in _forms(header).values():
        columns = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
        cosine = np.abs(columns.T @ columns - np.eye(3)).max()
        worst = max(worst, math.degrees(math.asin(min(1.0, float(cosine)))))
    return worst


def _forms(header: Nifti1Header) -> dict[str, NDArray[np.floating]]:
    """The matrices (4, 4) that the header declares."""
    forms: dict[str, NDArray[np.floating]] = {}
    if int(header["qform_code"]) > 0:
        positive = header.copy()
        positive["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
        positive["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # older files have 0
        forms["qform"] = np.asarray(positive.get_qform(), float)
    if int(header["sform_code"]) > 0:
        forms["sform"] = np.asarray(header.get_sform(), float)
    return forms


def _notes_on_forms(
    forms: dict[str, NDArray[np.floating]], sizes: NDArray[np.floating], dim: list[int], axes: list[int]
) -> list[str]:
    if len(forms) == 2:
        distance = _distance(forms["qform"], forms["sform"], dim)
        return [f"has a qform and an sform that differ by {distance:.3g} mm"] if distance > _SAME else []
    if "sform" in forms:
        edges = np.linalg.norm(forms["sform"][:3, :3], axis=0)
        if not np.allclose(edges[axes], sizes[axes], rtol=_SAME, atol=0):
            read, other = _sizes(sizes[axes]), _sizes(edges[axes])
            return [f"has voxels of {read} mm by pixdim, which is read, and {other} mm by its sform"]
    return []


def _distance(one: NDArray[np.floating], other: NDArray[np.floating], dim: list[int]) -> float:
    """How far apart two matrices put a corner of the image, at most, in mm."""
    ends = [(0, max(n - 1, 0)) for n in dim[1:4]]
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1)
    moved = (one - other) @ np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(moved, axis=0).max())


def _edges(forms: dict[str, NDArray[np.floating]], sizes: NDArray[np.floating]) -> NDArray[np.floating]:
    form = next(iter(forms.values()), None)
    return sizes if form is None else np.linalg.norm(form[:3, :3], axis=0)


def _unit(header: Nifti1Header) -> int:
    return int(header["xyzt_units"]) & 7


def _sizes(edges: NDArray[np.floating]) -> str:
    return " x ".join(f"{round(float(edge), 4):g}" for edge in edges)
