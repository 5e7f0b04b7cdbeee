import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.report.orientation import read_volume

SPACING = (0.5, 1.0, 4.0)  # x, y, z in mm


@pytest.fixture
def volume():
    """An image in ITK's axes: x to the patient's left, y backward, z up."""
    image = sitk.GetImageFromArray(np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5))
    image.SetSpacing(SPACING)
    return image


@pytest.mark.parametrize("code", ["LPS", "RAS", "RPI", "PIR", "SAL"])
def test_any_storage_is_shown_alike(volume, tmp_path, code):
    sitk.WriteImage(sitk.DICOMOrient(volume, code), str(tmp_path / "a.nii.gz"))
    found = read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(found.channels[0], sitk.GetArrayFromImage(volume))
    assert (found.spacing, found.thickness, found.plane) == ((1.0, 0.5), 4.0, "axial")
    assert found.sides == ("R", "L", "A", "P")


@pytest.mark.parametrize(
    ("axis", "plane", "sides", "spacing"),
    [
        (0, "sagittal", ("A", "P", "S", "I"), (4.0, 1.0)),
        (1, "coronal", ("R", "L", "S", "I"), (4.0, 0.5)),
        (2, "axial", ("R", "L", "A", "P"), (1.0, 0.5)),
    ],
)
def test_a_single_slice_keeps_its_plane(volume, tmp_path, axis, plane, sides, spacing):
    size = list(volume.GetSize())
    size[axis] = 1
    sitk.WriteImage(sitk.RegionOfInterest(volume, size, [0, 0, 0]), str(tmp_path / "a.nii.gz"))
    found = read_volume(tmp_path / "a.nii.gz")
    assert (found.plane, found.sides, found.spacing, found.thickness) == (plane, sides, spacing, SPACING[axis])
    array = sitk.GetArrayFromImage(volume)
    expected = {0: array[::-1, :, 0], 1: array[::-1, 0], 2: array[0]}[axis]  # superior up
    assert np.array_equal(found.channels[0, 0], expected)


def test_a_photograph_has_channels_and_no_sides(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_volume(tmp_path / "a.png")
    assert np.array_equal(found.channels[:, 0], np.moveaxis(pixels, -1, 0))
    assert (found.plane, found.sides) == ("", None)


def test_a_file_without_orientation_names_no_sides(volume, tmp_path):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None), tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz").sides is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.nii\.gz cannot be read"):
        read_volume(tmp_path / "a.nii.gz")
