"""One case: labels that are floats, grids that differ, files that are damaged."""

import gzip
import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.images import ImageError
from nnunetv2_d2net.data.convert.cases import Problem
from nnunetv2_d2net.data.convert.layouts import BRATS2018, BRATS2023, find_cases, layout_of
from nnunetv2_d2net.data.convert.one_case import convert_case, read_case
from tests.unit.data.convert.source_folders import (
    NEW,
    OLD,
    SHAPE,
    image_of,
    label_with,
    random_image,
    voxels,
    write_case,
    write_nifti,
)


def load(source, *, resample=False):
    layout = layout_of(source)
    (case,) = find_cases(layout, source, None).cases
    return read_case(case, layout.scheme, resample=resample)


def problem_of(source, *, resample=False):
    with pytest.raises(ImageError) as caught:
        load(source, resample=resample)
    problem = Problem.of("a", caught.value)
    assert "\n" not in problem.line
    return problem


def test_a_good_case(source):
    write_case(source, "a", spacing=(1, 2, 3))
    loaded = load(source)
    assert loaded.report.modalities == ["FLAIR", "T1", "T1ce", "T2"]
    assert loaded.report.voxels == {0: 332, 1: 1, 2: 1, 4: 2}
    assert loaded.report.geometry == {"size": "8 x 7 x 6", "spacing": "1 x 2 x 3 mm", "orientation": "LPS"}
    assert all(image.unchanged for image in loaded.images.values())
    assert not loaded.label.unchanged
    np.testing.assert_array_equal(sitk.GetArrayFromImage(loaded.label.image), label_with(1, 2, 3, 3))
    assert loaded.label.image.GetSpacing() == (1, 2, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int8, np.uint16])
def test_labels_of_any_number_type_that_are_whole(source, dtype):
    label = label_with(1, 2, 4, dtype=dtype)
    if np.issubdtype(dtype, np.floating):
        label += np.where(label > 0, 4e-4, -4e-4).astype(dtype)
    write_case(source, "a", label=label)
    loaded = load(source)
    result = sitk.GetArrayFromImage(loaded.label.image)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, label_with(1, 2, 3))
    assert loaded.report.voxels == {0: 333, 1: 1, 2: 1, 4: 1}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (label_with(1, 2, 3, 3), r"unknown label values 3 \(2 voxels\), known are 0, 1, 2, 4"),
        (label_with(-1, 4, dtype=np.int16), r"unknown label values -1 \(1 voxels\)"),
        (label_with(0.5, dtype=np.float32), r"no whole numbers, such as 0\.5"),
        (label_with(2**60, dtype=np.float64), rf"unknown label values {2**60} \(1 voxels\)"),
    ],
)
def test_labels_that_nobody_knows(source, label, message):
    write_case(source, "a", label=label)
    problem = problem_of(source)
    assert problem.kind == "unknown labels"
    assert problem.case == "a"
    assert "a_seg.nii.gz" in problem.line
    assert re.search(message, problem.line)


def test_cavity_of_2024_is_kept_and_identical_labels_need_no_rewriting(source):
    write_case(source, "a", NEW, label=label_with(1, 2, 3, 4))
    loaded = load(source)
    assert loaded.label.unchanged
    assert loaded.report.voxels[4] == 1
    write_case(source, "a", NEW, label=label_with(1, 2, 3, 4, dtype=np.float32))
    assert not load(source).label.unchanged  # same numbers, but not in 8 bits


@pytest.mark.parametrize(
    ("geometry", "what"),
    [
        ({"spacing": (1, 1, 1.1)}, "spacing"),
        ({"origin": (0, 5, 0)}, "origin"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "direction"),
    ],
)
@pytest.mark.parametrize("slot", ["T2", "seg"])
def test_another_grid_is_refused_and_named(source, geometry, what, slot):
    write_case(source, "a")
    array = label_with(1) if slot == "seg" else random_image()
    write_nifti(source / "a" / f"a{OLD[slot]}.nii.gz", array, **geometry)
    problem = problem_of(source)
    assert problem.kind == "geometry"
    assert f"differs from {source}/a/a_seg.nii.gz in {what}" in problem.line
    assert "a_t2.nii.gz" in problem.line
    assert ("a_flair.nii.gz" in problem.line) == (slot == "seg")  # then every image differs
    assert "--resample" in problem.line


def test_another_size_is_refused_and_rounding_of_headers_is_not(source):
    write_case(source, "a", only=("T1", "T2"), origin=(0.0, -239.0, 0.0))
    write_nifti(source / "a" / "a_t2.nii.gz", random_image(), origin=(0.0004, -239.0, -0.0))
    assert load(source).report.modalities == ["T1", "T2"]
    write_nifti(source / "a" / "a_t2.nii.gz", random_image(shape=(6, 7, 9)))
    assert "shape (6x7x9 and 6x7x8 voxels)" in problem_of(source).line


