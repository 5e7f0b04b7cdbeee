import re

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import ImageError
from nnunetv2_d2net.patient.coverage import coverage, head_points
from nnunetv2_d2net.patient.grid import OWN, on_one_grid
from nnunetv2_d2net.patient.reading import read_sequences
from tests.one_patient import draw_patient


def placed(images, reference=None, **options):
    return on_one_grid(read_sequences(images)[0], reference, **options)


def voxels(image):
    return sitk.GetArrayFromImage(image)


def on_grid_of(image, spacing, size):
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing, image.GetDirection()
    )


def test_images_on_one_grid_stay_as_they_are(patient):
    found = placed(patient)
    assert found.reference == "FLAIR"
    assert set(found.how.values()) == {OWN}
    for name, image in patient.items():
        assert np.array_equal(voxels(found.images[name]), voxels(image))


def test_the_finest_grid_is_taken_or_the_chosen_one(patient):
    fine = on_grid_of(patient["T1"], (3.0, 3.0, 5.0), (44, 48, 24))
    thick = on_grid_of(patient["T2"], (1.0, 1.0, 12.0), (132, 144, 10))
    images = {"FLAIR": patient["FLAIR"], "T1": fine, "T2": thick}
    found = placed(images)
    assert found.reference == "T1"
    assert {image.GetSize() for image in found.images.values()} == {fine.GetSize()}
    assert found.how["T2"].startswith("resampled onto T1, an image in memory: it differed in shape")
    expected = patient["FLAIR"][patient["FLAIR"].TransformPhysicalPointToIndex((6.0, 8.0, 20.0))]
    assert found.images["FLAIR"][fine.TransformPhysicalPointToIndex((6.0, 8.0, 20.0))] == pytest.approx(expected, 0.01)
    assert placed(images, "FLAIR").images["T1"].GetSize() == patient["FLAIR"].GetSize()
    with pytest.raises(UserError, match="T1ce cannot be the reference, it is absent: choose from FLAIR, T1, T2"):
        placed(images, "T1ce")


def test_orientations_do_not_matter(patient):
    other = patient | {"T1": sitk.DICOMOrient(patient["T1"], "RAS"), "T2": sitk.DICOMOrient(patient["T2"], "PIR")}
    found = placed(other)
    for name, image in patient.items():
        assert np.allclose(voxels(found.images[name]), voxels(image), atol=1e-3)


def test_a_rounded_header_is_no_other_grid(patient):
    origin = patient["T1"].GetOrigin()
    patient["T1"].SetOrigin((origin[0] + 0.004, *origin[1:]))
    found = placed(patient)
    assert found.how["T1"].startswith("takes the grid of FLAIR")
    assert np.array_equal(voxels(found.images["T1"]), voxels(patient["T1"]))


def test_another_head_is_refused_unless_it_is_registered():
    shape = (40, 48, 44)
    patient = draw_patient(shape, (3.0, 3.0, 3.0), ("FLAIR", "T1"))
    moved = sitk.Euler3DTransform((0, 0, 20), 0.0, 0.0, 0.2, (24.0, 14.0, 0.0))
    turned = sitk.Resample(patient["T1"], patient["T1"], moved, sitk.sitkLinear, 0.0)
    images = {"FLAIR": patient["FLAIR"], "T1": turned}
    with pytest.raises(ImageError, match=r"shows another head than .*, or lies elsewhere in space: pass --register"):
        placed(images)
    found = placed(images, registered=True)
    assert found.how["T1"].startswith("registered onto FLAIR, an image in memory: turned by 11")
    ours, theirs = voxels(found.images["T1"]) > 250, voxels(patient["T1"]) > 250
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.95


def test_what_lies_elsewhere_altogether_is_refused(patient):
    patient["T1"].SetOrigin((5000.0, 0.0, 0.0))
    with pytest.raises(ImageError, match="T1, an image in memory does not overlap"):
        placed(patient)


