import math

import numpy as np
import pytest
from scipy import stats

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.scores.comparison import (
    Comparison,
    compare_all,
    compare_arms,
    holm,
    mean_interval,
    read_comparison,
    wilcoxon_p,
    write_comparison,
)
from nnunetv2_d2net.study.scores.metrics import CaseScore

SUBSETS = ("T1", "T2", "T1+T2")


def arm(rng, gain=0.0, n=12, base=None):
    """Dice of n cases, 3 subsets and 2 regions."""
    base = np.random.default_rng(5).uniform(0.3, 0.7, (n, 3, 2)) if base is None else base
    dice = base + gain + rng.normal(0, 0.02, base.shape) * (gain != 0)
    return [
        CaseScore(f"c{i:02d}", subset, region, float(dice[i, j, k]), 1.0, 1.0, 1.0, 5, 5)
        for i in range(len(base))
        for j, subset in enumerate(SUBSETS)
        for k, region in enumerate(("whole", "core"))
    ]


def compare(ours, theirs, **settings):
    return compare_arms(ours, theirs, arm="new", rival="old", modalities=["T1", "T2"], resamples=499, **settings)


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; never falling: the last becomes 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


def test_wilcoxon_known_values():
    # all of n differences of one sign: 2 of the 2^n equally likely sign patterns are as extreme
    assert wilcoxon_p([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 2**6)
    # ranks of the negatives 1 + 2: sums of at most 3 come from {}, {1}, {2}, {3}, {1, 2}: 5 of 64, two-sided
    assert wilcoxon_p([-1, -2, 3, 4, 5, 6]) == pytest.approx(10 / 64)
    assert wilcoxon_p([0.0, 0.0, 0.0]) == 1.0
    assert wilcoxon_p([0.3]) == 1.0


def test_rows():
    ours, theirs = arm(np.random.default_rng(0), gain=0.03), arm(np.random.default_rng(1))
    rows = compare(ours, theirs)
    assert [(row.region, row.subset) for row in rows] == [
        (region, subset) for region in ("whole", "core", "mean") for subset in (*SUBSETS, "mean of 3")
    ]
    first = rows[0]
    pairs = [(a.dice, b.dice) for a, b in zip(ours, theirs, strict=True) if (a.subset, a.region) == ("T1", "whole")]
    differences = np.array([a - b for a, b in pairs])
    assert (first.arm, first.rival, first.n) == ("new", "old", 12)
    assert first.mean_difference == pytest.approx(differences.mean())
    assert first.p == pytest.approx(stats.wilcoxon(*zip(*pairs, strict=True)).pvalue)
    assert first.ci_low < first.mean_difference < first.ci_high
    assert [row.p_holm for row in rows[:3]] == pytest.approx(holm([row.p for row in rows[:3]]))
    overall = rows[3]
    assert overall.p == overall.p_holm
    assert overall.mean_difference == pytest.approx(np.mean([row.mean_difference for row in rows[:3]]))
    assert rows[8].mean_difference == pytest.approx((rows[0].mean_difference + rows[4].mean_difference) / 2)


def test_order_of_cases_means_nothing():
    ours, theirs = arm(np.random.default_rng(0), gain=0.03), arm(np.random.default_rng(1))
    assert compare(ours[::-1], theirs)[-1] == compare(ours, theirs)[-1]


def test_identical_arms():
    for row in compare(arm(np.random.default_rng(0)), arm(np.random.default_rng(0))):
        assert row[5:] == (0.0, 0.0, 0.0, 1.0, 1.0)


def test_only_what_both_have():
    ours, theirs = arm(np.random.default_rng(0), gain=0.03), arm(np.random.default_rng(1))
    fewer = [row for row in theirs if row.subset != "T1+T2" and not (row.subset == "T2" and row.case < "c04")]
    counts = {row.subset: row.n for row in compare(ours, fewer)}
    assert counts == {"T1": 12, "T2": 8, "mean of 2": 8}
    other_cases = [row._replace(case="x" + row.case) for row in theirs]
    assert compare(ours, other_cases) == []


def test_every_pair_once_the_later_arm_first():
    arms = {name: arm(np.random.default_rng(i), gain=0.01 * i, n=3) for i, name in enumerate("abc")}
    pairs = dict.fromkeys((row.arm, row.rival) for row in compare_all(arms))
    assert list(pairs) == [("b", "a"), ("c", "a"), ("c", "b")]


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = mean_interval(rng.normal(0.1, 1, 30), resamples=399)
        hits += low <= 0.1 <= high
    assert 0.89 <= hits / 200 <= 0.985  # 95 % to within three standard errors, and 30 cases that fall a little short


def test_intervals_of_degenerate_samples():
    assert all(math.isnan(end) for end in mean_interval([0.2]))
    assert mean_interval([0.2, 0.2, 0.2]) == (0.2, 0.2)
    low, high = mean_interval([0.0] * 11 + [0.5])
    assert 0 <= low < 0.5 / 12 < high
    assert mean_interval([0.1, 0.3, 0.2]) == mean_interval([0.1, 0.3, 0.2])


def test_file(tmp_path):
    rows = compare(arm(np.random.default_rng(0), gain=0.1, n=1), arm(np.random.default_rng(1), n=1))
    write_comparison(rows, tmp_path / "comparison.csv")
    text = (tmp_path / "comparison.csv").read_text()
    assert text.startswith("arm,rival,subset,region,n,mean_difference,ci_low,ci_high,p,p_holm\nnew,old,T1,whole,1,0.")
    assert ",,,1,1\n" in text
    again = read_comparison(tmp_path / "comparison.csv")
    assert [row[:5] for row in again] == [row[:5] for row in rows]
    assert math.isnan(again[0].ci_low)


@pytest.mark.parametrize("text", ["", "x,y\n1,2\n", ",".join(Comparison._fields) + "\na,b,T1,whole,many,1,1,1,1,1\n"])
def test_damaged_file(tmp_path, text):
    (tmp_path / "comparison.csv").write_text(text)
    with pytest.raises(UserError, match=r"comparison.csv cannot be read .*: run d2net benchmark again"):
        read_comparison(tmp_path / "comparison.csv")
