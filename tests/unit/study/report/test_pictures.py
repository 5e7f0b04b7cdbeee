import base64
import io

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.report.pictures import (
    choose_window,
    encode_picture,
    encode_runs,
    read_volume,
    tile_columns,
)

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
    channels, placing = read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(channels[0], sitk.GetArrayFromImage(volume))
    assert placing == {"spacing": [1.0, 0.5], "thickness": 4.0, "plane": "axial", "sides": list("RLAP")}


@pytest.mark.parametrize(
    ("axis", "plane", "sides", "spacing"),
    [
        (0, "sagittal", "APSI", (4.0, 1.0)),
        (1, "coronal", "RLSI", (4.0, 0.5)),
        (2, "axial", "RLAP", (1.0, 0.5)),
    ],
)
def test_a_single_slice_keeps_its_plane(volume, tmp_path, axis, plane, sides, spacing):
    size = list(volume.GetSize())
    size[axis] = 1
    sitk.WriteImage(sitk.RegionOfInterest(volume, size, [0, 0, 0]), str(tmp_path / "a.nii.gz"))
    channels, placing = read_volume(tmp_path / "a.nii.gz")
    expected = {"spacing": list(spacing), "thickness": SPACING[axis], "plane": plane, "sides": list(sides)}
    assert placing == expected
    array = sitk.GetArrayFromImage(volume)
    expected = {0: array[::-1, :, 0], 1: array[::-1, 0], 2: array[0]}[axis]  # superior up
    assert np.array_equal(channels[0, 0], expected)


def test_a_photograph_has_channels_and_no_sides(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    channels, placing = read_volume(tmp_path / "a.png")
    assert np.array_equal(channels[:, 0], np.moveaxis(pixels, -1, 0))
    assert placing == {"spacing": [1.0, 1.0], "thickness": 1.0, "plane": "", "sides": None}


def test_a_file_without_orientation_names_no_sides(volume, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None), tmp_path / "a.nii.gz")
    _, placing = read_volume(tmp_path / "a.nii.gz")
    assert placing["sides"] is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.nii\.gz cannot be read"):
        read_volume(tmp_path / "a.nii.gz")


def test_air_is_left_out_and_the_fullest_slice_comes_first():
    image = np.full((12, 40, 30), -5.0)
    image[2:11, 10:20, 8:16] = 3
    reference = np.zeros(image.shape, bool)
    reference[7, 12:15, 10:12] = True
    window = choose_window([image], reference)
    assert (window.slices, window.rows, window.columns) == (list(range(2, 11)), (7, 23), (5, 19))
    assert window.slices[window.start] == 7
    thinned = choose_window([image], reference, 4)
    assert (thinned.slices, thinned.start) == ([3, 7], 1)
    assert thinned.cut(image).shape == (2, 16, 14)


def test_what_is_in_the_reference_alone_is_kept():
    reference = np.zeros((4, 20, 20), bool)
    reference[3, 0, 0] = True
    window = choose_window([np.zeros((4, 20, 20))], reference)
    assert window.slices == [3]
    assert choose_window([], np.zeros((4, 20, 20), bool)).slices == [0, 1, 2, 3]


def test_slices_lie_side_by_side_in_gray():
    part = np.zeros((5, 16, 16))
    part[3, 4:12, 4:12] = 900
    part[4, 4:12, 4:12] = -900  # normalized, darker than air
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(encode_picture(part).partition(",")[2]))).convert("L"))
    columns = tile_columns(5, 16, 16)
    assert sheet.shape == (16 * -(-5 // columns), 16 * columns)
    tiles = [sheet[16 * (i // columns) :, 16 * (i % columns) :][:16, :16].astype(int) for i in range(5)]
    assert tiles[3][6:10, 6:10].min() > 230
    assert all(tile.max() < 40 for i, tile in enumerate(tiles) if i != 3)


def decode_runs(encoded, n_labels):
    """What the page's script does."""
    parts, number, weight = [np.zeros(0, np.uint8)], 0, 1
    for byte in encoded:
        number += byte % 0x80 * weight
        weight *= 0x80
        if byte < 0x80:
            parts.append(np.full(number // n_labels, number % n_labels, np.uint8))
            number, weight = 0, 1
    return np.concatenate(parts)


@pytest.mark.parametrize("n_labels", [1, 2, 4, 200])
@pytest.mark.parametrize("shape", [(1,), (3, 40, 50), (0,)])
def test_round_trip(n_labels, shape):
    noise = np.random.default_rng(0).integers(0, n_labels, shape)
    blocks = np.sort(noise, axis=-1)
    for labels in (noise, blocks, np.zeros(shape, int)):
        assert np.array_equal(decode_runs(encode_runs(labels, n_labels), n_labels), labels.reshape(-1))


def test_a_long_run_takes_a_few_bytes():
    assert len(encode_runs(np.zeros((100, 200, 200), np.uint8), 4)) == 4