def test_another_head_in_noise_is_told():
    images = draw_patient((40, 48, 44), (3.0, 3.0, 3.0), ("FLAIR", "T1"), skull=True)
    assert placed(images).remarks == ()
    small = images["T1"][3:41, 3:45, 2:38]  # whose surroundings are noise within, and 0 outside its field of view
    assert placed(images | {"T1": small}).remarks == ()
    images["T1"].SetOrigin((-30.0, -70.0, -40.0))
    (line,) = [line for line in placed(images).remarks if "covers" not in line]
    pattern = (
        r"(FLAIR|T1) may show another head than (FLAIR|T1), or lie elsewhere \(their .* \d\d%\): pass --register .*"
    )
    assert re.fullmatch(pattern, line)


def test_what_was_not_checked_is_told_once(patient):
    mask = sitk.Cast(patient["T1"] > 0, sitk.sitkFloat32)
    assert placed(patient | {"T1": mask}).remarks == ("it was not checked that the head in T1 is that of the others",)
    assert placed({"T1": mask}).remarks == ()


def cut(image, first, last):
    return image[:, :, first:last]


def test_a_cropped_sequence_gives_no_grid_and_is_told(patient):
    half = patient | {"FLAIR": cut(patient["FLAIR"], 0, 10)}
    found = placed(half)
    assert (found.reference, found.images["FLAIR"].GetDepth()) == ("T1", 20)
    assert found.remarks == ()  # the prediction tells what is blank
    chosen = placed(half, "FLAIR")
    assert chosen.reference == "FLAIR"
    told, _, rest = chosen.remarks[0].partition(", and ")
    assert re.fullmatch(r"FLAIR covers only (4|5)\d% of the head that T1\w* shows", told)
    assert rest == "the segmentation reaches no further: pass the whole of it, or leave FLAIR out"
    assert placed(half, registered=True).reference == "T1"


def test_a_cropped_sequence_in_noise_is_told():
    images = draw_patient((40, 48, 44), (3.0, 3.0, 3.0), ("FLAIR", "T1"), skull=True)
    found = placed(images | {"FLAIR": cut(images["FLAIR"], 0, 20)})
    (line,) = [line for line in found.remarks if "covers" in line]
    assert re.fullmatch(
        r"FLAIR covers only \d\d% of the head that T1 shows, and beyond it tumor may be missed: .*", line
    )


def test_a_finer_slab_gives_no_grid(patient):
    slab = on_grid_of(cut(patient["T2"], 6, 12), (3.0, 3.0, 3.0), (44, 48, 12))
    found = placed(patient | {"T2": slab})
    assert found.reference == "FLAIR"
    assert not found.remarks  # the prediction tells what is blank


@pytest.mark.parametrize("first", [1, 2])
def test_slices_that_miss_hardly_anything_are_not_told(patient, first):
    assert placed(patient | {"T1": cut(patient["T1"], first, 20)}).remarks == ()


def test_of_two_alike_the_larger_field_gives_the_grid(patient):
    assert placed(patient | {"FLAIR": cut(patient["FLAIR"], 1, 20)}).reference == "T1"


def test_a_single_slice_is_refused(patient):
    one = patient | {"T1ce": cut(patient["T1ce"], 14, 15)}
    for reference in (None, "T1ce"):
        with pytest.raises(ImageError, match=r"T1ce, .* covers only \d% of the head that .*: pass the whole of it, or"):
            placed(one, reference)


def test_a_neck_that_one_sequence_shows_is_no_loss(patient):
    neck = np.zeros((50, 24, 22), np.float32)
    neck[30:] = voxels(patient["T1"])
    neck[:34, 8:16, 7:15] = 500
    long = sitk.GetImageFromArray(neck)
    long.SetSpacing((6.0, 6.0, 6.0))
    long.SetOrigin((-60.0, -70.0, -220.0))
    found = coverage_of({"T1": long, "T2": patient["T2"]})
    assert found["T2"].share > 0.9


def coverage_of(images):
    frames = dict.fromkeys(images, sitk.Transform())
    return coverage(images, {name: head_points(image) for name, image in images.items()}, frames)
