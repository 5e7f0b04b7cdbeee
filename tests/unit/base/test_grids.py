import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.grids import resample_onto, take_grid
from nnunetv2_d2net.base.images import ImageError


def ramp(n=8, spacing=1.0, origin=0.0):
    """A volume whose voxels say where they lie along x."""
    x = origin + spacing * np.arange(n)
    image = sitk.GetImageFromArray(np.broadcast_to(x, (4, 4, n)).astype(np.float32))
    image.SetSpacing((spacing, 1.0, 1.0))
    image.SetOrigin((origin, 0.0, 0.0))
    return image


def test_resampling_is_linear_in_space():
    found = resample_onto(ramp(8, 2.0, -1.0), ramp(8, 1.0, 1.0), "a")
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(ramp(8, 1.0, 1.0)))


def test_an_image_keeps_its_type_and_is_0_where_it_does_not_reach():
    image = sitk.Cast(ramp(4, 1.0, 6.0), sitk.sitkInt16)
    found = resample_onto(image, ramp(8), "a")
    assert found.GetPixelID() == sitk.sitkInt16
    assert sitk.GetArrayFromImage(found)[0, 0].tolist() == [0, 0, 0, 0, 0, 0, 6, 7]


@pytest.mark.parametrize(("air", "around"), [(-2.5, -2.5), (3.0, 3.0), (None, 0.0)])
def test_outside_there_is_the_air_of_the_image_or_0_where_that_is_noise(air, around):
    rng = np.random.default_rng(0)
    voxels = rng.normal(0, 1, (8, 8, 8)) if air is None else np.full((8, 8, 8), air)
    voxels[2:6, 2:6, 2:6] = 9
    found = sitk.GetArrayFromImage(resample_onto(sitk.GetImageFromArray(voxels), ramp(30), "a"))
    assert (found[:, :, 8:] == around).all()


def test_a_transform_leads_from_the_grid_to_the_image():
    moved = sitk.TranslationTransform(3, (2.0, 0.0, 0.0))
    found = sitk.GetArrayFromImage(resample_onto(ramp(20), ramp(8), "a", moved))
    assert np.array_equal(found[0, 0], np.arange(8) + 2)


def test_what_lies_elsewhere_is_refused():
    with pytest.raises(ImageError) as error:
        resample_onto(ramp(8, 1.0, 500.0), ramp(), "a.nii")
    assert error.value.kind == "geometry"
    assert str(error.value) == (
        "a.nii does not overlap the case's other images: its header is wrong, or it is of somebody else"
    )
    nothing = ramp(8, 1.0, 500.0) * 0  # of which nothing can be lost
    assert not sitk.GetArrayFromImage(resample_onto(nothing, ramp(), "a.nii")).any()


def test_a_grid_is_taken_with_voxels_as_they_are():
    found = take_grid(ramp(8, 1.0, 0.004), ramp())
    assert found.GetOrigin() == (0, 0, 0)
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(ramp(8, 1.0, 0.004)))
