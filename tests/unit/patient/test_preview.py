import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.colors import to_rgb
from PIL import Image as Picture

from nnunetv2_d2net.base.palette import REGION_COLORS
from nnunetv2_d2net.patient.preview import Preview, draw_preview, make_figure

REGIONS = {"whole tumor": (1, 2), "core": (2,)}


def patient(orientation="LPS"):
    """A head whose bright half is the patient's left, and a tumor in it, in slices 3 to 6 and most in slice 5."""
    voxels, labels = np.zeros((10, 30, 20), np.float32), np.zeros((10, 30, 20), np.uint8)
    voxels[1:9, 4:26, 3:17] = 100
    voxels[1:9, 4:26, 10:17] = 200
    labels[3:7, 8:12, 11:14] = 1
    labels[5, 8:14, 11:16] = 1
    labels[5, 9:11, 12:14] = 2
    images = []
    for array in (voxels, labels):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((2.0, 1.0, 3.0))
        images.append(sitk.DICOMOrient(image, orientation))
    return {"FLAIR": images[0], "T2": images[0] * 2}, images[1]


def panels(figure):
    return [[axis.images[0] for axis in figure.axes[row * 2 : row * 2 + 2]] for row in range(2)]


def words(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR", "SLA"])
def test_right_is_on_the_left_whatever_the_header(orientation):
    images, labels = patient(orientation)
    figure = make_figure(Preview(images, labels, REGIONS, ["a", "b"]))
    (flair, t2), (below, _) = panels(figure)
    shown = flair.get_array().data
    middle = shown.shape[1] // 2
    assert shown[:, :middle].max() == 100
    assert shown[:, middle:].max() == 200
    assert np.array_equal(shown, below.get_array().data)
    assert np.array_equal(t2.get_array().data, 2 * shown)
    for axis in figure.axes:
        marks = {text.get_text(): text.get_position()[0] for text in axis.texts}
        assert marks["R"] < 0.5 < marks["L"]
        assert axis.get_aspect() == pytest.approx(0.5)  # rows of 1 mm, columns of 2
    assert [axis.get_title() for axis in figure.axes] == ["FLAIR", "T2", "", ""]


def test_outlines_are_of_the_slice_with_most_of_the_tumor():
    images, labels = patient()
    figure = make_figure(Preview(images, labels, REGIONS, []))
    plain, outlined = figure.axes[0], figure.axes[2]
    assert not plain.collections
    sizes = [np.ptp(contour.get_paths()[0].vertices, axis=0).tolist() for contour in outlined.collections]
    assert sizes == [[5.0, 6.0], [2.0, 2.0]]  # columns, rows
    drawn = [tuple(contour.get_edgecolor()[0][:3]) for contour in outlined.collections]
    assert drawn == [to_rgb(color) for color in REGION_COLORS[:2]]
    assert [line.get_text() for line in figure.legends[0].get_texts()] == list(REGIONS)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_single_sagittal_or_coronal_slice(axis):
    images, labels = patient()
    slices = [slice(None)] * 3
    slices[axis] = slice(12, 13) if axis == 0 else slice(10, 11)
    figure = make_figure(Preview({name: image[slices] for name, image in images.items()}, labels[slices], REGIONS, []))
    assert min(figure.axes[0].images[0].get_array().shape) == 1


def test_no_tumor_and_no_place(tmp_path):
    images, labels = patient()
    figure = make_figure(Preview(images, labels * 0, REGIONS, ["absent: T1"], placed=False))
    assert not words(figure)
    assert not any(axis.collections for axis in figure.axes)
    said = figure.texts[0].get_text()
    assert said.splitlines() == ["absent: T1", "the header does not say which side is which"]
    draw_preview(Preview(images, labels, REGIONS, ["absent: T1"]), tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24) or ()}
    assert (0x56, 0xB4, 0xE9) in colors
