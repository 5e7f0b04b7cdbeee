import numpy as np
import pytest

from nnunetv2_d2net.study.report.curves import charts
from nnunetv2_d2net.study.report.leads import best_rivals
from nnunetv2_d2net.study.report.page import markdown_page
from nnunetv2_d2net.study.report.verdict import verdict
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import ONE_TRAINING
from tests.unit.study.report.synthetic import from_scores, made_up

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
    for line in found.headlines:
        assert line.figures.endswith(
            "p = 0.008, p = 0.016 after Holm's correction for the two tests that decide, 8 cases."
        )
    assert "Both p above are corrected for two tests by Holm's method, named beforehand." in found.notes[-2]
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
            values(0.8, [step / 1000 for step in MIXED]),
            "D2NetTrainer does not beat nnUNetTrainerModalityDropout on average over the 3 subsets: "
            "they tie, the whole interval lies within 0.02.",
        ),
        (
            values(0.8),
            "D2NetTrainer is not shown to beat nnUNetTrainerModalityDropout on average over the 3 subsets: "
            "they do not differ, in any case.",
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


def test_the_stronger_kind_of_dropout_decides_where_it_was_trained():
    for by_adamw, bad in ((0.9, True), (0.7, False)):  # whichever of the two comes out ahead
        found = verdict(
            made_up({STOCK: values(0.5), DROPOUT: values(0.8), f"{DROPOUT}AdamW": values(by_adamw), OURS: values(0.85)})
        )
        average = next(line for line in found.headlines if not line.on_complete)
        assert (average.lead.test.rival, average.bad) == (f"{DROPOUT}AdamW", bad)
        assert any("named beforehand" in note for note in found.notes)


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
    assert len(found.notes) == 1
    assert found.notes[0].startswith(ONE_TRAINING)
    assert "d2net repeats" in found.notes[0]


def test_the_corrected_p_decides():
    """Better in all of six cases is p = 0.031, and 0.062 as one of two tests that decide."""
    found = verdict(made_up({STOCK: values(0.6)[:6], DROPOUT: values(0.7)[:6], OURS: values(0.8)[:6]}))
    assert not found.good
    assert [line.claim for line in found.headlines] == [
        "D2NetTrainer is not shown to beat nnUNetTrainerModalityDropout on average over the 3 subsets: "
        "its lead may be chance.",
        "D2NetTrainer is ahead of nnUNetTrainer on complete input, which may be chance.",
    ]
    assert all("p = 0.031, p = 0.062 after Holm's correction" in line.figures for line in found.headlines)


def test_what_subsets_weigh_is_noted_and_counted():
    dice, complete = {DROPOUT: values(0.7), OURS: values(0.8)}, {DROPOUT: values(0.9), OURS: values(0.9)}
    alike, weighted = ({"A": 1.0, "B": 1.0, "A+B": of_all} for of_all in (1.0, 8.0))
    note = "In means over the subsets each counts as often as it is said to occur: A, B, A+B=8."
    assert note not in verdict(made_up(dice, complete=complete, subsets=alike)).notes
    found = verdict(made_up(dice, complete=complete, subsets=weighted))
    assert note in found.notes
    means = [sum(values(of)) / len(values(of)) for of in (0.8, 0.9)]
    mean = (2 * means[0] + 8 * means[1]) / 10
    assert found.standings[OURS] == pytest.approx((mean, means[1]))
    (of_all,) = (line.lead.test for line in found.headlines if not line.on_complete)
    assert of_all.mean == pytest.approx(mean)
    benchmark = made_up(dice, complete=complete, subsets=weighted)
    assert benchmark.summaries["dice"][OURS]["tumor"]["mean of 3"].mean == pytest.approx(mean)
    rows = [row for row in markdown_page(benchmark, charts(benchmark)).splitlines() if row.startswith("| tumor | ")]
    assert f"| {mean:.3f}*" in next(row for row in rows if f"| {OURS} " in row)


def test_few_cases_and_unequal_training_are_noted():
    few = {arm: scores[:3] for arm, scores in {DROPOUT: values(0.7), OURS: values(0.8)}.items()}
    found = verdict(made_up(few, differences=["epochs differ: A 10, B 20"]))
    assert found.headlines[0].claim.startswith("D2NetTrainer is not shown to beat")
    assert found.notes[0] == "Arms are not trained alike: epochs differ: A 10, B 20."
    assert found.notes[1].startswith("With 3 cases no difference can reach p < 0.05")
    assert found.notes[-2].startswith("3 cases: enough to see that it runs, too few")
    assert not any(
        note.startswith("With") or "too few" in note
        for note in verdict(made_up({DROPOUT: values(0.7), OURS: values(0.8)})).notes
    )


def test_mean_and_ranks_are_both_said():
    """Better in 18 of 20 cases and much worse in two: no verdict may turn that into a win or a loss beyond chance."""
    stock = [0.6 + 0.01 * case for case in range(20)]
    gains = [0.02 + 0.001 * case for case in range(18)] + [-0.3, -0.4]
    ours = [dice + gain for dice, gain in zip(stock, gains, strict=True)]
    line = verdict(made_up({STOCK: stock, OURS: ours})).headlines[-1]
    claim = "D2NetTrainer is behind nnUNetTrainer on complete input, which may be chance; by ranks it is the other way"
    assert line.claim.startswith(f"{claim} round, better in 18 of 20 cases and worse in 2 (Wilcoxon p = 0.0")
    line = verdict(made_up({STOCK: ours, OURS: stock})).headlines[-1]
    assert line.claim.startswith(
        "D2NetTrainer is ahead of nnUNetTrainer on complete input, which may be chance; by ranks"
    )
    assert "better in 2 of 20 cases and worse in 18" in line.claim


def incomplete(rng_seed=0, n_complete=8):
    """Twenty cases, of which twelve lack B; what is without B is easy for ours and hard for the other."""
    rng = np.random.default_rng(rng_seed)
    scores = {}
    for arm, bonus in ((DROPOUT, 0.0), (OURS, 1.0)):
        scores[arm] = [
            CaseScore(f"c{case:02d}", subset, "tumor", float(dice), 1.0, 1.0, 0.9, 10, 10)
            for case in range(20)
            for subset in (("A", "B", "A+B") if case < n_complete else ("A",))
            for dice in [0.5 + 0.01 * rng.normal() + (-0.06 if case < n_complete else 0.2) * bonus]
        ]
    return from_scores(scores)


def test_figures_of_an_incomplete_test_set_are_of_the_same_cases():
    found = verdict(incomplete())
    for line in found.headlines:
        test = line.lead.test
        assert test.mean - test.rival_mean == pytest.approx(test.mean_difference)
        assert "loses to" in line.claim
        assert (test.n, test.mean < test.rival_mean) == (8, True)
    average = next(line for line in found.headlines if not line.on_complete)
    assert average.figures.endswith("8 cases (12 left out).")
    assert any(note.startswith("12 of 20 cases are left out of mean of 3") for note in found.notes)
    assert found.standings[OURS][0] == pytest.approx(average.lead.test.mean)
    assert found.standings[DROPOUT][0] == pytest.approx(average.lead.test.rival_mean)


def test_without_any_case_that_has_all_subsets():
    rows = [CaseScore(f"c{case}", "AB"[case % 2], "tumor", 0.5, 1.0, 1.0, 0.9, 10, 10) for case in range(20)]
    found = verdict(from_scores({DROPOUT: rows, OURS: [row._replace(dice=0.6) for row in rows]}))
    assert (found.headlines, found.good) == ([], False)
    assert found.standings == {DROPOUT: (None, None), OURS: (None, None)}
    assert found.notes[0] == "No case has all subsets in two arms, so nothing is said of the mean over the subsets."
    assert len(found.notes) == 2


def test_the_best_rival_is_best_on_the_cases_that_both_have():
    """One arm has easy cases only: its mean is the highest, and it is behind on them."""
    benchmark = made_up({"A": values(0.5), "B": values(0.7), "C": values(0.6)})
    benchmark.scores["A"] = [s._replace(dice=0.9) for s in benchmark.scores["A"]]
    easy = {arm: list(scores) for arm, scores in benchmark.scores.items()}
    easy["A"] = [s._replace(dice=0.62) for s in easy["A"] if s.case >= "c6"]
    leads = best_rivals(from_scores(easy), "C")
    assert leads["A", "tumor"].test.rival == "B"


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [([0.01, -0.01], "tie"), ([0.2, -0.2], "level"), ([0.015, -0.009], "tie"), ([0.08, -0.05], "ahead")],
)
def test_a_tie_is_an_interval_without_any_difference_to_speak_of(steps, outcome):
    line = verdict(made_up({STOCK: [0.6] * N, OURS: [0.6 + steps[case % 2] for case in range(N)]})).headlines[-1]
    assert line.lead.outcome == outcome


