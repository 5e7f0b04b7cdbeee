import re
from statistics import stdev

import pytest

from nnunetv2_d2net.study.report.heat_maps import (
    availability,
    difference_color,
    ink,
    lead_group,
    luminance,
    value_color,
    value_group,
)
from tests.unit.study.report.synthetic import made_up

A = [0.5, 0.6, 0.7, 0.5, 0.6, 0.7, 0.5, 0.66]  # mean 0.595
BETTER = [value + 0.1 + 0.002 * i for i, value in enumerate(A)]


def test_cells_hold_the_means_and_share_a_scale():
    dice, hd95 = (value_group(made_up({"A": A, "B": BETTER}), metric) for metric in ("dice", "hd95"))
    assert (dice.low, dice.high) == ("0.5", "0.8")
    first, second = dice.maps
    assert list(first.rows) == ["A", "B", "A+B", "mean of 3"]
    assert [availability(name, ["A", "B"]) for name in first.rows] == [[True, False], [False, True], [True, True], []]
    assert first.rows["A"][0].text == "0.595"
    assert first.rows["A"][0].background == value_color((0.595 - 0.5) / 0.3)
    assert f"0.595 ± {stdev(A):.3f} (standard deviation), 8 cases" in first.rows["A"][0].tip
    assert second.rows["A"][0].text == "0.702"
    assert hd95.stops == dice.stops[::-1]  # bright is better in both
    assert hd95.maps[0].rows["A"][0].background == value_color(1.0)  # all alike, and the best


def test_a_lead_has_marks_and_its_interval():
    benchmark = made_up({"A": [v - 0.2 for v in A], "B": A, "C": BETTER})
    groups = {arm: lead_group(benchmark, arm).maps[0] for arm in benchmark.arms}
    cell = groups["C"].rows["A"][0]
    assert cell.text == "+0.107*"
    assert "best rival B 0.595" in cell.tip
    assert re.search(
        r"95 % CI \+0\.10\d to \+0\.11\d, p = 0\.008, p = 0\.023 after Holm's correction over the subsets, 8 cases",
        cell.tip,
    )
    assert groups["C"].rows["mean of 3"][0].text == "+0.107**"  # the mean over subsets is one test of its own
    assert groups["B"].rows["A"][0].text == "\N{MINUS SIGN}0.107*"
    assert "best rival C" in groups["A"].rows["A"][0].tip
    assert [cell.text for cell in lead_group(made_up({"A": A}), "A").maps[0].rows["A"]] == ["-"]


@pytest.mark.parametrize("color", [value_color, difference_color])
def test_ink_has_contrast_on_every_color(color):
    for step in range(-20, 21):
        background = color(step / 20)
        light, dark = sorted((luminance(background), 1.0 if ink(background) == "#fff" else 0.0), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
