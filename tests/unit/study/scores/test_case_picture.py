import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from nnunetv2_d2net.base.palette import REGION_COLORS
from nnunetv2_d2net.study.scores.case_picture import draw_case


def write(path, array):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


@pytest.fixture
def figures(monkeypatch):
    """Keep what is drawn."""
    kept, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: kept.append(figure) or save(figure, path))
    return kept


def test_the_slice_with_most_of_the_tumor_in_gray_under_the_regions(tmp_path, figures):
    reference, prediction = np.zeros((2, 3, 12, 12), np.uint8)
    reference[0, :4, :4] = 2
    reference[1, :10, :10] = 1
    reference[1, :2, :2] = prediction[1, 4:8, 4:8] = 2
    prediction[2] = 1
    t1, t2 = np.random.default_rng(0).uniform(1, 9, (2, 3, 12, 12))
    t1[:, :6] = t2[1] = 0
    files = dict(zip(("t1", "t2", "reference", "prediction"), (t1, t2, reference, prediction), strict=True))
    for name, array in files.items():
        write(tmp_path / f"{name}.nii.gz", array)
    images, segmentations = (
        {name: tmp_path / f"{name}.nii.gz" for name in names} for names in (("t1", "t2"), ("reference", "prediction"))
    )
    regions = {"whole": (1, 2), "core": (2,)}
    draw_case(tmp_path / "picture.png", images=images, segmentations=segmentations, regions=regions)
    (figure,) = figures
    assert [axis.get_title() for axis in figure.axes] == list(files)
    assert to_hex(figure.get_facecolor()) == "#000000"  # the titles are white
    for axis, image in zip(figure.axes, (t1, t2, t1, t1), strict=True):
        shown = axis.images[0]
        assert shown.cmap.name == "gray"
        np.testing.assert_array_equal(shown.get_array(), image[1])
    assert figure.axes[0].images[0].get_clim() == tuple(np.percentile(t1[1, 6:], (1, 99)))
    assert figure.axes[1].images[0].get_clim() == (0, 1)  # an empty image is black
    for axis, label in zip(figure.axes, (None, None, reference, prediction), strict=True):
        overlays = [] if label is None else list(zip(axis.images[1:], regions.values(), strict=True))
        for color, (overlay, values) in zip(REGION_COLORS, overlays, strict=False):
            np.testing.assert_array_equal(np.isfinite(overlay.get_array()), np.isin(label[1], values))
            assert to_hex(overlay.cmap(0)) == color.lower()
            assert 0 < overlay.get_alpha() < 1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(regions)
    assert [to_hex(patch.get_facecolor()) for patch in legend.get_patches()] == [c.lower() for c in REGION_COLORS[:2]]


def test_picture_shows_every_panel(tmp_path):
    rng = np.random.default_rng(0)
    reference = np.ones((2, 4, 4), np.uint8)
    reference[0, :2] = 2
    image, label = tmp_path / "image.nii.gz", tmp_path / "case.nii.gz"
    write(image, rng.random((2, 4, 4)))
    write(label, reference)
    for n_panels in (2, 4):
        draw_case(
            tmp_path / f"{n_panels}.png",
            images={f"m{i}": image for i in range(n_panels - 1)},
            segmentations={"reference": label},
            regions={"whole": (1, 2), "core": (2,)},
        )
    widths = [Image.open(tmp_path / f"{n}.png").width for n in (2, 4)]
    assert widths[1] == 2 * widths[0]
    colors = Image.open(tmp_path / "2.png").convert("RGB").getcolors(100000)
    assert any(r > 150 and b < 100 for _, (r, g, b) in colors)  # the core's yellow


def test_a_patient_is_drawn_alike_however_the_file_lies(tmp_path):
    """Front on top and the patient's right on the left."""
    reference = np.zeros((2, 8, 8), np.uint8)
    reference[0, :3, :2] = 1  # lies LPS: in front, to the right
    upright, turned = (tmp_path / f"{name}.nii.gz" for name in ("upright", "turned"))
    write(upright, reference)
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(upright), "ARI"), turned)
    pictures = []
    for label in (upright, turned):
        path = label.with_suffix(".png")
        draw_case(path, images={"m": label}, segmentations={"reference": label}, regions={"whole": (1,)})
        pictures.append(np.asarray(Image.open(path).convert("L"), float))
    np.testing.assert_array_equal(*pictures)
    panel = pictures[0][30:-40, pictures[0].shape[1] // 2 :]  # between title and legend, the segmentation's
    drawn = np.argwhere(panel > 60)
    assert len(drawn)
    assert (drawn.mean(0) < np.divide(panel.shape, 2)).all()
