import math
import os

import numpy as np
import pytest
from scipy import stats

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.scores.comparison import (
    Comparison,
    compare_all,
    compare_arms,
    dice_tables,
    holm,
    mean_interval,
    permutation_p,
    read_comparison,
    shared_cases,
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


def compare(ours, theirs, resamples=499):
    return compare_arms(ours, theirs, arm="new", rival="old", modalities=["T1", "T2"], resamples=resamples)


def arms_that_differ_by(differences):
    """Dice of two arms, one subset and region, the rival's 0.5 in every case."""
    return [
        [CaseScore(f"c{i:02d}", "T1", "whole", 0.5 + d, 1.0, 1.0, 1.0, 5, 5) for i, d in enumerate(gains)]
        for gains in (differences, [0.0] * len(differences))
    ]


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; never falling: the last becomes 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3, 4, 5, 6], 2 / 2**6),  # all of one sign: 2 of the 2^n choices of signs are as extreme
        ([0.04, 0.02, 0.01, 0.05, 0.03] + [0.0] * 9, 0.0625),  # five that differ, nine that do not
        ([-1, 2, 4], 4 / 8),  # sums 7, 5, 3, 1 and their opposites: two of each are 5 or more
        ([-1, -1, 1, 1], 1.0),
        ([0.1, 0.1, 0.1], 0.25),  # equal but for rounding
        (np.float32([0.1, 0.1, 0.1]), 0.25),
        ([1e-6, 2e-6, 3e-6], 0.25),
        ([1.0] * 16, 2 / 2**16),  # the most that are all gone through
        ([0.0, 0.0, 0.0], 1.0),
        ([0.3], 1.0),
        ([], 1.0),
    ],
)
def test_permutations_by_hand(differences, p):
    assert permutation_p(differences) == pytest.approx(p)
    assert permutation_p([-difference for difference in differences]) == pytest.approx(p)


def test_permutations_against_scipy():
    values = np.random.default_rng(0).normal(0.4, 1, 10)
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert permutation_p(values) == pytest.approx(expected)


def test_drawn_permutations_come_near_to_all_of_them():
    """Of 17 differences, twice the binomial's tail: 13 or more of one sign are 3214 of 2^17 choices."""
    values = [1.0] * 13 + [-1.0] * 4
    assert permutation_p(values) == pytest.approx(2 * 3214 / 2**17, rel=0.03)
    assert permutation_p(values) == permutation_p(values)
    assert permutation_p([0.1] * 40) == pytest.approx(1 / 100_001)


def test_where_nothing_is_different_p_is_small_as_rarely_as_it_says():
    rng = np.random.default_rng(1)
    p = np.array([permutation_p(rng.normal(0, 1, 8)) for _ in range(1000)])
    assert [abs((p <= level).mean() - level) < 0.02 for level in (0.05, 0.25, 0.5)] == [True] * 3


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
    assert first.p == permutation_p(differences)
    assert first.p_ranks == pytest.approx(stats.wilcoxon(*zip(*pairs, strict=True)).pvalue)
    assert (first.mean, first.rival_mean) == pytest.approx(tuple(np.mean(pairs, axis=0)))
    assert (first.n_better, first.n_worse) == ((differences > 0).sum(), (differences < 0).sum())
    assert first.n_left_out == 0
    assert first.ci_low < first.mean_difference < first.ci_high
    assert [row.p_holm for row in rows[:3]] == pytest.approx(holm([row.p for row in rows[:3]]))
    overall = rows[3]
    assert overall.p == overall.p_holm
    assert overall.mean_difference == pytest.approx(np.mean([row.mean_difference for row in rows[:3]]))
    assert rows[8].mean_difference == pytest.approx((rows[0].mean_difference + rows[4].mean_difference) / 2)


def test_rows_have_the_interval_of_their_differences_of_4999_resamples_unless_told_otherwise():
    differences = -np.random.default_rng(0).exponential(0.05, 12).round(4)
    ours, theirs = arms_that_differ_by(differences)
    for resamples in (99, 499):
        (row,) = compare(ours, theirs, resamples)
        assert (row.ci_low, row.ci_high) == mean_interval(differences, resamples=resamples)
    (row,) = compare_arms(ours, theirs, arm="new", rival="old")
    assert (row.ci_low, row.ci_high) == mean_interval(differences) == mean_interval(differences, resamples=4999)


def test_order_of_cases_means_nothing():
    ours, theirs = arm(np.random.default_rng(0), gain=0.03), arm(np.random.default_rng(1))
    assert compare(ours[::-1], theirs)[-1] == compare(ours, theirs)[-1]


