import re

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.dicom import find_series, is_dicom, read_series, series_of
from nnunetv2_d2net.base.images import ImageError
from tests.dicom_series import write_series


@pytest.fixture
def image(rng):
    image = sitk.GetImageFromArray(rng.integers(0, 900, (6, 5, 4)).astype(np.int16))
    image.SetSpacing((1.0, 1.5, 2.5))
    image.SetOrigin((-3.0, 4.0, 5.0))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))  # sagittal slices
    return image


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_series_in_one_folder_are_told_apart(tmp_path, image):
    write_series(image, tmp_path, "1.2.3", "T2 FLAIR")
    write_series(image + 7, tmp_path, "1.2.4", "T1 ax")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "notes.txt").write_text("of the scanner", encoding="utf-8")
    flair, t1 = sorted(find_series(files_of(tmp_path)))
    assert (flair.uid, flair.description, len(flair.files)) == ("1.2.3", "T2 FLAIR", 6)
    read = read_series(t1)
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image) + 7)
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(read, what)() == pytest.approx(getattr(image, what)())


def test_a_slice_stands_for_its_series(tmp_path, image):
    write_series(image, tmp_path, "1.2.3", "T2 FLAIR")
    files = write_series(image, tmp_path, "1.2.4", "T1")
    assert series_of(files[3]).description == "T1"
    assert str(series_of(files[3])) == f"{files[0]} (T1, 6 files)"
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    with pytest.raises(ImageError, match=r"a\.nii\.gz cannot be read as DICOM \(no series\): export"):
        series_of(tmp_path / "a.nii.gz")


def test_a_series_without_description(tmp_path, image):
    files = write_series(image, tmp_path, "1.2.3", "")
    (series,) = find_series(files)
    assert (series.description, str(series)) == ("", f"{files[0]} (no description, 6 files)")


def test_a_series_may_be_named_by_its_protocol(tmp_path, image):
    (series,) = find_series(write_series(image, tmp_path, "1.2.3", "", protocol="t1_mprage"))
    assert series.description == "t1_mprage"


def test_missing_slices_are_refused(tmp_path, image, capfd):
    sitk.ProcessObject.GlobalWarningDisplayOn()
    (series,) = find_series(write_series(image, tmp_path, "1.2.3", "T1", slices=[0, 1, 2, 4, 5]))
    with pytest.raises(ImageError) as error:
        read_series(series)
    assert error.value.kind == "shape"
    assert str(error.value) == (
        f"{series.files[0]} is one of 5 slices that are not evenly spaced, or do not say where they lie: some are "
        "missing, or the series holds several images: export it whole, or convert it with dcm2niix"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("moved", "is_read"), [(0.2, True), (0.3, False)])
def test_a_slice_may_lie_a_tenth_of_their_distance_elsewhere(tmp_path, image, moved, is_read):
    files = write_series(image, tmp_path, "1.2.3", "T1", slices=[0, 1, 2, 3, 4])
    image.SetOrigin((-3.0 + moved, 4.0, 5.0))  # 2.5 mm apart, along x
    files += write_series(image, tmp_path, "1.2.3", "T1", slices=[5])
    (series,) = find_series(files)
    if is_read:
        assert read_series(series).GetSize() == image.GetSize()
    else:
        with pytest.raises(ImageError, match="6 slices that are not evenly spaced"):
            read_series(series)


def test_slices_in_one_place_are_refused(tmp_path, image):
    image.SetSpacing((1.0, 1.5, 1e-9))
    for n in (6, 2):
        (series,) = find_series(write_series(image[:, :, :n], tmp_path / str(n), "1.2.3", "T1"))
        with pytest.raises(ImageError, match=f"{n} slices that are not evenly spaced"):
            read_series(series)


@pytest.mark.parametrize("lacking", [[2], range(6)])
def test_slices_that_do_not_say_where_they_lie_are_refused(tmp_path, image, lacking):
    files = write_series(image, tmp_path, "1.2.3", "T1")
    for n in lacking:  # the tag becomes one that nobody knows
        files[n].write_bytes(files[n].read_bytes().replace(b"\x20\x00\x32\x00", b"\x20\x00\x31\x00", 1))
    (series,) = find_series(files)
    with pytest.raises(ImageError, match=r"6 slices that .* do not say where they lie"):
        read_series(series)


def test_a_single_slice_is_an_image(tmp_path, image):
    (series,) = find_series(write_series(image, tmp_path, "1.2.3", "T1", slices=[3]))
    assert read_series(series).GetSize() == (4, 5, 1)


def test_slices_whose_places_are_rounded_are_read(tmp_path, image):
    image.SetSpacing((1.0, 1.5, 2.5 + 1e-3))
    files = write_series(image[:, :, :3], tmp_path, "1.2.3", "T1")
    image.SetSpacing((1.0, 1.5, 2.5))
    files += write_series(image, tmp_path, "1.2.3", "T1", slices=[3, 4, 5])
    (series,) = find_series(files)
    assert read_series(series).GetSize() == image.GetSize()


def test_what_cannot_be_read(tmp_path, image):
    file = tmp_path / "IM"
    file.write_bytes(b"\0" * 128 + b"DICM" + b"nothing")
    assert is_dicom(file)
    with pytest.raises(ImageError) as error:
        series_of(file)
    assert error.value.kind == "unreadable"
    assert re.fullmatch(r".*IM cannot be read as DICOM \([^\n]+\): export the series again", str(error.value))
    (series,) = find_series(write_series(image, tmp_path / "cut", "1.2.3", "T1"))
    series.files[2].write_bytes(series.files[2].read_bytes()[:700])
    with pytest.raises(ImageError, match="cannot be read as DICOM"):
        read_series(series)


def without_preamble(file, *, keep_meta):
    content = file.read_bytes()
    n_meta = int.from_bytes(content[140:144], "little")
    file.write_bytes(content[132 if keep_meta else 144 + n_meta :])


def test_files_without_a_preamble_are_read(tmp_path, image):
    for file in write_series(image, tmp_path, "1.2.3", "T1"):
        without_preamble(file, keep_meta=False)
    (series,) = find_series(files_of(tmp_path))
    assert (series.description, len(series.files)) == ("T1", 6)
    assert np.array_equal(sitk.GetArrayFromImage(read_series(series)), sitk.GetArrayFromImage(image))


def test_files_that_only_lost_their_preamble_are_told(tmp_path, image):
    for file in write_series(image, tmp_path, "1.2.3", "T1"):
        without_preamble(file, keep_meta=True)
    with pytest.raises(ImageError, match=r"cannot be read as DICOM .*: export the series again"):
        find_series(files_of(tmp_path))


def test_what_is_no_dicom(tmp_path):
    (tmp_path / "short").write_bytes(b"DICM")
    assert not is_dicom(tmp_path / "short")
    assert not is_dicom(tmp_path)
    for name in ("a.img", "a.raw"):
        (tmp_path / name).write_bytes(np.array([8, 24, 8], "<i2").tobytes())
        assert not is_dicom(tmp_path / name)
    for name in ("DICOMDIR", "dicomdir", "slice"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
        assert is_dicom(tmp_path / name) == (name == "slice")
    assert find_series([tmp_path / "short", tmp_path / "missing"]) == []
