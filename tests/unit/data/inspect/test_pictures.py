from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib import style
from matplotlib.colors import to_rgb

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.inspect.pictures import COLORS, SUSPICIOUS, draw_pictures
from nnunetv2_d2net.data.inspect.record import ABSENT, AVAILABLE, UNREADABLE, CaseRecord, Finding, Inspection


def inspection_of(names, records, findings):
    channels = {str(m): name for m, name in enumerate(names)}
    labels = {"background": 0, "tumor": 1}
    dataset = Dataset.of({"channel_names": channels, "labels": labels, "file_ending": ".nii.gz"})
    return Inspection(Path("Dataset001_A"), "Tr", dataset, records, findings)


def cohort(n, names=("T1", "T2")):
    """All complete but one case in the middle, which lacks the last modality and cannot be read in the first."""
    records = [
        CaseRecord(
            f"case_{k}",
            [None] * len(names),
            None,
            [AVAILABLE] * len(names),
            head_ml=1500.0,
            volumes_ml={"tumor": float(k % 7)},
            percentiles=[[p * (1 + k / 100) for p in (1, 2, 3, 4, 5)]] * len(names),
        )
        for k in range(n)
    ]
    bad = records[n // 2]
    bad.states[0], bad.states[-1] = UNREADABLE, ABSENT
    return inspection_of(names, records, [Finding(bad.case, "unreadable", "f", "r", "m")])


def share_of(color, picture):
    wanted = np.round(np.array(to_rgb(color)) * 255)
    return (np.abs(picture[..., :3].astype(int) - wanted).max(-1) <= 2).mean()


def draw(inspection, folder):
    folder.mkdir()
    draw_pictures(inspection, folder)
    return {path.stem: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in folder.iterdir()}


@pytest.mark.parametrize("n", [1, 10, 61, 1500])
def test_every_case_is_in_the_matrix(tmp_path, n):
    picture = draw(cohort(n), tmp_path / "a")["cohort"]
    healthy = [record for record in cohort(n + 1).records if all(record.pattern)]
    without = draw(inspection_of(("T1", "T2"), healthy, []), tmp_path / "b")["cohort"]
    for color in (COLORS[UNREADABLE], COLORS[ABSENT], SUSPICIOUS):
        rows = picture[200:-120]  # the legend is below, the title above
        assert share_of(color, rows) > 0, color
    assert share_of(COLORS[UNREADABLE], without) == 0
    assert share_of(COLORS[AVAILABLE], without) > 0.02


@pytest.mark.parametrize("n", [1, 300])
def test_ranges_of_any_number_of_cases_and_modalities(tmp_path, n):
    pictures = draw(cohort(n, ("a", "b", "c", "d", "e")), tmp_path / "out")
    for name in ("volumes", "intensities"):
        picture = pictures[name].astype(int)
        assert (picture[..., 2] - picture[..., 0] > 60).any()  # bluish: dots are translucent, thin bars smoothed


@pytest.mark.parametrize("look", ["default", "seaborn-v0_8-poster", "ggplot"])
def test_an_outlier_is_colored_and_named_whatever_style_another_library_has_left(tmp_path, look):
    inspection = cohort(20)
    for record in inspection.records:
        record.volumes_ml["tumor"] = 10.0
    with style.context(look):
        plain = draw(inspection, tmp_path / "plain")["volumes"]
        inspection.records[3].volumes_ml["tumor"] = 900.0
        outlier = draw(inspection, tmp_path / "outlier")["volumes"]
    assert share_of(SUSPICIOUS, plain) == 0
    assert share_of(SUSPICIOUS, outlier) > 0


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cohort\.png cannot be written"):
        draw_pictures(cohort(1), tmp_path / "file")