@pytest.mark.parametrize(("n_differing", "outcome"), [(2, "level"), (N, "tie")])
def test_where_most_cases_do_not_differ_there_is_no_tie(n_differing, outcome):
    ours = [0.6 + 0.004 * (-1) ** case * (case < n_differing) for case in range(N)]
    line = verdict(made_up({STOCK: [0.6] * N, OURS: ours})).headlines[-1]
    assert line.lead.outcome == outcome


def test_a_rival_chosen_by_the_cases_is_said():
    found = verdict(made_up({"A": values(0.7), "B": values(0.75), "C": values(0.8)}))
    assert "but not for choosing as rival the best of the other arms" in found.notes[-2]


@pytest.mark.parametrize(("start", "length"), [(5, "_10epochs"), (0, "_5epochs")])
def test_of_several_lengths_the_rival_is_the_one_that_has_seen_as_much(start, length):
    focus, names = "D2NetTrainerCompanion_5epochs", ("nnUNetTrainer", "nnUNetTrainerModalityDropout")
    arms = [{"name": f"{name}_{n}epochs", "epochs": n} for name in names for n in (5, 10)]
    arms.append({"name": focus, "epochs": 5, "start": {"from": "nnUNetTrainer_5epochs", "epochs": start}})
    judged = verdict(made_up({arm["name"]: [0.5, 0.6, 0.7] for arm in arms}, arms=arms))
    assert {line.lead.test.rival for line in judged.headlines} == {f"{name}{length}" for name in names}


def test_length_counts_before_the_kind_of_dropout():
    focus, near, far = "D2NetTrainerCompanion_5epochs", f"{DROPOUT}_10epochs", f"{DROPOUT}AdamW_5epochs"
    arms = [
        {"name": near, "epochs": 10},
        {"name": far, "epochs": 5},
        {"name": focus, "epochs": 5, "start": {"from": "x", "epochs": 5}},
    ]
    judged = verdict(made_up({arm["name"]: [0.5, 0.6, 0.7] for arm in arms}, arms=arms))
    assert [line.lead.test.rival for line in judged.headlines if not line.on_complete] == [near]
