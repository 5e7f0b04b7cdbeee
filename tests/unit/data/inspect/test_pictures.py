import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib import style
from matplotlib.colors import to_rgb

from nnunetv2_d2net.data.inspect.inspect_cohort import Inspection
from nnunetv2_d2net.data.inspect.matrix_picture import COLORS, SUSPICIOUS, draw_matrix
from nnunetv2_d2net.data.inspect.range_pictures import OUTLIER, draw_intensities, draw_volumes
from nnunetv2_d2net.data.inspect.record import ABSENT, AVAILABLE, UNREADABLE, CaseRecord, Finding


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
    return Inspection(list(names), ["tumor"], records, [Finding(bad.case, "unreadable", "f", "r", "m")])


def share_of(color, picture):
    wanted = np.round(np.array(to_rgb(color)) * 255)
    return (np.abs(picture[..., :3].astype(int) - wanted).max(-1) <= 2).mean()


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("n", [1, 10, 61, 1500])
def test_every_case_is_in_the_matrix(tmp_path, n):
    draw_matrix(cohort(n), tmp_path / "a.png", "Dataset001_A")
    healthy = [record for record in cohort(n + 1).records if all(record.pattern)]
    draw_matrix(Inspection(["T1", "T2"], [], healthy, []), tmp_path / "b.png", "Dataset002_B")
    picture, without = read(tmp_path / "a.png"), read(tmp_path / "b.png")
    for color in (COLORS[UNREADABLE], COLORS[ABSENT], SUSPICIOUS):
        rows = picture[200:-120]  # the legend is below, the title above
        assert share_of(color, rows) > 0, color
    assert share_of(COLORS[UNREADABLE], without) == 0
    assert share_of(COLORS[AVAILABLE], without) > 0.02


@pytest.mark.parametrize("n", [1, 300])
def test_ranges_of_any_number_of_cases_and_modalities(tmp_path, n):
    draw_volumes(cohort(n), tmp_path / "v.png", "A")
    draw_intensities(cohort(n, ("a", "b", "c", "d", "e")), tmp_path / "i.png", "A")
    for name in ("v.png", "i.png"):
        picture = read(tmp_path / name).astype(int)
        assert (picture[..., 2] - picture[..., 0] > 60).any()  # bluish: dots are translucent, thin bars smoothed


@pytest.mark.parametrize("look", ["default", "seaborn-v0_8-poster", "ggplot"])
def test_an_outlier_is_colored_and_named_whatever_style_another_library_has_left(tmp_path, look):
    with style.context(look):
        outlier_is_colored(tmp_path)


def outlier_is_colored(tmp_path):
    seen = cohort(20)
    for record in seen.records:
        record.volumes_ml["tumor"] = 10.0
    draw_volumes(seen, tmp_path / "plain.png", "A")
    assert share_of(OUTLIER, read(tmp_path / "plain.png")) == 0
    seen.records[3].volumes_ml["tumor"] = 900.0
    draw_volumes(seen, tmp_path / "outlier.png", "A")
    assert share_of(OUTLIER, read(tmp_path / "outlier.png")) > 0