def test_identical_arms():
    for row in compare(arm(np.random.default_rng(0)), arm(np.random.default_rng(0))):
        assert row[5:10] == (0.0, 0.0, 0.0, 1.0, 1.0)
        assert row[-5:] == (0, 0, 0, 0.0, 1.0)


def test_only_what_both_have():
    ours, theirs = arm(np.random.default_rng(0), gain=0.03), arm(np.random.default_rng(1))
    fewer = [row for row in theirs if row.subset != "T1+T2" and not (row.subset == "T2" and row.case < "c04")]
    counts = {row.subset: row.n for row in compare(ours, fewer)}
    assert counts == {"T1": 12, "T2": 8, "mean of 2": 8}
    assert {row.subset: row.n_left_out for row in compare(ours, fewer)} == {"T1": 0, "T2": 4, "mean of 2": 4}
    other_cases = [row._replace(case="x" + row.case) for row in theirs]
    assert compare(ours, other_cases) == []


def test_every_pair_once_the_later_arm_first():
    arms = {name: arm(np.random.default_rng(i), gain=0.01 * i, n=3) for i, name in enumerate("abc")}
    rows = compare_all(arms, ["T1", "T2"])
    assert list(dict.fromkeys((row.arm, row.rival) for row in rows)) == [("b", "a"), ("c", "a"), ("c", "b")]
    assert [row.subset for row in rows[:4]] == [*SUBSETS, "mean of 3"]


def test_the_rival_sees_the_same_the_other_way_round():
    ours, theirs = arm(np.random.default_rng(0), gain=0.03), arm(np.random.default_rng(1))
    straight = compare_arms(theirs, ours, arm="old", rival="new", modalities=["T1", "T2"], resamples=499)
    for row, other in zip(compare(ours, theirs), straight, strict=True):
        assert row.reversed()[:4] == other[:4]
        assert row.reversed()[4:] == pytest.approx(other[4:])


def test_mean_and_ranks_may_disagree():
    """Better in 18 of 20 cases and much worse in two: worse on average, by no more than chance."""
    better = [0.01 + 0.001 * case for case in range(18)]
    (row,) = compare(*arms_that_differ_by([*better, -0.3, -0.35]))
    assert row.mean_difference < -0.01
    assert row.p > 0.3
    assert (row.n_better, row.n_worse) == (18, 2)
    assert row.rank_difference == pytest.approx((171 - 39) / 210)
    assert row.p_ranks == pytest.approx(stats.wilcoxon([*better, -0.3, -0.35]).pvalue)
    assert row.p_ranks < 0.05


def test_cases_that_all_arms_share():
    ours, theirs = arm(np.random.default_rng(0), gain=0.03, n=5), arm(np.random.default_rng(1), n=5)
    tables = [dice_tables(scores)["whole"] for scores in (ours, [row for row in theirs if row.case != "c01"])]
    shared, n_left_out = shared_cases(tables, ["T1", "T2"])
    assert shared.shape == (2, 4)
    assert n_left_out == 1
    assert shared[0] == pytest.approx(tables[0].loc[["c00", "c02", "c03", "c04"], ["T1", "T2"]].mean(axis=1))
    assert shared_cases(tables, ["T3"])[0].shape == (2, 0)


def test_means_over_subsets_are_by_weight():
    ours, theirs = arm(np.random.default_rng(0), gain=0.03, n=5), arm(np.random.default_rng(1), n=5)
    weights = {"T1": 3.0, "T2": 1.0, "T1+T2": 4.0}
    tables = [dice_tables(scores)["whole"] for scores in (ours, theirs)]
    expected = [(3 * t["T1"] + t["T2"] + 4 * t["T1+T2"]) / 8 for t in tables]
    shared, _ = shared_cases(tables, SUBSETS, weights)
    for case_means, of_arm in zip(shared, expected, strict=True):
        assert case_means == pytest.approx(of_arm.tolist())
    rows = compare_all({"old": theirs, "new": ours}, ["T1", "T2"], weights)
    (row,) = (row for row in rows if (row.subset, row.region) == ("mean of 3", "whole"))
    assert (row.mean, row.rival_mean) == pytest.approx([of_arm.mean() for of_arm in expected])
    single = {row.subset: row for row in rows if row.region == "whole"}
    assert single["T1"].mean == pytest.approx(tables[0]["T1"].mean())
    assert shared_cases(tables, ["T1"], {"T2": 1.0})[0][0] == pytest.approx(tables[0]["T1"].tolist())


