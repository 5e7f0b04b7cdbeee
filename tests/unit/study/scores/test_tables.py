import csv
import json
import math
import os
from statistics import pstdev, stdev

import pytest

from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import (
    Inversions,
    arms_table,
    count_inversions,
    dice_by_subset,
    empty_table,
    inversions_line,
    long_table,
    paper_table,
    subset_order,
    summarize,
    values_of,
    write_dice_tables,
    write_tables,
)

MODALITIES = ["T1", "T2"]


def score(case, subset, region, dice, sizes=(5, 5)):
    return CaseScore(case, subset, region, dice, 10 * (1 - dice), 1 - dice, dice, *sizes)


SCORES = [
    score("a", "T1", "whole", 0.8),
    score("b", "T1", "whole", 0.4),
    score("a", "T1", "core", 1.0, (0, 0)),
    score("b", "T1", "core", 0.0, (0, 3)),
    score("a", "T1+T2", "whole", 0.9),
    score("a", "T1+T2", "core", 0.5),
]


def test_the_mean_over_subsets_is_by_weight():
    whole = summarize(SCORES, "dice", MODALITIES, {"T1": 1.0, "T1+T2": 3.0})["whole"]["mean of 2"]
    assert whole.mean == pytest.approx((0.6 + 3 * 0.9) / 4)
    assert whole.sd == pytest.approx(pstdev([0.6, 0.9, 0.9, 0.9]))
    assert whole.n == 2


def test_order_of_the_paper():
    expected = [
        "T2",
        "T1ce",
        "T1",
        "FLAIR",
        "T1ce+T2",
        "T1+T1ce",
        "FLAIR+T1",
        "T1+T2",
        "FLAIR+T2",
        "FLAIR+T1ce",
        "FLAIR+T1+T1ce",
        "FLAIR+T1+T2",
        "FLAIR+T1ce+T2",
        "T1+T1ce+T2",
        "FLAIR+T1+T1ce+T2",
    ]
    assert subset_order(["FLAIR", "T1", "T1ce", "T2"]) == expected
    other = subset_order(["t1", "T1CE", "t2", "Flair"])
    assert [set(name.lower().split("+")) for name in other] == [set(name.lower().split("+")) for name in expected]
    assert other[-1] == "t1+T1CE+t2+Flair"


def test_other_modalities_by_size_then_channel():
    assert subset_order(["B", "A"]) == ["B", "A", "B+A"]
    assert len(set(subset_order(list("abcd")))) == 15


def test_summaries():
    found = summarize(SCORES, "dice", MODALITIES)
    assert list(found) == ["whole", "core", "mean"]
    assert list(found["whole"]) == ["T1", "T1+T2", "mean of 2"]
    whole, core, mean = (found[region]["T1"] for region in found)
    assert whole == pytest.approx((0.6, stdev([0.8, 0.4]), 2, 0, 0))
    assert core == pytest.approx((0.5, stdev([1, 0]), 2, 1, 1))
    assert mean == pytest.approx((0.55, stdev([0.9, 0.2]), 2, 0, 0))
    over_subsets = found["whole"]["mean of 2"]
    assert over_subsets == pytest.approx((0.75, pstdev([0.6, 0.9]), 2, 0, 0))
    assert math.isnan(found["whole"]["T1+T2"].sd)


def test_values_of_every_case_with_its_mean_over_regions_below():
    columns = ["case", "subset", "region", "value", "both_empty", "one_empty"]
    assert list(values_of(SCORES, "dice")[columns].itertuples(name=None)) == [
        (0, "a", "T1", "whole", 0.8, False, False),
        (1, "b", "T1", "whole", 0.4, False, False),
        (2, "a", "T1", "core", 1.0, True, False),
        (3, "b", "T1", "core", 0.0, False, True),
        (4, "a", "T1+T2", "whole", 0.9, False, False),
        (5, "a", "T1+T2", "core", 0.5, False, False),
        (6, "a", "T1", "mean", 0.9, False, False),
        (7, "b", "T1", "mean", 0.2, False, False),
        (8, "a", "T1+T2", "mean", 0.7, False, False),
    ]


def test_no_scores():
    assert summarize([], "dice", MODALITIES) == {}


def test_table_of_the_paper():
    table = paper_table(summarize(SCORES, "dice", MODALITIES), "dice", MODALITIES)
    assert table.header == [["T1", "●", "●", "mean of 2"], ["T2", "○", "●", ""]]
    assert table.rows[:3] == [
        ["whole", "0.600", "0.900", "0.750"],
        ["± sd", "0.283", "-", "0.150"],
        ["n", "2", "1", "2"],
    ]
    assert "| whole | 0.600 | 0.900 | 0.750     |" in table.markdown()
    latex = table.latex()
    assert r"T1 & $\bullet$ & $\bullet$ & mean of 2 \\" in latex
    assert r"$\pm$ sd & 0.283 & - & 0.150 \\" in latex
    assert latex.count(r"\\") == 2 + 9


