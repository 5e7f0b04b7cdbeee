"""The list of the paper's arms, rows that are chosen, and what was measured beside what is printed."""

import math

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.cli.study import _TABLES
from nnunetv2_d2net.plugin.training.paper import ROWS
from nnunetv2_d2net.plugin.training.variants import find_trainer
from nnunetv2_d2net.study.paper_tables import NOTE, arm_of, choose_rows, means_of, measured_rows, rows_of_tables
from nnunetv2_d2net.study.scores.metrics import CaseScore


def test_every_row_is_listed_with_its_trainer_and_what_is_printed(capsys):
    assert main(["study", "--list"]) == 0
    table, _, note = capsys.readouterr().out.rstrip().rpartition("\n\n")
    assert note == NOTE
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(lines) == len(ROWS)
    assert ["Table VI", "5 levels", "D2NetTrainerPaperDistilled5", "76.9", "66.8", "42.6", "62.1"] in lines
    assert ["Fig. 8", "sc 0.5", "D2NetTrainerPaperSC0p5", "-", "-", "-", "-"] in lines


def test_the_command_knows_every_table():
    by_word = {table: {row.table for row in choose_rows(table)} for table in _TABLES}
    assert by_word.pop("all") == {row.table for row in ROWS}
    assert all(len(tables) == 1 for tables in by_word.values())
    assert set().union(*by_word.values()) == {row.table for row in ROWS}


def test_rows_are_chosen_by_their_names_or_their_trainers_in_the_order_of_the_table():
    chosen = choose_rows("II", ["ALL", "onlysc", "none of the four"])
    assert [row.name for row in chosen] == ["none of the four", "sc", "all"]
    assert [row.name for row in choose_rows("IV", ["D2NetTrainerPaper"])] == ["D2-Net"]
    assert [line[1] for line in rows_of_tables(choose_rows("fig8", ["rec 2", "rec 1"]))] == ["row", "rec 2", "rec 1"]
    with pytest.raises(UserError, match="--rows sc: no row is called so, there are 'without E_TM', 'D2-Net'"):
        choose_rows("IV", ["sc"])


def test_every_row_can_be_trained_for_another_number_of_passes():
    for row in ROWS:
        assert arm_of(row, 400) == row.trainer
        assert find_trainer(arm_of(row, 5)).n_epochs == 5
    with pytest.raises(UserError, match=r"no training of 3 passes: choose --epochs from 1, 5, .*, 250, 400, 500"):
        arm_of(ROWS[0], 3)


def score(subset, region, dice, case="a"):
    return CaseScore(case, subset, region, dice, math.nan, math.nan, math.nan, 1, 1)


def test_what_was_measured_stands_beside_what_is_printed():
    rows = choose_rows("IV")
    scores = [score("T1", "whole", 0.5), score("T2", "whole", 0.3), score("T1", "core", 0.1), score("T2", "core", 0.1)]
    means = means_of(scores, ["T1", "T2"])
    assert means == pytest.approx({"whole": 40, "core": 10, "mean": 25})
    header, without, ours = measured_rows(rows, {rows[0].trainer: means}, {})
    assert header[:5] == ["row", "trainer", "whole", "core", "mean"]
    assert header[5:] == [f"{name} (BraTS 2018)" for name in ("WT", "TC", "ET", "mean")]
    assert without == [
        "without E_TM",
        "D2NetTrainerPaperNoProjection",
        "40.0",
        "10.0",
        "25.0",
        "75.8",
        "65.9",
        "41.8",
        "61.2",
    ]
    assert ours == ["D2-Net", "D2NetTrainerPaper", "-", "-", "-", "76.7", "66.7", "42.6", "62.0"]


def test_a_row_that_cannot_be_built_says_so_and_shows_no_figures_of_its_trainer():
    rows = choose_rows("IV")
    means = {row.trainer: {"lesion": 40.0} for row in rows}
    _, without, ours = measured_rows(rows, means, {"D2-Net": "too few stages"})
    assert without[:3] == ["without E_TM", "D2NetTrainerPaperNoProjection", "40.0"]
    assert ours[:3] == ["D2-Net (cannot be built)", "D2NetTrainerPaper", "-"]
