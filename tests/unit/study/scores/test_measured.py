import pytest

from nnunetv2_d2net.plugin.prediction.note import Measured, read_measured
from nnunetv2_d2net.study.scores.measured import keep_scores
from nnunetv2_d2net.study.scores.metrics import CaseScore


def score(case, subset, region, dice):
    return CaseScore(case, subset, region, dice, 1.0, 1.0, 1.0, 10, 10)


def test_mean_spread_and_number_of_cases_are_kept_without_means_over_regions_and_subsets(tmp_path):
    scores = [score(case, "T1", "core", dice) for case, dice in zip("abc", (0.2, 0.4, 0.6), strict=True)]
    scores += [score(case, "T1", "whole", 1.0) for case in "abc"]
    scores += [score("a", "T1+T2", "core", 0.9), score("a", "T1+T2", "whole", 1.0)]
    keep_scores(scores, tmp_path, "three cases", {"fold_0/checkpoint_final.pth": "0" * 64})
    table = read_measured(tmp_path)
    assert [(subset, *regions) for subset, regions in table.items()] == [
        ("T1", "core", "whole"),
        ("T1+T2", "core", "whole"),
    ]
    assert table["T1"]["core"] == pytest.approx((0.4, 0.2, 3))
    assert table["T1"]["whole"] == Measured(1.0, 0.0, 3)
    assert table["T1+T2"]["core"] == Measured(0.9, None, 1)
    assert read_measured(tmp_path, {"fold_0/checkpoint_final.pth": "1" * 64}) == {}