def test_names_are_escaped_in_latex():
    scores = [score("a", "T_1", "a&b 50%", 0.5)]
    latex = paper_table(summarize(scores, "dice", ["T_1"]), "dice", ["T_1"]).latex()
    assert r"a\&b 50\% & 0.500" in latex
    assert r"T\_1 & $\bullet$" in latex


def test_a_plain_folder_has_a_column_of_its_name():
    summaries = summarize([score("a", "all given", "whole", 0.5)], "hd95", MODALITIES)
    table = paper_table(summaries, "hd95", MODALITIES)
    assert table.header == [["", "all given"]]
    assert table.rows[0] == ["whole", "5.00"]


def test_terminal_tables():
    text = long_table(summarize(SCORES, "hd95", MODALITIES), "hd95")
    assert text.startswith("HD95 (mm)\n\n| available | n | whole")
    assert "| T1        | 2 | 4.00 ± 2.83 | 5.00 ± 7.07 |" in text
    assert "| T1+T2     | 1 | 1.00 ± -    |" in text
    empty = empty_table(summarize(SCORES, "dice", MODALITIES))
    assert "| T1        | 0 / 0 | 1 / 1 |" in empty
    assert "T1+T2" not in empty
    assert not empty_table(summarize(SCORES[:2], "dice", MODALITIES))


def test_arms_side_by_side():
    better = [row._replace(dice=min(1.0, row.dice + 0.05), hd95=row.hd95 + 1) for row in SCORES]
    dice = arms_table({"one": SCORES, "two": better}, "dice", MODALITIES)
    assert dice.header[0] == ["T1", "", "●", "●", "mean of 2"]
    assert dice.rows[:2] == [
        ["whole", "one", "0.600", "0.900", "0.750"],
        ["whole", "two", "0.650*", "0.950*", "0.800*"],
    ]
    hd95 = arms_table({"one": SCORES, "two": better[:4], "three": better[4:5], "none": []}, "hd95", MODALITIES)
    assert hd95.title == "HD95 (mm)"
    assert hd95.rows == [
        ["whole", "one", "4.00*", "1.00*", "2.50"],
        ["whole", "two", "5.00", "-", "-"],
        ["whole", "three", "-", "2.00", "-"],
        ["core", "one", "5.00*", "5.00", "5.00"],
        ["core", "two", "6.00", "-", "-"],
        ["core", "three", "-", "-", "-"],
        ["mean", "one", "4.50*", "3.00", "3.75"],
        ["mean", "two", "5.50", "-", "-"],
        ["mean", "three", "-", "-", "-"],
    ]


