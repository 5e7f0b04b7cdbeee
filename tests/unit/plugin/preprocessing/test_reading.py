import re
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.reading import read_case
from tests.unit.plugin.preprocessing.conftest import write_image

SHAPE = (6, 7, 8)


@pytest.fixture
def arrays(rng):
    return rng.normal(size=(3, *SHAPE)).astype(np.float32)


@pytest.fixture
def files(arrays, tmp_path):
    return [write_image(tmp_path / f"a_{m:04d}.nii.gz", array) for m, array in enumerate(arrays)]


def refused(files, *parts, reader=None, n_modalities=3, allowed=None):
    """A case that is refused in one line with these parts."""
    with pytest.raises(UserError) as error:
        read_case(files, reader or SimpleITKIO(), n_modalities, allowed)
    line = str(error.value)
    assert "\n" not in line
    for part in parts:
        assert part in line, line


def test_a_complete_case_is_what_nnunet_reads(files, arrays):
    case = read_case(files, SimpleITKIO(), 3)
    images, properties = SimpleITKIO().read_images(files)
    assert np.array_equal(case.images, images)
    assert np.array_equal(images, arrays)
    assert case.images.dtype == np.float32
    assert case.properties == properties
    assert case.available == (True, True, True)
    assert case.constant == ()


@pytest.mark.parametrize("there", [[0], [2], [1, 2], [0, 2], [0, 1]])
def test_absent_files_are_zero(files, arrays, there):
    case = read_case([files[m] for m in there], SimpleITKIO(), 3)
    assert case.available == tuple(m in there for m in range(3))
    for m in range(3):
        assert np.array_equal(case.images[m], arrays[m] if m in there else np.zeros(SHAPE))


def test_geometry_comes_from_the_first_file_there_is(tmp_path, arrays):
    geometry = {"spacing": (0.5, 0.7, 3.0), "origin": (-4.0, 5.0, 6.5), "direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}
    files = [write_image(tmp_path / f"a_{m:04d}.nii.gz", arrays[m], **geometry) for m in (1, 2)]
    properties = read_case(files, SimpleITKIO(), 3).properties
    assert np.allclose(properties["spacing"], (3.0, 0.7, 0.5))
    for what, value in geometry.items():
        assert np.allclose(properties["sitk_stuff"][what], value), what


def test_modalities_that_are_not_allowed_are_not_even_opened(files, arrays):
    Path(files[1]).write_text("no image", encoding="utf-8")
    case = read_case(files, SimpleITKIO(), 3, allowed=(True, False, True))
    assert case.available == (True, False, True)
    assert not case.images[1].any()
    assert np.array_equal(case.images[[0, 2]], arrays[[0, 2]])
    Path(files[1]).unlink()
    assert read_case(files, SimpleITKIO(), 3, allowed=(True, False, True)).available == (True, False, True)


def test_no_modality(files):
    refused([], "the case: no modality is left", "provide the file of at least one")
    refused(files[:2], files[0], files[1], "no modality is left", allowed=(False, False, True))
    refused(files[:1], files[0], "no modality is left", allowed=(False, True, True))


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1, 0.001, 0.0])
def test_a_file_that_was_cut_short(files, share):
    whole = Path(files[1]).read_bytes()
    Path(files[1]).write_bytes(whole[: int(share * len(whole))])
    refused(files, files[1], "cannot be read", "it may be cut short, copy it again")


def test_a_damaged_file(files):
    content = bytearray(Path(files[2]).read_bytes())
    content[-6] ^= 0xFF  # in the checksum
    Path(files[2]).write_bytes(content)
    refused(files, files[2], "cannot be read", "copy it again")


def test_text_instead_of_an_image(files):
    Path(files[0]).write_text("no image", encoding="utf-8")
    refused(files, files[0], "cannot be read", "put the image there")


def test_a_file_that_is_not_there(files):
    Path(files[2]).unlink()
    refused(files, files[2], "is not there", "leave it out")


def test_an_image_that_is_not_compressed_in_spite_of_its_name(files, arrays, tmp_path):
    Path(write_image(tmp_path / "plain.nii", arrays[1])).replace(files[1])
    assert np.array_equal(read_case(files, SimpleITKIO(), 3).images, arrays)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])  # SimpleITK reads such voxels of NIfTI files as 0
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(tmp_path, arrays, value, ending):
    arrays[1, 2, 3, 4] = value
    files = [write_image(tmp_path / f"b_{m:04d}{ending}", array) for m, array in enumerate(arrays)]
    refused(files, files[1], "NaN or infinite", "remove it to go without")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_of_nothing_but_infinity_is_not_taken_as_constant(files, arrays, value):
    write_image(files[1], np.full(SHAPE, value))
    refused(files, files[1], "NaN or infinite")


TURNED = tuple(np.array([[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]]).ravel())


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize(
    ("what", "geometry"),
    [
        ("spacing", {"spacing": (1.0, 1.01, 1.0)}),
        ("origin", {"origin": (0.0, 0.0, 2.0)}),
        ("direction", {"direction": TURNED}),
    ],
)
def test_images_that_lie_elsewhere(files, arrays, what, geometry, reader):
    write_image(files[2], arrays[2], **geometry)
    words = f"in {what} (by" if reader is SimpleITKIO else "differs from"
    refused(files, files[2], files[0], words, "register and resample", reader=reader())