def test_resampling_moves_images_onto_the_segmentation_and_never_the_segmentation(source):
    """An image stored in another orientation comes back voxel by voxel; half a voxel off, it is interpolated."""
    write_case(source, "a", only=("T1", "seg"))
    flipped = sitk.Flip(image_of(random_image(7)), (True, True, False))
    write_nifti(
        source / "a" / "a_t2.nii.gz",
        sitk.GetArrayFromImage(flipped),
        origin=flipped.GetOrigin(),
        direction=flipped.GetDirection(),
    )
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32), SHAPE).copy()
    write_nifti(source / "a" / "a_flair.nii.gz", ramp, origin=(-0.5, 0, 0))
    assert problem_of(source).kind == "geometry"
    loaded = load(source, resample=True)
    arrays = {name: sitk.GetArrayFromImage(one.image) for name, one in loaded.images.items()}
    np.testing.assert_array_equal(arrays["T2"], random_image(7))
    np.testing.assert_allclose(arrays["FLAIR"][..., :7], ramp[..., :7] + 0.5, atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(loaded.label.image), label_with(1, 2, 3, 3))
    assert {name: one.unchanged for name, one in loaded.images.items()} == {"FLAIR": False, "T1": True, "T2": False}
    told = [note for note in loaded.report.notes if "was resampled onto" in note]
    assert len(told) == 2
    assert "a_flair.nii.gz was resampled" in told[0]
    assert "origin" in told[0]


def test_without_segmentation_the_first_modality_is_the_grid(source):
    write_case(source, "a", only=("T1",))
    write_nifti(source / "a" / "a_t2.nii.gz", random_image(shape=(12, 14, 16)), spacing=(0.5, 0.5, 0.5))
    loaded = load(source, resample=True)
    assert loaded.images["T2"].image.GetSize() == (8, 7, 6)
    assert loaded.images["T1"].unchanged


def test_images_that_do_not_overlap_are_refused_even_when_resampling(source):
    write_case(source, "a", only=("T1",))
    write_nifti(source / "a" / "a_t2.nii.gz", random_image(), origin=(500, 0, 0))
    assert "does not overlap" in problem_of(source, resample=True).line


def test_placeholders_are_left_out(source):
    write_case(source, "a")
    write_nifti(source / "a" / "a_t1.nii.gz", np.full(SHAPE, 7, np.int16))
    loaded = load(source)
    assert loaded.report.modalities == ["FLAIR", "T1ce", "T2"]
    assert "a_t1.nii.gz is constant in T1" in loaded.report.notes[0]
    for slot in ("FLAIR", "T1ce", "T2"):
        write_nifti(source / "a" / f"a{OLD[slot]}.nii.gz", np.zeros(SHAPE, np.int16))
    assert problem_of(source).kind == "no image"


@pytest.mark.parametrize("slot", ["T1ce", "seg"])
def test_damaged_files_are_named(source, slot):
    write_case(source, "a")
    path = source / "a" / f"a{OLD[slot]}.nii.gz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no image"):
        path.write_bytes(content)
        problem = problem_of(source)
        assert problem.kind == "unreadable"
        assert problem.line.startswith(f"{path} cannot be read")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("slot", ["T1ce", "seg"])
def test_nan_and_infinity_are_named(source, slot, value):
    write_case(source, "a")
    array = np.ones(SHAPE, np.float32)
    array[0, 0, 0] = value
    write_nifti(source / "a" / f"a{OLD[slot]}.nii.gz", array)
    assert problem_of(source).kind == "NaN"


def test_other_formats_are_not_read_whatever_their_name(source):
    """SimpleITK knows a PNG by its content."""
    write_case(source, "a")
    path = source / "a" / "a_t1.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.eye(5, dtype=np.uint8)), str(path.with_name("x.png")))
    path.with_name("x.png").replace(path)
    assert problem_of(source).kind == "unreadable"


def test_four_dimensions_where_three_are_due(source):
    write_case(source, "a")
    write_nifti(source / "a" / "a_t1.nii.gz", np.zeros((2, *SHAPE), np.int16))
    problem = problem_of(source)
    assert (problem.kind, "(8, 7, 6, 2) voxels" in problem.line) == ("shape", True)


def test_upper_case_endings_can_be_read(source):
    write_case(source, "a", ending=".NII.GZ", only=("T1", "seg"))
    write_case(source, "a", ending=".NII", only=("T2",))
    assert load(source).report.modalities == ["T1", "T2"]
    np.testing.assert_array_equal(voxels(source / "a" / "a_t2.NII"), random_image(3))


