from statistics import fmean

import pytest

from nnunetv2_d2net.study.scores.published import published_figures, published_tables
from nnunetv2_d2net.study.scores.tables import subset_order

SUBSETS = subset_order(["FLAIR", "T1", "T1ce", "T2"])


def figures():
    return list(published_figures().itertuples())


def table_one():
    cells = {}
    for row in figures():
        if row.table == "I":
            cells.setdefault((row.method, row.region), {})[row.subset] = row.value
    return cells


def test_printed_means_are_the_means_of_the_cells():
    cells = table_one()
    assert len(cells) == 7 * 3
    for line, values in cells.items():
        assert list(values) == [*SUBSETS, "mean of 15"]
        mean = fmean(values[subset] for subset in SUBSETS)
        # HeMIS's printed mean of the whole tumor is 0.492, its cells' is 0.448
        expected = 0.448 if line == ("HeMIS", "whole tumor") else values["mean of 15"]
        # CRNet's tumor core, 0.51447, is printed as 0.515
        assert mean == pytest.approx(expected, abs=0.0006), line


def test_cells_by_name():
    d2net = {region: values for (method, region), values in table_one().items() if method == "D2-Net"}
    assert [d2net[region]["FLAIR+T1+T1ce+T2"] for region in ("whole tumor", "tumor core", "enhancing tumor")] == [
        0.888,
        0.801,
        0.684,
    ]
    assert d2net["tumor core"]["FLAIR+T1+T2"] == 0.637
    assert d2net["enhancing tumor"]["T1ce"] == 0.663


def test_other_figures():
    values = {(row.method, row.metric, row.region): row.value for row in figures() if row.table == "VII"}
    assert values["D2-Net", "hd95", "enhancing tumor"] == 18.4
    assert values["D2-Net", "hd95_sd", "enhancing tumor"] == 11.1
    assert values["D2-Net", "assd", "whole tumor"] == 8.2
    assert (values["D2-Net", "parameters", ""], values["D2-Net", "flops", ""]) == (5.1e6, 4.2e10)
    means = {(row.method, row.region): row.value for row in figures() if not row.table}
    assert len(means) == 9
    assert means["RFNet", "tumor core"] == 0.765
    assert means["DeMoSeg", "enhancing tumor"] == 0.649


def test_every_row_says_where_it_is_from():
    for row in figures():
        assert row.source
        assert row.dataset.startswith("BraTS 2018")
        assert row.value >= 0
        assert row.metric != "dice" or row.value <= 1


def test_layout():
    (dice_title, dice), (distances_title, distances) = published_tables()
    assert (dice_title, distances_title) == ("Dice", "Distances in mm, mean of 15 subsets")
    assert len(dice) == 1 + 10 * 3
    assert dice[0] == ["region", "method", *SUBSETS, "mean of 15", "data", "source"]
    hemis = dice[1]
    assert (hemis[:3], hemis[17:19]) == (["whole tumor", "HeMIS", "0.352"], ["0.492", "BraTS 2018"])
    assert "-" not in hemis
    origin = "BraTS 2018 (other split)", "README of DeMoSeg"
    assert dice[-1] == ["enhancing tumor", "DeMoSeg", *["-"] * 15, "0.649", *origin]
    regions = ("whole tumor", "tumor core", "enhancing tumor")
    assert distances[0] == ["method", *(f"{metric} {region}" for metric in ("HD95", "ASSD") for region in regions)]
    assert [row[0] for row in distances[1:]] == list(dict.fromkeys(row[1] for row in dice[1:22]))
    assert distances[-1] == [
        "D2-Net",
        "9.9 ± 6.9",
        "10.3 ± 6.8",
        "18.4 ± 11.1",
        "8.2 ± 4.9",
        "10.3 ± 5.3",
        "13.7 ± 7.1",
    ]
