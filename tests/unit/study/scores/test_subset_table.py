import csv

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_d2net.study.scores.case_picture import draw_case
from nnunetv2_d2net.study.scores.subset_table import Score, dice, mean_table, score_subsets, write_tables

DATASET = {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "file_ending": ".nii.gz"}


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array.astype(np.uint8)), str(path))


def test_dice_against_counting():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 5, 6, 7)) > 0.5
    both = sum(x and y for x, y in zip(a.ravel(), b.ravel(), strict=True))
    assert dice(a, b) == pytest.approx(2 * both / (sum(a.ravel()) + sum(b.ravel())))


def test_dice_of_empty_masks_is_brats_convention():
    empty, full = np.zeros(4, bool), np.ones(4, bool)
    assert (dice(empty, empty), dice(empty, full), dice(full, empty), dice(full, full)) == (1, 0, 0, 1)


@pytest.fixture
def folders(tmp_path):
    reference = np.zeros((2, 4, 4))
    reference[0] = 1
    reference[0, :2] = 2
    reference[1, 0] = 3  # ignored
    write(tmp_path / "labels" / "case.nii.gz", reference)
    write(tmp_path / "predictions" / "T1+T2" / "case.nii.gz", np.where(reference == 3, 2, reference))
    write(tmp_path / "predictions" / "T1" / "case.nii.gz", np.where(reference == 2, 1, reference * 0))
    return tmp_path


def test_scores(folders):
    scores = score_subsets(folders / "predictions", folders / "labels", DATASET)
    assert [(s.subset, s.region) for s in scores] == [
        ("T1", "whole"),
        ("T1", "core"),
        ("T1+T2", "whole"),
        ("T1+T2", "core"),
    ]
    assert [s.dice for s in scores] == pytest.approx([2 * 8 / (8 + 16), 0, 1, 1])


def test_tables(folders):
    scores = score_subsets(folders / "predictions", folders / "labels", DATASET)
    text = write_tables(scores, folders)
    assert mean_table(scores)[1:] == [
        ["T1", "0.667", "0.000", "0.333"],
        ["T1+T2", "1.000", "1.000", "1.000"],
        ["mean of 2", "0.833", "0.500", "0.667"],
    ]
    assert (folders / "dice.md").read_text() == text
    assert "| T1+T2     | 1.000 | 1.000 | 1.000 |" in text
    with (folders / "dice_per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["subset"] == "T1"
    assert float(rows[0]["dice"]) == pytest.approx(2 / 3)


def test_means_are_over_cases():
    scores = [Score(case, "T1", "whole", value) for case, value in (("a", 0.2), ("b", 0.6))]
    assert mean_table(scores)[1] == ["T1", "0.400", "0.400"]


def test_picture_shows_every_panel(folders):
    rng = np.random.default_rng(0)
    image = folders / "image.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(rng.random((2, 4, 4))), str(image))
    label = folders / "labels" / "case.nii.gz"
    for n_panels in (2, 4):
        draw_case(
            folders / f"{n_panels}.png",
            images={f"m{i}": image for i in range(n_panels - 1)},
            segmentations={"reference": label},
            regions={"whole": (1, 2), "core": (2,)},
        )
    widths = [Image.open(folders / f"{n}.png").width for n in (2, 4)]
    assert widths[1] == 2 * widths[0]
    colors = Image.open(folders / "2.png").convert("RGB").getcolors(100000)
    assert any(r > 150 and b < 100 for _, (r, g, b) in colors)  # the core's yellow