def test_the_layouts_differ_in_what_they_know(source):
    write_case(source, "a", label=label_with(4))
    case = find_cases(BRATS2018, source, None).cases[0]
    assert read_case(case, BRATS2018.scheme, resample=False).report.voxels == {0: 335, 4: 1}
    relabeled = read_case(case, BRATS2023.scheme, resample=False).label.image
    assert sitk.GetArrayFromImage(relabeled).max() == 4


# What is told, or done where it is asked for


def load_with(source, **how):
    layout = layout_of(source)
    (case,) = find_cases(layout, source, None).cases
    return read_case(case, layout.scheme, **{"resample": False, **how})


def test_nan_outside_the_field_of_view_becomes_zero_where_asked_for(source):
    write_case(source, "a")
    array = random_image().astype(np.float32)
    array[:, :2] = np.nan
    write_nifti(source / "a" / "a_t1.nii.gz", array)
    assert "--nan_outside_as_zero" in problem_of(source).line
    volumes = load_with(source, nan_outside_as_zero=True)
    np.testing.assert_array_equal(volumes.images["T1"].voxels, np.nan_to_num(array))
    assert not volumes.images["T1"].unchanged
    assert any("a_t1.nii.gz has NaN outside the field of view" in note for note in volumes.report.notes)
    array[3, 4, 4] = np.nan  # within the head
    write_nifti(source / "a" / "a_t1.nii.gz", array)
    with pytest.raises(ImageError, match="holds NaN"):
        load_with(source, nan_outside_as_zero=True)


def test_a_segmentation_whose_header_was_lost_takes_the_images_grid_where_asked_for(source):
    write_case(source, "a", origin=(9.0, -7.0, 5.0))
    write_nifti(source / "a" / "a_seg.nii.gz", label_with(1, 2, 4))
    assert "--label_header_from_images" in problem_of(source).line
    volumes = load_with(source, label_header_from_images=True)
    assert volumes.label.image.GetOrigin() == (9.0, -7.0, 5.0)
    np.testing.assert_array_equal(volumes.label.voxels, label_with(1, 2, 3))
    assert "a_seg.nii.gz takes the grid of" in volumes.report.notes[0]
    write_nifti(source / "a" / "a_seg.nii.gz", np.zeros((6, 7, 9), np.uint8))  # which is another field of view
    with pytest.raises(ImageError, match="shape"):
        load_with(source, label_header_from_images=True)


@pytest.mark.parametrize("slot", ["T2", "seg"])
def test_a_header_that_was_rounded_is_no_other_grid(source, slot):
    write_case(source, "a", origin=(9.004, -7.0, 5.0))
    array = label_with(1, 2, 3) if slot == "seg" else random_image()
    array = np.where(array == 3, 4, array)
    write_nifti(source / "a" / f"a{OLD[slot]}.nii.gz", array, origin=(9.0, -7.0, 5.0))
    volumes = load_with(source, resample=True)
    one = volumes.label if slot == "seg" else volumes.images[slot]
    assert one.image.GetOrigin() == pytest.approx((9.004, -7.0, 5.0))
    assert not one.unchanged
    assert "takes the grid of" in volumes.report.notes[0]
    np.testing.assert_array_equal(one.voxels, label_with(1, 2, 3) if slot == "seg" else array)


def test_an_image_that_is_constant_within_the_head_is_a_placeholder(source):
    write_case(source, "a")
    array = np.zeros(SHAPE, np.float32)
    array[0] = -1
    write_nifti(source / "a" / "a_t1ce.nii.gz", array)
    report = load_with(source).report
    assert report.modalities == ["FLAIR", "T1", "T2"]
    assert "a_t1ce.nii.gz is constant in T1ce, a placeholder" in report.notes[0]


def test_headers_that_are_odd_are_told_once(source):
    folder = write_case(source, "a", ending=".nii")
    for path in folder.iterdir():
        content = bytearray(path.read_bytes())
        content[252:256] = bytes(4)  # qform and sform
        path.write_bytes(content)
    (note,) = load_with(source).report.notes
    assert "has neither qform nor sform" in note
    assert "as in 5 files of its case" in note


@pytest.mark.parametrize(("shape", "remedy"), [((7, 8), "stack the slices"), ((6, 7, 8, 3), "in the place of colors")])
def test_the_remedy_of_a_shape_follows_from_it(source, shape, remedy):
    write_case(source, "a", only=("T1",))
    image = sitk.GetImageFromArray(np.ones(shape, np.uint8), isVector=len(shape) == 4)
    sitk.WriteImage(image, str(source / "a" / "a_t1.nii.gz"))
    assert remedy in problem_of(source).line


# Labels and heads that cannot be right


def ball(center, radius=9.0, size=24):
    return np.linalg.norm(np.indices((size,) * 3) - np.reshape(center, (3, 1, 1, 1)), axis=0) < radius


