"""Volumes as radiologists look at them: axial slices, the patient's right on the left of the picture."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.damage import check_whole
from nnunetv2_d2net.plugin.preprocessing.reading import last_line

_MEDICAL = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_AXIAL, _CORONAL, _SAGITTAL = 0, 1, 2


class Sides(NamedTuple):
    """What lies at the edges of a picture: R, L, A(nterior), P(osterior), S(uperior) or I(nferior)."""

    left: str
    right: str
    top: str
    bottom: str


_SIDES = {
    _AXIAL: Sides("R", "L", "A", "P"),
    _CORONAL: Sides("R", "L", "S", "I"),
    _SAGITTAL: Sides("A", "P", "S", "I"),
}


class Volume(NamedTuple):
    """Slices, ready to be looked at.

    Attributes:
        channels: ``(C, slices, rows, columns)``.
        spacing: Of rows and columns, in mm; 1 where the file has none.
        thickness: Distance of slices in mm.
        plane: ``axial``, ``coronal``, ``sagittal``, or "" for a picture that lies nowhere in a patient.
        sides: None where the file does not tell.
    """

    channels: NDArray[np.generic]
    spacing: tuple[float, float]
    thickness: float
    plane: str
    sides: Sides | None


def read_volume(path: Path) -> Volume:
    """Read an image and turn its axes to the nearest ones of the patient; voxels are not resampled.

    A single slice keeps its plane, whichever it is.

    Raises:
        UserError: It cannot be read, or has neither two nor three axes.
    """
    try:
        check_whole(str(path))
        image = sitk.ReadImage(str(path))
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({last_line(error)})") from error
    if image.GetDimension() not in (2, 3):
        raise UserError(f"{path} has {image.GetDimension()} axes, not 2 or 3")
    if image.GetDimension() == 2:
        across, down = image.GetSpacing()
        return Volume(_channels(image)[:, None], (down, across), 1.0, "", None)
    placed = _is_placed(path, image)
    if placed:
        image = sitk.DICOMOrient(image, "LPS")
    array, spacing = _channels(image), image.GetSpacing()[::-1]
    plane = _single_plane(array.shape[1:])
    if plane != _AXIAL:
        array = np.moveaxis(array, plane + 1, 1)[:, :, ::-1]  # superior up
        spacing = (spacing[plane], *(mm for axis, mm in enumerate(spacing) if axis != plane))
    return Volume(
        array,
        (spacing[1], spacing[2]),
        spacing[0],
        ("axial", "coronal", "sagittal")[plane] if placed else "",
        _SIDES[plane] if placed else None,
    )


def _channels(image: sitk.Image) -> NDArray[np.generic]:
    array = sitk.GetArrayFromImage(image)
    return array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)


def _is_placed(path: Path, image: sitk.Image) -> bool:
    """Tell whether the file says where the patient's sides are."""
    if not path.name.endswith(_MEDICAL):
        return False
    codes = [image.GetMetaData(key) for key in ("qform_code", "sform_code") if image.HasMetaDataKey(key)]
    return not codes or any(code != "0" for code in codes)


def _single_plane(shape: tuple[int, ...]) -> int:
    """Return the axis across a volume's slices: the one of length 1, if there is just one; else the axial one."""
    single = [axis for axis, n in enumerate(shape) if n == 1]
    return single[0] if len(single) == 1 else _AXIAL
