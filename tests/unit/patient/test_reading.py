import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import ImageError
from nnunetv2_d2net.patient.reading import array_of, read_sequence, read_sequences
from tests.dicom_series import write_series

DIRECTION = (0, -1, 0, 0, 0, 1, -1, 0, 0)


@pytest.fixture
def image(rng):
    image = sitk.GetImageFromArray(rng.integers(1, 900, (6, 5, 4)).astype(np.int16))
    image.SetSpacing((1.0, 1.5, 2.5))
    image.SetOrigin((-3.0, 4.0, 5.0))
    image.SetDirection(DIRECTION)
    return image


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def same(read, image):
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(read.image, what)() == pytest.approx(getattr(image, what)(), abs=1e-5)
    return read.image.GetPixelID() == sitk.sitkFloat32 and np.array_equal(read.voxels, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_files(tmp_path, image, ending):
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    read = read_sequence(tmp_path / f"a{ending}", "T1")
    assert same(read, image)
    assert (read.file, read.placed, read.notes) == (tmp_path / f"a{ending}", True, ())


def test_series_by_folder_and_by_slice(tmp_path, image):
    files = write_series(image, tmp_path / "one", "1.2.3", "anything")
    assert same(read_sequence(tmp_path / "one", "T1"), image)
    write_series(image + 1, tmp_path / "one", "1.2.4", "else")
    assert same(read_sequence(str(files[2]), "T1"), image)
    with pytest.raises(UserError, match=r"not one series but .*anything.*else.*the one that is T1"):
        read_sequence(tmp_path / "one", "T1")
    with pytest.raises(UserError, match="no DICOM"):
        read_sequence(tmp_path, "T1")


def test_arrays_lie_where_nibabel_has_them(tmp_path, image):
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    loaded = nibabel.nifti1.load(tmp_path / "a.nii")
    assert same(read_sequence((np.asarray(loaded.dataobj), loaded.affine), "T1"), image)
    assert same(read_sequence(image, "T1"), image)
    array, affine = array_of(image)
    assert np.array_equal(array, np.asarray(loaded.dataobj))
    assert np.allclose(affine, loaded.affine, atol=1e-5)
    assert same(read_sequence((array, affine), "T1"), image)


def test_arrays_that_lie_nowhere(image):
    voxels = sitk.GetArrayFromImage(image)
    for array, affine in ((voxels[0], np.eye(4)), (voxels, np.eye(3)), (voxels, np.zeros((4, 4)))):
        with pytest.raises(UserError, match="T1: "):
            read_sequence((array, affine), "T1")


def test_numbers_that_are_no_signal_are_refused_wherever_they_come_from(tmp_path, image):
    voxels = sitk.GetArrayFromImage(image).astype(np.float32)
    voxels[0, 0, 0] = -3.4e38
    huge = sitk.GetImageFromArray(voxels)
    sitk.WriteImage(huge, str(tmp_path / "a.mha"))
    for source in ((voxels, np.eye(4)), huge, tmp_path / "a.mha"):
        with pytest.raises(
            UserError, match=r"holds a voxel of -3\.4e\+38, which is no signal: write 0 outside the head"
        ):
            read_sequence(source, "T1")


def test_a_header_without_a_place(tmp_path, image):
    loaded = nibabel.nifti1.Nifti1Image(sitk.GetArrayFromImage(image), None)
    nibabel.nifti1.save(loaded, tmp_path / "a.nii")
    read = read_sequence(tmp_path / "a.nii", "T1")
    assert not read.placed
    assert read.notes


def test_what_is_no_volume(tmp_path, image):
    four = sitk.JoinSeries([image, image])
    sitk.WriteImage(four, str(tmp_path / "a.nii"))
    with pytest.raises(ImageError, match=r"a\.nii holds 4 x 5 x 6 x 2 voxels: pass one gray volume"):
        read_sequence(tmp_path / "a.nii", "T1")
    with pytest.raises(ImageError, match="voxels of 2 values"):
        read_sequence(sitk.Compose(image, image), "T1")
    assert same(read_sequence(sitk.JoinSeries([image]), "T1"), image)


def test_what_cannot_be_used(tmp_path, image):
    with pytest.raises(ImageError, match=r"missing\.nii is not there"):
        read_sequence(tmp_path / "missing.nii", "T1")
    voxels = np.where(sitk.GetArrayFromImage(image) > 500, np.nan, 1.0)
    with pytest.raises(ImageError, match="T1, an image in memory holds NaN"):
        read_sequence(sitk.GetImageFromArray(voxels), "T1")


def test_voxels_that_no_patient_has_are_refused_wherever_they_come_from(tmp_path, image):
    image.SetSpacing((1.0, 1.5, 20.0))
    assert same(read_sequence(image, "T1"), image)
    image.SetSpacing((1.0, 1.5, 20.5))
    for ending in (".nii", ".mha"):
        sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    write_series(image, tmp_path / "one", "1.2.3", "T1")
    for source in (image, array_of(image), tmp_path / "a.nii", tmp_path / "a.mha", tmp_path / "one"):
        with pytest.raises(ImageError, match=r" has voxels of 1 x 1\.5 x 20\.5 mm, .*: write the right spacing"):
            read_sequence(source, "T1")


def test_voxels_in_meters_are_refused(image):
    image.SetSpacing((0.001, 0.0015, 0.0025))
    for source in (image, array_of(image)):
        with pytest.raises(
            ImageError, match=r" has voxels of 0\.001 x 0\.0015 x 0\.0025 mm, .*: write the right spacing"
        ):
            read_sequence(source, "T1")


def test_sheared_images_are_refused_wherever_they_come_from(image):
    image.SetDirection((1, 0.5, 0, 0, 1, 0, 0, 0, 1))
    for source in (image, array_of(image)):
        with pytest.raises(ImageError, match=r"T1, an image in memory is sheared: .* by \d\d\.\d degrees: resample it"):
            read_sequence(source, "T1")


def test_complex_images_are_refused(tmp_path, image):
    voxels = sitk.GetArrayFromImage(image)
    sitk.WriteImage(sitk.GetImageFromArray(voxels * 1j), str(tmp_path / "a.nii"))
    in_memory = [sitk.GetImageFromArray((voxels * 1j).astype(kind)) for kind in (np.complex64, np.complex128)]
    for source in (*in_memory, (voxels * 1j, np.eye(4)), tmp_path / "a.nii"):
        with pytest.raises(ImageError, match=r" holds complex numbers: write its magnitude$"):
            read_sequence(source, "T1")


def test_vectors_of_one_value_are_gray(tmp_path, image):
    assert same(read_sequence(sitk.Compose([image]), "T1"), image)
    loaded = nibabel.nifti1.Nifti1Image(sitk.GetArrayFromImage(image).astype(np.float32), None)
    loaded.header.set_intent(1007)
    nibabel.nifti1.save(loaded, tmp_path / "a.nii")
    read = read_sequence(tmp_path / "a.nii", "T1")
    assert np.array_equal(read.voxels, sitk.GetArrayFromImage(image).T)
    assert not read.placed
    assert read.notes


def test_constant_images_count_as_absent(image):
    read, lines = read_sequences({"T1": image, "T2": image * 0})
    assert list(read) == ["T1"]
    assert lines == ["T2, an image in memory is constant: T2 counts as absent"]
    with pytest.raises(UserError, match="T2 counts as absent: pass at least one real image"):
        read_sequences({"T2": image * 0})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_of_many_is_refused(tmp_path, image, axis):
    voxels = sitk.GetArrayFromImage(image)
    kept = np.zeros_like(voxels)
    place = tuple(slice(2, 3) if one == axis else slice(None) for one in range(3))
    kept[place] = voxels[place]
    for content, name in (
        (kept, "slice"),
        (kept * (np.arange(kept.size).reshape(kept.shape) == kept.argmax()), "voxel"),
    ):
        path = tmp_path / f"{name}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(content), str(path))
        with pytest.raises(ImageError) as error:
            read_sequences({"T1": path, "T2": image})
        assert str(error.value) == f"{path} is 0 but for one slice: write it whole, or leave it out"
    assert read_sequence(sitk.GetImageFromArray(voxels[place]), "T1").image.GetNumberOfPixels() == voxels[place].size
