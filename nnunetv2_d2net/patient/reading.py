"""One sequence as an image, wherever it comes from: a file, a DICOM series, SimpleITK, an array with its affine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.base.dicom import Series, find_series, is_dicom, read_series, series_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.headers import PLAUSIBLE_MM
from nnunetv2_d2net.base.images import (
    ImageError,
    check_axes,
    is_constant,
    is_placed,
    not_finite,
    notes_of,
    odd_values,
    read_sitk,
)
from nnunetv2_d2net.patient.identity import check_one_patient

Source = str | Path | Series | sitk.Image | tuple[NDArray[Any], NDArray[Any]]
"""A file, a folder of one DICOM series or one of its slices, an image, or an array ``(x, y, z)`` and its affine as
nibabel has them: 4 x 4, in mm, toward right, anterior, superior."""

IN_MEMORY = "an image in memory"
_FLOAT = sitk.sitkFloat32
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


class SequenceImage(NamedTuple):
    """One sequence of a patient.

    Attributes:
        image: Of three axes and one value a voxel, 32-bit floats.
        source: Where it comes from, in words.
        file: Of which it is the whole content; None for a series, or in memory.
        notes: What is odd about its header, each in a few words.
        placed: Whether its header says where the patient's sides are.
    """

    image: sitk.Image
    source: str
    file: Path | None = None
    notes: tuple[str, ...] = ()
    placed: bool = True

    @property
    def voxels(self) -> NDArray[np.float32]:
        """Read-only, ``(z, y, x)``."""
        return sitk.GetArrayViewFromImage(self.image)


def read_sequences(images: Mapping[str, Source]) -> tuple[dict[str, SequenceImage], list[str]]:
    """Read a patient's sequences.

    Args:
        images: Where each comes from, by name.

    Returns:
        The sequences, and a line for each that has no content and counts as absent.

    Raises:
        UserError: One cannot be used, or none has any content, or DICOM series are of two patients.
    """
    found = {name: _found(source, name) for name, source in images.items()}
    check_one_patient([source for source in found.values() if isinstance(source, Series)])
    read = {name: read_sequence(source, name) for name, source in found.items()}
    real = {name: sequence for name, sequence in read.items() if not is_constant(sequence.voxels)}
    constant = [f"{read[name].source} is constant: {name} counts as absent" for name in read if name not in real]
    if not real:
        raise UserError(f"{'; '.join(constant) or 'no image is given'}: pass at least one real image")
    return real, constant


def read_sequence(source: Source, name: str) -> SequenceImage:
    """Read one sequence.

    Args:
        source: Where it comes from.
        name: Of the sequence, for messages.

    Raises:
        UserError: It is not there, cannot be read, is no volume, holds NaN or complex numbers, or has voxels that no
            patient's image has.
    """
    if isinstance(source, sitk.Image):
        return _checked(source, f"{name}, {IN_MEMORY}")
    if isinstance(source, tuple) and not isinstance(source, Series):
        return _checked(_image_of(name, *source), f"{name}, {IN_MEMORY}")
    found = _found(source, name)
    if isinstance(found, Series):
        return _checked(read_series(found), str(found))
    image = read_sitk(Path(str(source)))
    return _checked(image, str(source), Path(str(source)))


def _found(source: Source, name: str) -> Source:
    """Return the series of a slice, or the one that a folder holds; any other source as it is."""
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if path.is_dir():
        found = find_series(sorted(p for p in path.iterdir() if p.is_file()))
        if len(found) != 1:
            what = "; ".join(map(str, found)) if found else "no DICOM"
            raise UserError(f"{path} holds not one series but {what}: pass a file of the one that is {name}")
        return found[0]
    return series_of(path) if path.is_file() and is_dicom(path) else source


def _checked(image: sitk.Image, source: str, file: Path | None = None) -> SequenceImage:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    _check_gray(image, file or source)
    is_vector = image.GetPixelIDTypeAsString().startswith("vector")  # of one value
    floats = sitk.VectorIndexSelectionCast(image, 0, _FLOAT) if is_vector else sitk.Cast(image, _FLOAT)
    voxels = sitk.GetArrayViewFromImage(floats)
    if not np.isfinite(voxels).all():
        raise not_finite(file or source)
    n_filled = [np.any(voxels, axis=axes).sum() for axes in ((1, 2), (0, 2), (0, 1))]
    if any(n == 1 < size for n, size in zip(n_filled, voxels.shape, strict=True)):
        raise ImageError(file or source, "shape", "is 0 but for one slice", "write it whole, or leave it out")
    notes = dict.fromkeys((*notes_of(image), *odd_values(file or source, voxels)))
    return SequenceImage(floats, source, file, tuple(notes), is_placed(image))


def _check_gray(image: sitk.Image, file: Path | str) -> None:
    values, size = image.GetNumberOfComponentsPerPixel(), " x ".join(map(str, image.GetSize()))
    if image.GetDimension() != 3 or values != 1:
        what = f"holds {size} voxels" + (f" of {values} values" if values > 1 else "")
        raise ImageError(file, "shape", what, "pass one gray volume of three axes")
    if image.GetPixelIDTypeAsString().startswith("complex"):
        raise ImageError(file, "shape", "holds complex numbers", "write its magnitude")
    check_axes(file, image.GetDirection())
    if not PLAUSIBLE_MM[0] <= min(image.GetSpacing()) <= max(image.GetSpacing()) <= PLAUSIBLE_MM[1]:
        edges = " x ".join(f"{edge:g}" for edge in image.GetSpacing())
        what = f"has voxels of {edges} mm, as no patient's image has"
        raise ImageError(file, "header", what, "write the right spacing into its header, in mm")


def array_of(image: sitk.Image) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an image's voxels ``(x, y, z)`` and their affine, as nibabel has them."""
    affine = np.eye(4)
    affine[:3, :3] = _TO_LPS @ (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())
    affine[:3, 3] = _TO_LPS @ image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, affine


def _image_of(name: str, array: NDArray[Any], affine: NDArray[Any]) -> sitk.Image:
    matrix = np.asarray(affine, float)
    if np.ndim(array) != 3 or matrix.shape != (4, 4):
        shapes = f"{np.shape(array)} and {matrix.shape}"
        raise UserError(f"{name}: an array and an affine of shapes {shapes}: pass (x, y, z) and 4 x 4")
    edges = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or not edges.all():
        raise UserError(f"{name}: its affine has an axis of no length: pass that of the image's file")
    kind = np.complex64 if np.iscomplexobj(array) else np.float32
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(array, kind).T))
    image.SetSpacing(edges.tolist())
    image.SetOrigin((_TO_LPS @ matrix[:3, 3]).tolist())
    image.SetDirection((_TO_LPS @ (matrix[:3, :3] / edges)).ravel().tolist())
    return image
