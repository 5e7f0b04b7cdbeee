import pytest

from nnunetv2_d2net.study.report.verdict import verdict
from tests.unit.study.report.synthetic import made_up

N = 8
STOCK, DROPOUT, OURS = "nnUNetTrainer", "nnUNetTrainerModalityDropout", "D2NetTrainer"
MIXED = [0.03, -0.02] * (N // 2)  # ahead by no more than chance


def values(base, steps=(0.0,)):
    return [round(base + 0.01 * case + steps[case % len(steps)], 6) for case in range(N)]


def judge(ours, dropout, stock, complete=None):
    return verdict(made_up({STOCK: stock, DROPOUT: dropout, OURS: ours}, complete=complete))


def test_wins_both():
    found = judge(values(0.8), values(0.7), values(0.6))
    assert found.good
    assert [line.claim for line in found.headlines] == [
        "D2NetTrainer beats nnUNetTrainerModalityDropout on average over the 3 subsets.",
        "D2NetTrainer beats nnUNetTrainer on complete input.",
    ]
    assert found.headlines[0].figures.startswith("Mean Dice 0.835 against 0.735: difference +0.100, 95 % CI +0.100")
    assert found.headlines[0].figures.endswith("p = 0.008, 8 cases.")
    assert "after Holm's correction" in found.headlines[1].figures  # p of a subset, not of their mean
    assert found.standings == {
        STOCK: pytest.approx((0.635, 0.635)),
        DROPOUT: pytest.approx((0.735, 0.735)),
        OURS: pytest.approx((0.835, 0.835)),
    }
    assert len(found.others) == 2


@pytest.mark.parametrize(
    ("dropout", "claim"),
    [
        (values(0.9), "D2NetTrainer loses to nnUNetTrainerModalityDropout on average over the 3 subsets."),
        (
            values(0.8, MIXED),
            "D2NetTrainer does not beat nnUNetTrainerModalityDropout on average over the 3 subsets: "
            "it is behind, which may be chance.",
        ),
        (
            values(0.8),
            "D2NetTrainer does not beat nnUNetTrainerModalityDropout on average over the 3 subsets: they are equal.",
        ),
        (
            values(0.8, [-step for step in MIXED]),
            "D2NetTrainer is not shown to beat nnUNetTrainerModalityDropout on average over the 3 subsets: "
            "its lead may be chance.",
        ),
    ],
)
def test_not_beating_dropout_is_said_first(dropout, claim):
    found = judge(values(0.8), dropout, values(0.6))
    assert not found.good
    assert found.headlines[0].claim == claim
    assert found.headlines[1].claim == "D2NetTrainer beats nnUNetTrainer on complete input."


@pytest.mark.parametrize(
    ("stock", "claim"),
    [
        (values(0.95), "D2NetTrainer loses to nnUNetTrainer on complete input."),
        (values(0.8, MIXED), "D2NetTrainer is behind nnUNetTrainer on complete input, which may be chance."),
    ],
)
def test_losing_to_stock_on_complete_input_is_said_before_a_win(stock, claim):
    complete = {STOCK: stock, DROPOUT: values(0.7), OURS: values(0.8)}
    found = judge(values(0.8), values(0.7), values(0.5), complete)
    assert not found.good
    assert [line.claim for line in found.headlines] == [
        claim,
        "D2NetTrainer beats nnUNetTrainerModalityDropout on average over the 3 subsets.",
    ]
    average = next(line for line in found.others if "nnUNetTrainer on average" in line.claim)
    assert average.claim.startswith("D2NetTrainer beats" if stock[0] < 0.9 else "D2NetTrainer")


@pytest.mark.parametrize("stock", [values(0.8), values(0.8, [-step for step in MIXED])])
def test_a_draw_on_complete_input_is_no_bad_news(stock):
    found = judge(values(0.8), values(0.7), values(0.5), {STOCK: stock, DROPOUT: values(0.7), OURS: values(0.8)})
    assert found.good


def test_the_order_of_the_arms_does_not_matter():
    scores = {STOCK: values(0.6), DROPOUT: values(0.9), OURS: values(0.8)}
    straight, reverse = verdict(made_up(scores)), verdict(made_up(dict(reversed(scores.items()))))
    assert straight.headlines == reverse.headlines
    minus = "\N{MINUS SIGN}0.100"
    assert f"difference {minus}, 95 % CI {minus} to {minus}" in straight.headlines[0].figures


def test_trainers_with_a_number_of_epochs_play_the_same_parts():
    scores = {f"{STOCK}_10epochs": values(0.5), f"{DROPOUT}_10epochs": values(0.6), "Other": values(0.7)}
    scores |= {f"{OURS}_1epoch": values(0.8), f"{OURS}NoKD": values(0.9)}
    assert [line.claim for line in verdict(made_up(scores)).headlines] == [
        "D2NetTrainer_1epoch beats nnUNetTrainerModalityDropout_10epochs on average over the 3 subsets.",
        "D2NetTrainer_1epoch beats nnUNetTrainer_10epochs on complete input.",
    ]


def test_other_arms_are_held_against_the_best_of_them():
    found = verdict(made_up({"A": values(0.7), "B": values(0.75), "C": values(0.8)}))
    assert [line.claim for line in found.headlines] == [
        "C beats B on average over the 3 subsets.",
        "C beats B on complete input.",
    ]
    variant = verdict(made_up({"D2NetTrainerNoKD": values(0.7), "B": values(0.75)}))
    assert variant.headlines[0].claim.startswith("D2NetTrainerNoKD loses to B")


def test_one_arm_has_nothing_to_compare_with():
    found = verdict(made_up({OURS: values(0.8)}))
    assert not found.good
    assert found.headlines == []
    assert found.notes == []


def test_few_cases_and_unequal_training_are_noted():
    few = {arm: scores[:3] for arm, scores in {DROPOUT: values(0.7), OURS: values(0.8)}.items()}
    found = verdict(made_up(few, differences=["epochs differ: A 10, B 20"]))
    assert found.headlines[0].claim.startswith("D2NetTrainer is not shown to beat")
    assert found.notes[0] == "Arms are not trained alike: epochs differ: A 10, B 20."
    assert found.notes[1].startswith("With 3 cases no difference can reach p < 0.05")
    assert not any(
        note.startswith("With") for note in verdict(made_up({DROPOUT: values(0.7), OURS: values(0.8)})).notes
    )