def test_files(tmp_path):
    text = write_tables(SCORES, tmp_path, MODALITIES)
    assert all(title in text for title in ("Dice", "HD95 (mm)", "ASSD (mm)", "Surface Dice", "both masks empty"))
    names = {
        f"table_{metric}.{end}" for metric in ("dice", "hd95", "assd", "surface_dice") for end in ("csv", "md", "tex")
    }
    assert {path.name for path in tmp_path.iterdir()} == names | {"tables.json"}
    content = json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))
    assert content["dice"]["core"]["T1"] == {"mean": 0.5, "sd": 0.707107, "n": 2, "both_empty": 1, "one_empty": 1}
    assert content["dice"]["core"]["T1+T2"]["sd"] is None
    with (tmp_path / "table_hd95.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["region", "statistic", "T1", "T1+T2", "mean of 2"]
    assert rows[1] == ["whole", "mean", "4.0", "1.0", "2.5"]
    assert ["core", "one_empty", "1", "0", "1"] in rows


def test_files_to_the_letter(tmp_path, monkeypatch):
    """On every system."""
    monkeypatch.setattr(os, "linesep", "\r\n")
    scores = [
        score("a", "T1", "whole", 0.5),
        score("a", "T2", "whole", 0.25, (0, 3)),
        score("a", "T1+T2", "whole", 0.25, (0, 0)),
    ]
    text = write_tables(scores, tmp_path, MODALITIES)
    assert text.endswith("""
Surface Dice

| available | n | whole         |
|-----------|---|---------------|
| T1        | 1 | 0.500 ± -     |
| T2        | 1 | 0.250 ± -     |
| T1+T2     | 1 | 0.250 ± -     |
| mean of 3 | 3 | 0.333 ± 0.118 |

subsets that score above one that holds them (Dice): whole 1 of 2

Cases with both masks empty / with one empty

| available | whole |
|-----------|-------|
| T2        | 0 / 1 |
| T1+T2     | 1 / 0 |
| mean of 3 | 1 / 1 |
""")
    files = {path.name: path.read_bytes().decode() for path in tmp_path.iterdir()}
    assert (
        files["table_dice.csv"]
        == """\
region,statistic,T1,T2,T1+T2,mean of 3
whole,mean,0.5,0.25,0.25,0.333333
whole,sd,,,,0.117851
whole,n,1,1,1,3
whole,both_empty,0,0,1,1
whole,one_empty,0,1,0,1
"""
    )
    assert (
        files["table_dice.tex"]
        == r"""% Dice
\begin{tabular}{lrrrr}
\toprule
T1 & $\bullet$ & $\circ$ & $\bullet$ & mean of 3 \\
T2 & $\circ$ & $\bullet$ & $\bullet$ &  \\
\midrule
whole & 0.500 & 0.250 & 0.250 & 0.333 \\
$\pm$ sd & - & - & - & 0.118 \\
n & 1 & 1 & 1 & 3 \\
\bottomrule
\end{tabular}
"""
    )
    assert files["table_dice.md"].startswith("Dice\n\n| T1    | ●     | ○     | ●     | mean of 3 |\n")
    assert files["tables.json"].startswith('{\n "modalities": [\n  "T1",\n  "T2"\n ],\n "dice": {\n  "whole": {\n')


def test_one_subset_alone_is_above_none(tmp_path):
    assert write_tables(SCORES[1:4:2], tmp_path, MODALITIES).endswith("""
Surface Dice

| available | n | whole     | core      | mean      |
|-----------|---|-----------|-----------|-----------|
| T1        | 1 | 0.400 ± - | 0.000 ± - | 0.200 ± - |

Cases with both masks empty / with one empty

| available | whole | core  |
|-----------|-------|-------|
| T1        | 0 / 0 | 0 / 1 |
""")
    assert not inversions_line({})


def test_dice_alone(tmp_path):
    scores = [
        score("a", "T1+T2", "whole", 1.0),
        score("a", "T1+T2", "core", 1.0),
        score("a", "T2", "whole", 0.5),
        score("a", "T2", "core", 0.0),
        score("a", "T1", "whole", 0.25),
        score("a", "T1", "core", 0.75),
        score("b", "T2", "whole", 1.0),
        score("b", "T2", "core", 0.5),
    ]
    assert dice_by_subset(scores) == {
        "T1": {"whole": 0.25, "core": 0.75},
        "T2": {"whole": 0.75, "core": 0.25},
        "T1+T2": {"whole": 1.0, "core": 1.0},
    }
    thirds = [score(case, "T1", "whole", dice) for case, dice in zip("abc", (0.2, 0.6, 0.7), strict=True)]
    assert dice_by_subset(thirds) == {"T1": {"whole": 0.5}}  # to the last bit
    text = write_dice_tables(scores, tmp_path)
    assert (tmp_path / "dice.md").read_text(encoding="utf-8") == text
    assert "| T1+T2     | 1.000 | 1.000 | 1.000 |" in text
    assert (tmp_path / "dice.csv").read_bytes().decode().split("\r\n") == [
        "available,whole,core,mean",
        "T1,0.250,0.750,0.500",
        "T2,0.750,0.250,0.500",
        "T1+T2,1.000,1.000,1.000",
        "mean of 3,0.667,0.667,0.667",
        "",
    ]
    with (tmp_path / "dice_per_case.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["case", "subset", "region", "dice"]
    assert rows[:3] == [["a", "T1", "whole", "0.25"], ["a", "T1", "core", "0.75"], ["a", "T2", "whole", "0.5"]]


def test_subsets_above_one_that_holds_them_are_counted_over_the_cases_that_both_have(tmp_path):
    assert count_inversions(SCORES) == {"whole": Inversions(0, 1), "core": Inversions(1, 1), "mean": Inversions(1, 1)}
    text = write_tables(SCORES, tmp_path, MODALITIES)
    assert "subsets that score above one that holds them (Dice): whole 0 of 1, core 1 of 1, mean 1 of 1\n" in text
    assert json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))["inversions"]["core"] == {
        "inverted": 1,
        "pairs": 1,
    }


def test_pairs_of_all_sizes_count_equal_means_do_not_and_others_are_no_pairs():
    dice = {"A": 0.5, "B": 0.1, "C": 0.6, "A+B": 0.4, "A+C": 0.7, "B+C": 0.2, "A+B+C": 0.5}
    scores = [score(case, subset, "whole", value) for case in "xy" for subset, value in dice.items()]
    assert count_inversions(scores) == {"whole": Inversions(4, 12)}  # A above A+B; C above B+C and all; A+C above all
    assert count_inversions([row for row in scores if row.subset in ("A", "B+C")]) == {}
    assert count_inversions([score("x", "all given", "whole", 0.5)]) == {}
