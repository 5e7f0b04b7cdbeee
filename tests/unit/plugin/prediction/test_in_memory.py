import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.prediction.in_memory import stack_images

NAMES = ["FLAIR", "T1", "T2"]


def image(seed=0, shape=(4, 5, 6), spacing=(0.5, 0.7, 3.0), origin=None, direction=None):
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(spacing[: len(shape)])
    made.SetOrigin(origin or (0.0,) * len(shape))
    if direction:
        made.SetDirection(direction)
    return made


@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 6)])
def test_images_are_stacked_as_nnunet_reads_them(shape, tmp_path):
    images = {"T2": image(1, shape), "flair": image(2, shape), "T1": image(3, shape)}
    stacked, properties, reference = stack_images(images, NAMES)
    files = [str(tmp_path / f"{name}.mha") for name in ("flair", "T1", "T2")]
    for file, name in zip(files, ("flair", "T1", "T2"), strict=True):
        sitk.WriteImage(images[name], file)
    expected, expected_properties = SimpleITKIO().read_images(files)
    assert np.array_equal(stacked, expected)
    assert stacked.dtype == np.float32
    assert np.allclose(properties["spacing"], expected_properties["spacing"])
    assert reference is images["T2"]


def test_absent_images_are_zero():
    stacked, _, _ = stack_images({"T1": image()}, NAMES)
    assert np.array_equal(stacked[1], sitk.GetArrayFromImage(image()))
    assert not stacked[[0, 2]].any()


def test_no_image():
    with pytest.raises(UserError, match="no modality is given: pass at least one of FLAIR, T1, T2"):
        stack_images({}, NAMES)


def test_a_color_image():
    color = sitk.Compose(image(), image(1), image(2))
    with pytest.raises(UserError, match="T1 has several values per voxel: pass a gray image"):
        stack_images({"FLAIR": image(), "T1": color}, NAMES)


def test_an_unknown_name():
    with pytest.raises(UserError, match="PD is no modality"):
        stack_images({"T1": image(), "PD": image()}, NAMES)


def test_two_images_of_one_modality():
    with pytest.raises(UserError, match="T1, t1: several images for one modality"):
        stack_images({"T1": image(), "t1": image(1)}, NAMES)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("shape", {"shape": (4, 5, 7)}),
        ("shape", {"shape": (5, 6)}),
        ("spacing", {"spacing": (0.5, 0.7, 3.1)}),
        ("origin", {"origin": (0.0, 1.0, 0.0)}),
        ("direction", {"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}),
    ],
)
def test_images_on_different_grids(what, other):
    with pytest.raises(UserError, match=f"T2 and T1 differ in {what} .*: resample them onto each other"):
        stack_images({"T1": image(), "T2": image(**other)}, NAMES)
