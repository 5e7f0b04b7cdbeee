"""Turning cases: all 48 orientations, there and back, against SimpleITK's own turning."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from scipy.spatial.transform import Rotation

from nnunetv2_d2net.base.orientation import (
    TURNED,
    UNPLACED,
    mixed_line,
    orientation_of,
    own_place,
    turn,
    turn_place,
    turned_back,
)
from nnunetv2_d2net.base.sides import ORIENTATIONS

OBLIQUE = Rotation.from_euler("xyz", (12, -20, 9), degrees=True).as_matrix()


def lps_image(directions=OBLIQUE):
    """Of different lengths and voxel edges along its axes, which run to the left, back and top."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 99, (4, 5, 3)).astype(np.float32))
    image.SetSpacing((0.9, 1.5, 4.0))
    image.SetOrigin((-3.0, 7.0, 11.0))
    image.SetDirection(directions.ravel().tolist())
    return image


def write(path, orientation, directions=OBLIQUE):
    sitk.WriteImage(sitk.DICOMOrient(lps_image(directions), orientation), str(path))
    return str(path)


def matrix_of(properties):
    place = properties["sitk_stuff"]
    axes = np.reshape(place["direction"], (3, 3)) * place["spacing"]
    return np.column_stack([axes, place["origin"]])


def test_there_are_48_orientations():
    assert len(ORIENTATIONS) == 48
    assert {"LPS", "RAS", "PIR"} < ORIENTATIONS


@pytest.mark.parametrize("one", sorted(ORIENTATIONS))
def test_turning_is_simpleitks_and_turning_back_undoes_it(one, tmp_path):
    """Voxels, spacing and place of an oblique image of any orientation, turned to two others."""
    voxels, properties = SimpleITKIO().read_images([write(tmp_path / "one.nii.gz", one)])
    assert orientation_of(properties) == one
    for other in ("LPS", "SAR"):
        if one == other:
            continue
        expected, place = SimpleITKIO().read_images([write(tmp_path / "other.nii.gz", other)])
        turned, found = turn(voxels, one, other), turn_place(properties, voxels.shape[1:], other)
        np.testing.assert_array_equal(turned, expected)
        assert turned.flags.c_contiguous
        np.testing.assert_allclose(found["spacing"], place["spacing"], atol=1e-6)
        np.testing.assert_allclose(matrix_of(found), matrix_of(place), atol=1e-4)
        assert orientation_of(found) == other
        assert found[TURNED]["from"] == one
        np.testing.assert_array_equal(turned_back(turned, found), voxels)
        np.testing.assert_array_equal(turned_back(turned[0], found), voxels[0])
        assert own_place(found) == properties


@pytest.mark.parametrize("one", ["LPS", "RAS", "PIR"])
def test_nibabels_matrix_says_the_same(one, tmp_path):
    voxels, properties = NibabelIO().read_images([write(tmp_path / "one.nii.gz", one)])
    assert orientation_of(properties) == one
    found = turn_place(properties, voxels.shape[1:], "SAR")
    expected = nibabel.load(write(tmp_path / "other.nii.gz", "SAR"))
    np.testing.assert_allclose(found["nibabel_stuff"]["original_affine"], expected.affine, atol=1e-4)
    np.testing.assert_array_equal(turn(voxels, one, "SAR")[0].T, expected.get_fdata())
    assert own_place(found).keys() == properties.keys()


@pytest.mark.parametrize("reader", [SimpleITKIOWithReorient, NibabelIOWithReorient])
def test_readers_that_turn_give_one_orientation(reader, tmp_path):
    _, properties = reader().read_images([write(tmp_path / "one.nii.gz", "PIR", np.eye(3))])
    assert orientation_of(properties) == "RAS"


def test_where_the_orientation_is_not_known(tmp_path):
    _, known = SimpleITKIO().read_images([write(tmp_path / "one.nii.gz", "LPS")])
    sitk.WriteImage(sitk.Image(4, 5, sitk.sitkUInt8), str(tmp_path / "flat.nii.gz"))
    _, flat = SimpleITKIO().read_images([str(tmp_path / "flat.nii.gz")])
    for properties in ({"spacing": [1, 1, 1]}, flat, known | {UNPLACED: True}):
        assert not orientation_of(properties)
        assert own_place(properties) == properties
    assert not orientation_of({"nibabel_stuff": {"original_affine": np.diag([1.0, 0, 3, 1])}})
    voxels = np.zeros((2, 2, 2))
    assert turned_back(voxels, known) is voxels


def test_a_cohort_that_lies_in_several_ways_is_one_line_with_its_counts_and_the_remedy():
    assert mixed_line({"": 4, "RAS": 3, "LPS": 20}) == (
        "cases lie in several ways (LPS 20, not known 4, RAS 3): nnU-Net turns none, and a network learns better from "
        'one. To have all read as RAS, write "overwrite_image_reader_writer": "SimpleITKIOWithReorient" into '
        "dataset.json, and plan and preprocess again"
    )
    assert mixed_line({"RAS": 1, "LPS": 1}).startswith("cases lie in several ways (RAS 1, LPS 1): ")
    assert mixed_line({"RAS": 3}) == mixed_line({}) == ""