def test_images_of_different_shape(files, arrays):
    write_image(files[1], arrays[1][:, :-1])
    refused(files, files[1], files[0], "differs from", "in shape (6x6x8 and 6x7x8 voxels)", "register and resample")
    refused(files, "if the number at the end of their names is the patient's", "as a_0001_0000.nii.gz for the first")


def test_an_absent_file_cannot_be_misaligned(files, arrays):
    write_image(files[0], arrays[0], origin=(9.0, 0.0, 0.0))
    assert read_case(files[1:], SimpleITKIO(), 3).available == (False, True, True)
    assert read_case(files, SimpleITKIO(), 3, allowed=(False, True, True)).available == (False, True, True)


def test_rounding_of_the_geometry_is_no_difference(files, arrays):
    write_image(files[1], arrays[1], spacing=(1.0, 1.0 + 1e-5, 1.0), origin=(1e-4, 0.0, 0.0))
    assert all(read_case(files, SimpleITKIO(), 3).available)


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_a_constant_image_counts_as_absent(files, arrays, value):
    write_image(files[0], np.full(SHAPE, value))
    case = read_case(files, SimpleITKIO(), 3)
    assert case.available == (False, True, True)
    assert case.constant == (files[0],)
    assert not case.images[0].any()
    assert np.array_equal(case.images[1:], arrays[1:])


def test_nothing_but_constant_images(files):
    for file, value in zip(files, (0, 3, 0), strict=True):
        write_image(file, np.full(SHAPE, value))
    refused(files, *files, "every image is constant", "provide a real one")
    refused(files[1:2], files[1], "every image is constant")


@pytest.fixture
def pictures(rng, tmp_path):
    arrays = rng.integers(0, 255, (3, 9, 10)).astype(np.uint8)
    files = [str(tmp_path / f"p_{m:04d}.png") for m in range(3)]
    for file, array in zip(files, arrays, strict=True):
        io.imsave(file, array, check_contrast=False)
    return files, arrays


def test_pictures(pictures):
    files, arrays = pictures
    case = read_case(files[1:], NaturalImage2DIO(), 3)
    assert case.images.shape == (3, 1, 9, 10)
    assert case.available == (False, True, True)
    assert np.array_equal(case.images[1:, 0], arrays[1:])
    assert case.properties["spacing"] == (999, 1, 1)


def test_pictures_of_different_shape(pictures):
    files, arrays = pictures
    io.imsave(files[2], arrays[2][:5], check_contrast=False)
    refused(files, files[2], files[0], "in shape (", reader=NaturalImage2DIO())


def test_a_picture_that_was_cut_short(pictures):
    files, _ = pictures
    Path(files[1]).write_bytes(Path(files[1]).read_bytes()[:60])
    refused(files, files[1], "cannot be read", reader=NaturalImage2DIO())


@pytest.fixture
def photograph(pictures, tmp_path):
    """One file that holds all three channels."""
    file = str(tmp_path / "rgb_0000.png")
    io.imsave(file, pictures[1].transpose(1, 2, 0), check_contrast=False)
    return file


def test_one_file_may_hold_all_modalities(photograph, pictures):
    case = read_case([photograph], NaturalImage2DIO(), 3)
    assert case.available == (True, True, True)
    assert np.array_equal(case.images[:, 0], pictures[1])


@pytest.mark.parametrize("allowed", [(True, False, True), (False, True, False)])
def test_channels_of_one_file_that_are_not_allowed(photograph, pictures, allowed):
    case = read_case([photograph], NaturalImage2DIO(), 3, allowed)
    assert case.available == allowed
    for m in range(3):
        assert np.array_equal(case.images[m, 0], pictures[1][m] * allowed[m])


def test_a_constant_channel_of_one_file(photograph, pictures):
    pictures[1][1] = 200
    io.imsave(photograph, pictures[1].transpose(1, 2, 0), check_contrast=False)
    case = read_case([photograph], NaturalImage2DIO(), 3)
    assert case.available == (True, False, True)
    assert case.constant == (f"{photograph} channel 1",)
    assert not case.images[1].any()


def test_a_photograph_among_pictures(photograph, pictures):
    files, _ = pictures
    Path(photograph).replace(files[1])
    refused(files, files[1], "holds 3 channels, not 1", "one file per modality", reader=NaturalImage2DIO())
    refused(files[1:2], files[1], "holds 3 channels, not 1", "one file per modality", reader=NaturalImage2DIO())


def test_a_reason_of_several_lines_becomes_one(files):
    class Reader(SimpleITKIO):
        def read_images(self, image_fnames):
            raise ValueError("traceback\n  of three lines\nthe reason \n\n")

    with pytest.raises(UserError, match=re.escape("(the reason)")):
        read_case(files, Reader(), 3)