@pytest.mark.parametrize(
    ("draw", "mean", "least"),
    [
        (lambda rng, n: rng.normal(0.1, 1, n), 0.1, {3: 0.93, 5: 0.94, 10: 0.94, 20: 0.94}),
        (lambda rng, n: 1.1 - rng.exponential(1, n), 0.1, {3: 0.88, 5: 0.91, 10: 0.92, 20: 0.93}),
    ],
    ids=["normal", "skewed"],
)
def test_intervals_cover_the_mean_of_few_cases(draw, mean, least):
    """Of 1000 samples, whose share has a standard error of 0.7 percent; docs/metrics.md has the figures."""
    for n, share in least.items():
        rng = np.random.default_rng(n)
        ends = np.array([mean_interval(draw(rng, n), resamples=499) for _ in range(1000)])
        covered = float(np.mean((ends[:, 0] <= mean) & (mean <= ends[:, 1])))
        assert share <= covered <= 0.985, (n, covered)


def test_intervals_of_degenerate_samples():
    assert all(math.isnan(end) for end in mean_interval([0.2]))
    assert mean_interval([0.2, 0.2, 0.2]) == (0.2, 0.2)
    # two values have the mean 0.2 with a standard error of 0.1; t of one degree of freedom is 12.706
    assert mean_interval([0.1, 0.3]) == pytest.approx((0.2 - 1.2706, 0.2 + 1.2706), abs=1e-4)
    # three have the mean 0.3 with a standard error of 0.1528. Below, t of two degrees of freedom is 4.303. Above, an
    # eighth of the samples that are not all alike is 0.1 twice and 0.2, of the lowest t: (0.1333 - 0.3) / 0.0333
    assert mean_interval([0.1, 0.2, 0.6]) == pytest.approx((0.3 - 0.1528 * 4.303, 0.3 + 0.1528 * 5), abs=1e-3)
    low, high = mean_interval([0.0] * 11 + [0.5])
    assert low < 0.5 / 12 < high < 0.2
    assert mean_interval([0.1, 0.3, 0.2]) == mean_interval([0.1, 0.3, 0.2])


def test_file(tmp_path):
    rows = compare(arm(np.random.default_rng(0), gain=0.1, n=1), arm(np.random.default_rng(1), n=1))
    write_comparison(rows, tmp_path / "comparison.csv")
    text = (tmp_path / "comparison.csv").read_text(encoding="utf-8")
    assert text.startswith(
        "arm,rival,subset,region,n,mean_difference,ci_low,ci_high,p,p_holm,mean,rival_mean,n_left_out,n_better,n_worse,"
        "rank_difference,p_ranks\nnew,old,T1,whole,1,0."
    )
    assert ",,,1,1,0." in text
    again = read_comparison(tmp_path / "comparison.csv")
    assert [row[:5] for row in again] == [row[:5] for row in rows]
    assert [row[-5:] for row in again] == [row[-5:] for row in rows]
    assert math.isnan(again[0].ci_low)


_HEADER = ",".join(Comparison._fields)


def test_the_file_to_the_letter(tmp_path, monkeypatch):
    """On every system."""
    monkeypatch.setattr(os, "linesep", "\r\n")
    figures = 1 / 3, math.nan, -0.25, 1 / 100_001, 0.1234567, 0.75, 0.5, 1, 2, 0, 1.0, 0.5
    write_comparison([Comparison("new", "old", "T1", "whole", 3, *figures)], tmp_path / "comparison.csv")
    assert (tmp_path / "comparison.csv").read_bytes().decode() == (
        f"{_HEADER}\nnew,old,T1,whole,3,0.333333,,-0.25,9.9999e-06,0.123457,0.75,0.5,1,2,0,1,0.5\n"
    )
    write_comparison([], tmp_path / "comparison.csv")  # of a single arm
    assert read_comparison(tmp_path / "comparison.csv") == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        ("x,y\n1,2\n", "other columns"),
        (f"{_HEADER}\na,b,T1,whole,many{',1' * 12}\n", ".*many"),
        (f"{_HEADER}\na,b,T1,whole,1\n", ""),
        (f"{','.join(Comparison._fields[:10])}\na,b,T1,whole,1,1,1,1,1,1\n", "an earlier version has written it"),
    ],
)
def test_damaged_file(tmp_path, text, reason):
    (tmp_path / "comparison.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rf"comparison.csv cannot be read \({reason}.*\): run d2net benchmark again"):
        read_comparison(tmp_path / "comparison.csv")