def write_head(source, suffixes=NEW, *, enhancing=1.0, tumor=2.0, value=4, moved=0):
    """A head with one labelled ball; in T1ce the ball is brighter by a factor."""
    head, lesion, texture = ball((11.5,) * 3), ball((11.5,) * 3, tumor), np.random.default_rng(0).random((24,) * 3)
    for slot, suffix in suffixes.items():
        array = (lesion * value).astype(np.uint8)
        if slot != "seg":
            array = (head * (100 + 50 * texture) * (1 + (slot == "T1ce") * (enhancing - 1) * lesion)).astype(np.float32)
            array = np.roll(array, moved * (slot == "T2"), axis=(0, 1))
        write_nifti(source / "a" / f"a{suffix}.nii.gz", array)


def test_a_mask_of_the_brain_is_refused_whatever_it_is_called(source):
    write_head(source, OLD, tumor=9, value=1)
    problem = problem_of(source)
    assert problem.kind == "unknown labels"
    assert "a_seg.nii.gz covers 100% of the head" in problem.line
    write_head(source, OLD, tumor=3, value=1)
    assert not load(source).report.notes


def test_a_cavity_that_enhances_is_asked_about_where_only_names_say_what_it_is(source):
    write_head(source, enhancing=1.0, tumor=4.0)
    assert not load_with(source, labels_are_known=False).report.notes
    write_head(source, enhancing=2.0, tumor=4.0)
    assert "a-seg.nii.gz has a resection cavity that is brighter in T1ce" in load_with(source).report.notes[0]
    with pytest.raises(ImageError, match=r"brighter in T1ce than in T1.*--labels"):
        load_with(source, labels_are_known=False)


@pytest.mark.parametrize(("inner", "outer", "told"), [(1, 2, False), (2, 1, True)])
def test_edema_within_the_core_is_told(source, inner, outer, told):
    write_head(source, OLD)
    center = (11.5,) * 3
    label = np.select([ball(center, 3.5), ball(center, 4.5), ball(center, 6.5)], [inner, 4, outer], 0)
    write_nifti(source / "a" / "a_seg.nii.gz", label.astype(np.uint8))
    assert [("edema within the necrotic" in note) for note in load(source).report.notes] == [True] * told


def test_labels_outside_the_head_are_told(source):
    write_head(source)
    write_nifti(source / "a" / "a-seg.nii.gz", ball((3, 3, 3), 2).astype(np.uint8))
    assert any("a-seg.nii.gz lies outside the head" in note for note in load(source).report.notes)


def test_another_head_is_no_modality_of_this_case(source):
    write_head(source, moved=4)
    problem = problem_of(source)
    assert problem.kind == "geometry"
    assert "a-t2w.nii.gz shows another head" in problem.line


def test_a_part_of_a_head_is_noted(source):
    write_head(source)
    path = source / "a" / f"a{NEW['T2']}.nii.gz"
    array = nibabel.load(path).get_fdata()
    array[:, :, :12] = 0
    write_nifti(path, array)
    (note,) = load(source).report.notes
    assert re.match(r".*a-t2w.nii.gz shows nothing in [45]\d% of the head that .*a-t\w+.nii.gz shows$", note)


def test_what_is_written_lies_where_the_source_lies_for_every_reader(source, tmp_path):
    folder = write_case(source, "a", origin=(9.0, -7.0, 5.0))
    for path in folder.iterdir():
        image = nibabel.load(path)
        image.set_qform(image.affine, 1)
        moved = image.affine.copy()
        moved[:3, 3] += 3
        image.set_sform(moved, 2)
        image.header["vox_offset"] = 352  # which nibabel forgets
        path.write_bytes(gzip.compress(image.header.binaryblock + gzip.decompress(path.read_bytes())[348:]))
    layout = layout_of(source)
    (case,) = find_cases(layout, source, None).cases
    assert convert_case(case, layout, tmp_path / "to").notes
    label, image = tmp_path / "to/labelsTr/a.nii.gz", tmp_path / "to/imagesTr/a_0000.nii.gz"
    for form in ("get_qform", "get_sform"):
        of_label, of_image, of_source = (
            getattr(nibabel.load(path), form)() for path in (label, image, folder / "a_seg.nii.gz")
        )
        np.testing.assert_array_equal(of_label, of_image)
        np.testing.assert_array_equal(of_label, of_source)
    assert sitk.ReadImage(str(label)).GetDirection() == sitk.ReadImage(str(image)).GetDirection()
    np.testing.assert_array_equal(voxels(label), label_with(1, 2, 3, 3))


def test_a_compressed_file_that_is_not_called_so(source):
    write_case(source, "a", only=("T1",), ending=".nii")
    path = source / "a" / "a_t1.nii"
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert problem_of(source).line.endswith("its name does not say so): call it a_t1.nii.gz")