def ball(rng, *center):
    """Tissue within a head, and where the head is."""
    grid = np.indices((20, 20, 20)) - np.reshape(center, (3, 1, 1, 1))
    return rng.normal(100, 20, (20, 20, 20)), np.linalg.norm(grid, axis=0) < 7


@pytest.fixture
def patients(rng):
    """Two modalities of two patients: ``(patient, modality, z, y, x)``."""
    heads = [ball(rng, 9, 9, 9), ball(rng, 9, 7, 11)]
    return np.float32([[np.where(head, tissue, 0), np.where(head, 300 - tissue, 0)] for tissue, head in heads])


@pytest.mark.parametrize("channels", [(0, 1), (1, 2), (0, 2)])
def test_a_number_that_is_the_patients(tmp_path, patients, channels):
    pairs = zip(channels, patients[:, 0], strict=True)
    files = [write_image(tmp_path / f"sub_{m:04d}.nii.gz", image) for m, image in pairs]
    refused(files, *files, "shows another head", f"as sub_{channels[0]:04d}_0000.nii.gz for the first modality")


def test_two_patients_who_have_half_of_the_images_each_are_named(tmp_path, patients):
    images = [*patients[0], *patients[1]]
    files = [write_image(tmp_path / f"a_{m:04d}.nii.gz", image) for m, image in enumerate(images)]
    pair = r"\S+a_000(\d).nii.gz and \S+a_000(\d).nii.gz"
    with pytest.raises(UserError) as error:
        read_case(files, SimpleITKIO(), 4)
    found = re.match(rf"{pair} show another head than {pair} \(Dice of their outlines", str(error.value))
    assert found
    assert sorted([{*found.groups()[:2]}, {*found.groups()[2:]}], key=min) == [{"0", "1"}, {"2", "3"}]


def test_the_modalities_of_one_patient_are_fine(tmp_path, patients, caplog):
    files = [write_image(tmp_path / f"sub_{m:04d}.nii.gz", image) for m, image in enumerate(patients[0])]
    assert read_case(files, SimpleITKIO(), 3).available == (True, True, False)
    assert not caplog.records


def test_heads_that_may_differ_are_told(tmp_path, patients, rng, caplog):
    noise, head = ball(rng, 9, 10, 10)
    other = np.where(head, patients[0, 0] + 1.1 * noise, 0)
    files = [write_image(tmp_path / f"a_{m:04d}.nii.gz", image) for m, image in enumerate((patients[0, 0], other))]
    read_case(files, SimpleITKIO(), 3)
    assert f"{files[1]} may show another head than {files[0]}" in caplog.text


def test_what_is_cut_off_is_told(tmp_path, patients, caplog):
    images = [*patients[0], patients[0, 1] * (np.arange(20) < 8)[:, None, None]]
    files = [write_image(tmp_path / f"a_{m:04d}.nii.gz", image) for m, image in enumerate(images)]
    read_case(files[:2], SimpleITKIO(), 3)
    assert not caplog.records
    (line,) = read_case(files[::2], SimpleITKIO(), 3).remarks
    assert re.match(rf"{files[2]} shows nothing in [56]\d% of the head that {files[0]} shows: ", line)


def test_a_modality_given_twice_is_told(files, arrays, caplog):
    write_image(files[2], arrays[0].astype(np.float64))
    read_case(files, SimpleITKIO(), 3)
    assert f"{files[0]} and {files[2]} hold the same voxels" in caplog.text
    assert files[1] not in caplog.text


def test_a_modality_given_twice_in_another_scale_is_told(files, arrays, caplog):
    write_image(files[2], np.rint(1000 * arrays[0]) - 7)
    read_case(files, SimpleITKIO(), 3)
    (line,) = caplog.messages
    assert line.startswith(f"{files[0]} and {files[2]} are one image, scaled or rounded")


def test_a_placeholder_of_two_values_counts_as_absent(files, arrays):
    write_image(files[1], np.where(arrays[0] > 0, 0, -1))
    case = read_case(files, SimpleITKIO(), 3)
    assert case.available == (True, False, True)
    assert case.constant == (files[1],)


def test_an_ending_in_capitals(files, arrays):
    for reader in (SimpleITKIO(), NibabelIO()):
        loud = [str(Path(file).rename(file.replace(".nii.gz", ".NII.GZ"))) for file in files]
        case = read_case(loud[1:], reader, 3)
        assert case.available == (False, True, True)
        assert np.array_equal(case.images[2], arrays[2])
        files = [str(Path(file).rename(file.replace(".NII.GZ", ".nii.gz"))) for file in loud]


def test_nan_outside_the_field_of_view(files, arrays, caplog):
    arrays[1, :2] = np.nan
    write_image(files[1], arrays[1])
    with pytest.raises(UserError, match="pass --nan_outside_as_zero"):
        read_case(files, SimpleITKIO(), 3, nan_outside_as_zero=False)
    case = read_case(files, SimpleITKIO(), 3, nan_outside_as_zero=True)
    assert np.array_equal(case.images, np.nan_to_num(arrays))
    assert f"{files[1]} has NaN outside the field of view" in caplog.text
