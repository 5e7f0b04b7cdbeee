import numpy as np
import SimpleITK as sitk
from PIL import Image

from nnunetv2_d2net.study.scores.case_picture import draw_case


def write(path, array):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


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
