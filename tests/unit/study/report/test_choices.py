from dataclasses import replace

import pytest

from nnunetv2_d2net.study.report.choices import choice_notes, choice_rows
from nnunetv2_d2net.study.report.curves import charts
from nnunetv2_d2net.study.report.page import html_page, inversion_rows, markdown_page
from tests.unit.study.report.synthetic import made_up

STOCK, OURS = "nnUNetTrainer_5epochs", "D2NetTrainerCompanion_5epochs"


def fold(**predicts):
    return {"subsets": {name: {"predicts": who, "stock": 0.5, "student": 0.7} for name, who in predicts.items()}}


@pytest.fixture
def benchmark():
    """More modalities give more with stock, and with the companion less than A alone."""
    dice = {STOCK: [0.4, 0.5], OURS: [0.8, 0.7]}
    complete = {STOCK: [0.6, 0.6], OURS: [0.6, 0.6]}
    arms = [{"name": STOCK, "epochs": 5}, {"name": OURS, "epochs": 5, "start": {"from": STOCK, "epochs": 5}}]
    return made_up(dice, complete=complete, arms=arms)


def test_who_predicts_by_subset(benchmark):
    one, other = fold(**{"A": "student", "A+B": "stock"}), fold(**{"A": "stock", "A+B": "stock", "B": "student"})
    assert choice_rows(benchmark) == []
    assert choice_rows(replace(benchmark, choices={STOCK: [], OURS: [one]})) == [
        ["available", OURS],
        ["A", "student (0.500, 0.700)"],
        ["A+B", "stock (0.500, 0.700)"],
    ]
    three = replace(
        benchmark, choices={OURS: [one, one, other], "Fold all": [{"subsets": {"A+B": {"predicts": "stock"}}}]}
    )
    assert choice_rows(three) == [
        ["available", OURS, "Fold all"],
        ["A", "student in 2 of 3 folds (0.500, 0.700)", "-"],
        ["B", "student (0.500, 0.700)", "-"],
        ["A+B", "stock (0.500, 0.700)", "stock"],
    ]


def test_it_is_said_where_complete_input_is_stocks(benchmark):
    of_stock, of_student = fold(**{"A+B": "stock"}), fold(**{"A+B": "student"})
    assert choice_notes(benchmark) == []
    assert choice_notes(replace(benchmark, choices={OURS: [of_stock, of_student]})) == []
    chosen = replace(benchmark, choices={OURS: [of_stock] * 2})
    (note,) = choice_notes(chosen)
    assert note == (
        f"With all modalities the segmentation of {OURS} is that of {STOCK}, the stock network it starts from, "
        "up to rounding on a GPU."
    )
    by_scored = [of_stock | {"cases": ["a"]}] * 2
    for cases, n_notes in (("test", 1), ("folds", 2)):
        other = replace(chosen, choices={OURS: by_scored}, setup=chosen.setup | {"cases": cases})
        assert len(choice_notes(other)) == n_notes
        assert choice_notes(other)[0].startswith(f"{OURS} chose by the cases that are scored here") is (n_notes == 2)
    drawn = charts(chosen)
    for content in (markdown_page(chosen, drawn), html_page(chosen, drawn, None)):
        assert note in content
        assert "Which network of a companion predicts" in content


def test_it_is_said_how_far_the_gate_of_a_d2net_is_open(benchmark):
    of_student = fold(**{"A+B": "student"})
    chosen = replace(benchmark, choices={OURS: [of_student | {"gate": 0.03}, of_student | {"gate": 0.05}]})
    (note,) = choice_notes(chosen)
    assert note.startswith(f"The gate before the bottleneck of {OURS} is open by 0.040: where that is near 0")
    assert note in markdown_page(chosen, charts(chosen))
    assert choice_notes(replace(benchmark, choices={OURS: [of_student | {"gate": "wide"}]})) == []


def test_inversions_of_each_arm(benchmark):
    assert inversion_rows(benchmark) == [["arm", "tumor"], [STOCK, "0 of 2"], [OURS, "2 of 2"]]
    assert "2 of 2" in markdown_page(benchmark, charts(benchmark))


def test_the_companion_is_the_arm_that_others_are_rivals_of():
    dice = {name: [0.5, 0.6] for name in (OURS, "D2NetTrainer_5epochs", STOCK)}
    assert made_up(dice).focus == OURS
    default = "nnUNetTrainerModalityDropoutImputedCompanion_5epochs"
    assert made_up({name: [0.5, 0.6] for name in (OURS, default, STOCK)}).focus == default
    others = ("nnUNetTrainerModalityDropoutCompanion", "D2NetTrainer", STOCK)
    assert made_up({name: [0.5, 0.6] for name in others}).focus == others[0]
    assert made_up({name: dice[name] for name in reversed([*dice][1:])}).focus == "D2NetTrainer_5epochs"
    assert made_up({"D2NetTrainerNoKD": [0.5], "D2NetTrainerSegOnly": [0.5]}).focus == "D2NetTrainerSegOnly"
    assert made_up({STOCK: [0.5], "nnUNetTrainerModalityDropout": [0.5]}).focus == "nnUNetTrainerModalityDropout"
