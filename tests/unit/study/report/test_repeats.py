import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.study.report.repeats import (
    check_repeats,
    dice_of_trainings,
    differences,
    from_the_same_starts,
    repeats_page,
)
from tests.unit.study.report.synthetic import Synthetic, made_up, write_benchmark

DROPOUT, OURS, VARIANT = "nnUNetTrainerModalityDropout", "D2NetTrainer", "D2NetTrainerNoKD"


def trained(**means):
    """A benchmark of two cases around each arm's mean; the complete subset has 0.1 more."""
    dice = {arm: [mean - 0.1, mean + 0.1] for arm, mean in means.items()}
    return made_up(dice, complete={arm: [value + 0.1 for value in values] for arm, values in dice.items()})


def relabelled(benchmark):
    """The same names, and other data behind them."""
    for scores in benchmark.scores.values():
        scores[:] = [score._replace(reference_voxels=score.reference_voxels + 1) for score in scores]
    return benchmark


@pytest.fixture
def runs():
    one = trained(**{DROPOUT: 0.40, OURS: 0.50, VARIANT: 0.51})
    two = trained(**{DROPOUT: 0.42, OURS: 0.52, VARIANT: 0.53})
    return [one, two, trained(**{DROPOUT: 0.44, OURS: 0.54})]


def test_a_value_for_each_training(runs):
    found, n_left_out = dice_of_trainings(runs, complete=True)
    assert n_left_out == 0
    assert found[OURS]["tumor"] == pytest.approx({0: 0.6, 1: 0.62, 2: 0.64})
    assert found[VARIANT]["tumor"] == pytest.approx({0: 0.61, 1: 0.63})
    average = dice_of_trainings(runs, complete=False)[0][OURS]["tumor"]
    assert average == pytest.approx({0: 0.5 + 0.1 / 3, 1: 0.52 + 0.1 / 3, 2: 0.54 + 0.1 / 3})


def test_a_value_counts_each_subset_by_its_weight(runs):
    runs = [replace(run, setup=run.setup | {"subsets": {"A": 1.0, "B": 1.0, "A+B": 2.0}}) for run in runs]
    average = dice_of_trainings(runs, complete=False)[0][OURS]["tumor"]
    assert average == pytest.approx({0: 0.55, 1: 0.57, 2: 0.59})


def test_one_rival_is_students_t_test():
    """With two arms Dunnett's test is the t test of equal variances: t = -0.1 / (0.02 sqrt(2/3)), 4 degrees."""
    found = differences({OURS: [0.5, 0.52, 0.54], DROPOUT: [0.4, 0.42, 0.44]}, OURS).loc[DROPOUT]
    assert found.difference == pytest.approx(-0.1)
    assert found.p == pytest.approx(0.0036, abs=5e-4)  # SciPy integrates numerically
    half = 2.776445 * 0.02 * math.sqrt(2 / 3)
    assert (found.ci_low, found.ci_high) == pytest.approx((-0.1 - half, -0.1 + half), abs=1e-3)


def test_of_the_two_alone_another_arms_spread_does_not_count():
    """Welch: 0.02 and 0.01 of three trainings each give an error of 0.0129 and 2.94 degrees of freedom."""
    of_two = {OURS: [0.50, 0.52, 0.54], DROPOUT: [0.45, 0.46, 0.47]}
    found = [differences(of_two | more, OURS).loc[DROPOUT] for more in ({}, {VARIANT: [0.1, 0.5, 0.9]})]
    error = math.sqrt((0.02**2 + 0.01**2) / 3)
    n_free = (0.02**2 + 0.01**2) ** 2 / ((0.02**4 + 0.01**4) / 2)
    half = error * stats.t.ppf(0.975, n_free)
    for row in found:
        assert (row.own_low, row.own_high) == pytest.approx((-0.06 - half, -0.06 + half))
    assert found[1].ci_high - found[1].ci_low > 5 * (found[0].ci_high - found[0].ci_low)


def test_of_the_two_alone_says_nothing_where_one_was_trained_once_or_nothing_varies():
    found = differences({OURS: [0.5, 0.52], DROPOUT: [0.4], VARIANT: [0.3, 0.34]}, OURS)
    assert np.isnan(found.loc[DROPOUT, ["own_low", "own_high"]].astype(float)).all()
    assert np.isfinite(found.loc[VARIANT, ["own_low", "own_high"]].astype(float)).all()
    flat = differences({OURS: [0.5, 0.5], DROPOUT: [0.4, 0.4]}, OURS).loc[DROPOUT]
    assert np.isnan([flat.own_low, flat.own_high]).all()


def test_the_spread_of_trainings_decides():
    close, wide = (
        differences({OURS: [0.5, 0.5 + spread], DROPOUT: [0.4, 0.4 + spread]}, OURS).loc[DROPOUT]
        for spread in (0.01, 0.2)
    )
    assert close.difference == pytest.approx(wide.difference)
    assert close.p < 0.05 < wide.p


def test_single_trainings_say_nothing_about_chance():
    found = differences({OURS: [0.5], DROPOUT: [0.4]}, OURS).loc[DROPOUT]
    assert found.difference == pytest.approx(-0.1)
    assert np.isnan([found.ci_low, found.ci_high, found.p]).all()


def test_the_page_names_ties_and_what_is_more_than_chance(runs):
    page = repeats_page(runs, OURS)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    assert [OURS, "3", "0.620 ± 0.020"] in rows
    assert [VARIANT, "2", "0.620 ± 0.014"] in rows
    assert {row[0]: row[4] for row in rows if len(row) == 6} == {"arm": "", DROPOUT: "worse", VARIANT: "may be chance"}
    assert "Against D2NetTrainer, tumor:" in page


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made_up({OURS: [0.5, 0.6]}, dataset="Dataset002_Other"), "has other dataset"),
        (made_up({OURS: [0.5, 0.6, 0.7]}), "scored on other cases"),
        (relabelled(made_up({OURS: [0.5, 0.6]})), "scored on other references"),
        (made_up({OURS: [0.5, 0.6]}, arms=[{"name": OURS, "epochs": 7}]), "has trained D2NetTrainer otherwise"),
        (made_up({OURS: [0.4, 0.6]}), "one and the same training"),
    ],
)
def test_what_is_no_repetition_is_refused(other, message):
    with pytest.raises(UserError, match=message) as error:
        check_repeats([made_up({OURS: [0.4, 0.6]}), other])
    assert "\n" not in str(error.value)


def test_one_checkpoint_predicted_twice_is_refused_though_a_voxel_differs():
    runs = [
        replace(made_up({OURS: [0.4, dice]}), checkpoints={OURS: {digest}})
        for dice, digest in ((0.6, "abc"), (0.60001, "abc"), (0.7, "def"))
    ]
    check_repeats([runs[0], runs[2]])
    with pytest.raises(UserError, match="one and the same training"):
        check_repeats(runs)


def test_arms_that_find_nothing_twice_are_two_trainings_where_their_checkpoints_say_so():
    runs = [replace(made_up({OURS: [0.0, 0.0]}), checkpoints={OURS: {digest}}) for digest in ("abc", "def")]
    check_repeats(runs)
    with pytest.raises(UserError, match="one and the same training"):
        check_repeats([replace(runs[0], checkpoints={OURS: set()}), runs[1]])


def test_trainings_that_share_a_start_are_said_to_do_so():
    companion = "D2NetTrainerCompanion"

    def run(dice, digest, path):
        start = {"from": path, "epochs": 5, "sha256": digest}
        return made_up({companion: [dice, 0.6]}, arms=[{"name": companion, "epochs": 5, "start": start}])

    one, two, three = run(0.4, "abc", "/one"), run(0.5, "abc", "/link"), run(0.6, "def", "/two")
    check_repeats([one, two, three])
    page = repeats_page([one, two, three], companion)
    assert "3 trainings of D2NetTrainerCompanion start from 2 stock models: how far" in page
    assert "start from" not in repeats_page([one, three], companion)
    with pytest.raises(UserError, match="has trained D2NetTrainerCompanion otherwise"):
        check_repeats([one, made_up({companion: [0.1, 0.6]}, arms=[{"name": companion, "epochs": 5}])])


def started(gains, starts=("stock",) * 3, folders=("one", "two", "three")):
    """Benchmarks of stock models that differ much, and of two arms, one started from them and ahead by the gains."""
    runs = []
    for stock, gain, start, folder in zip((0.3, 0.5, 0.4), gains, starts, folders, strict=True):
        dice = {"stock": stock, OURS: stock + gain, DROPOUT: 0.25 + stock / 9}
        arms = [{"name": "stock"}, {"name": OURS, "start": {"from": start}}, {"name": DROPOUT}]
        made = made_up({arm: [mean - 0.1, mean + 0.1] for arm, mean in dice.items()}, arms=arms)
        runs.append(replace(made, folder=Path(folder)))
    return runs


def test_what_started_from_one_stock_model_is_compared_training_by_training():
    """Paired t: gains of 0.1, 0.11 and 0.12 have an error of 0.01 / sqrt(3) and 2 degrees of freedom."""
    runs = started((0.1, 0.11, 0.12))
    dice = {arm: regions["tumor"] for arm, regions in dice_of_trainings(runs, complete=False)[0].items()}
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert from_the_same_starts(runs, dice, "stock") == {OURS: pytest.approx((0.11 - half, 0.11 + half), abs=1e-6)}
    assert from_the_same_starts(runs, dice, OURS)["stock"] == pytest.approx((-0.11 - half, -0.11 + half), abs=1e-6)
    assert from_the_same_starts(runs, dice, DROPOUT) == {}
    page = repeats_page(runs, "stock")
    last = [line.split("|")[-2].strip() for line in page.splitlines() if line.count("|") == 8 and "---" not in line]
    assert last == ["from the same starts", "+0.085 to +0.135", "-"] * 2
    assert "From the same starts: of trainings" in page


def test_who_noted_the_digest_of_a_start_does_not_matter():
    """The stock arm knows its own checkpoint's; of the companions only that which a benchmark trained notes one."""
    runs = []
    for run, of_stock in zip(started((0.1, 0.11, 0.12)), "xyz", strict=True):
        noted = {"from": "stock", "sha256": of_stock}
        arms = [{"name": "stock"}, {"name": OURS, "start": noted}, {"name": DROPOUT, "start": {"from": "stock"}}]
        runs.append(replace(run, setup={**run.setup, "arms": arms}, checkpoints={"stock": {of_stock}}))
    dice = {arm: regions["tumor"] for arm, regions in dice_of_trainings(runs, complete=False)[0].items()}
    assert from_the_same_starts(runs, dice, "stock").keys() == {OURS, DROPOUT}
    assert from_the_same_starts(runs, dice, OURS).keys() == {"stock", DROPOUT}


def test_pairs_need_starts_that_are_one_model_and_not_the_same_in_all_and_a_spread():
    kinds = {
        "spread": started((0.1, 0.1, 0.1)),
        "other": started((0.1, 0.11, 0.12), ("elsewhere",) * 3),
        "single": started((0.1, 0.11, 0.12), ("stock", "elsewhere", "elsewhere")),
        "shared": started((0.1, 0.11, 0.12), folders=("one",) * 3),
    }
    for kind, runs in kinds.items():
        dice = {"stock": {0: 0.25, 1: 0.5, 2: 0.375}, OURS: {0: 0.5, 1: 0.75, 2: 0.625}}  # a quarter each, exactly
        if kind != "spread":
            dice[OURS][2] += 0.125
        assert from_the_same_starts(runs, dice, "stock") == {}, kind
        assert "rom the same starts" not in repeats_page(runs, DROPOUT)


def test_stock_models_of_other_folders_are_told_apart_by_their_content():
    starts = [{"from": "/stock", "epochs": 5, "sha256": sha} for sha in "xyx"]
    arms = [[{"name": arm, "start": start} for arm in (OURS, VARIANT)] for start in starts]
    runs = [
        made_up({OURS: [dice, dice], VARIANT: [dice + gain, dice]}, arms=arm)
        for dice, gain, arm in zip((0.3, 0.5, 0.4), (0.1, 0.12, 0.14), arms, strict=True)
    ]
    assert "from the same starts" in repeats_page(runs, OURS)
    assert "from the same starts" not in repeats_page([runs[0], runs[2]], OURS)  # both of one stock model


def test_one_arm_and_no_complete_case():
    runs = [made_up({OURS: [dice, 0.6]}) for dice in (0.4, 0.5)]
    page = repeats_page(runs, OURS)
    assert "0.525 ± 0.035" in page
    assert "Against" not in page
    for run in runs:
        run.scores[OURS] = [row for row in run.scores[OURS] if row.subset != "A+B"]
    assert "With all modalities" not in repeats_page([replace(run) for run in runs], OURS)


def test_a_tie_is_where_the_whole_interval_is_small():
    """A difference of 0.01, of trainings that hardly differ and of others that do."""
    judged = []
    for spread in (0.001, 0.03):
        arms = [
            {OURS: 0.5 + spread * step, DROPOUT: 0.51 + spread * other}
            for step, other in ((0, 1), (1, 0.4), (0.5, 0), (0.2, 0.7))
        ]
        page = repeats_page([trained(**means) for means in arms], OURS)
        judged.append({line.split("|")[-3].strip() for line in page.splitlines() if line.count("|") == 7})
    assert judged[0] >= {"better, by less than 0.02"}
    assert judged[1] >= {"may be chance"}
    assert not any("tie" in words or "better" in words for words in judged[1])
    arms = [{OURS: 0.5 + a / 1000, DROPOUT: 0.5 + b / 1000} for a, b in ((0, 1), (2, 0), (1, 2))]
    assert "| tie " in repeats_page([trained(**means) for means in arms], OURS)


def test_trainings_are_compared_on_the_cases_that_all_have():
    runs = [trained(**{OURS: dice, DROPOUT: dice}) for dice in (0.5, 0.6)]
    easy = runs[1].scores
    easy[DROPOUT] = [row for row in easy[DROPOUT] if row.case == "c1" or row.subset != "A+B"]
    runs[1] = replace(runs[1])
    found, n_left_out = dice_of_trainings(runs, complete=True)
    assert n_left_out == 1
    assert found[OURS]["tumor"] == found[DROPOUT]["tumor"] == pytest.approx({0: 0.7, 1: 0.8})
    assert "Left out for want of a subset in one of the trainings: 1 case." in repeats_page(runs, OURS)


def test_an_unknown_control_is_refused(runs):
    with pytest.raises(UserError, match="no benchmark has Other: choose --against among nnUNetTrainerModalityDropout"):
        repeats_page(runs, "Other")


def test_the_command_reads_benchmarks(tmp_path, capsys):
    one = write_benchmark(tmp_path / "one")
    two = write_benchmark(tmp_path / "two", Synthetic(arms=(DROPOUT, "nnUNetTrainer", OURS)))
    page = tmp_path / "repeats.md"
    assert main(["repeats", str(one), str(two), "-o", str(page)]) == 1
    assert "D2NetTrainer is one and the same training" in capsys.readouterr().err
    metrics = two / OURS / "metrics.csv"
    metrics.write_text(
        metrics.read_text(encoding="utf-8").replace("1.000000", "0.900000").replace(",1.0,", ",0.9,"), encoding="utf-8"
    )
    assert main(["repeats", str(one), str(two), "--against", DROPOUT, "-o", str(page)]) == 0
    assert capsys.readouterr().out == page.read_text(encoding="utf-8")
    assert f"Against {DROPOUT}, mean:" in page.read_text(encoding="utf-8")
    assert main(["repeats", str(one), str(two), "-o", str(page)]) == 0  # a page of its own
    notes = tmp_path / "notes.md"
    notes.write_text("mine", encoding="utf-8")
    capsys.readouterr()
    assert main(["repeats", str(one), str(two), "-o", str(notes)]) == 1
    assert "is no page of d2net repeats" in capsys.readouterr().err
    assert notes.read_text(encoding="utf-8") == "mine"
    assert main(["repeats", str(one)]) == 1
    assert "at least two" in capsys.readouterr().err
    assert main(["repeats", str(one), str(tmp_path)]) == 1
    assert "lacks setup.json" in capsys.readouterr().err
    assert main(["repeats", str(one), str(two), "-o", str(tmp_path / "no" / "page.md")]) == 1
    assert "is no folder" in capsys.readouterr().err


def test_what_earlier_versions_did_not_note_is_no_difference():
    noted = {"name": OURS, "epochs": 5, "optimizer": "SGD 0.01"}
    earlier, later = ({key: noted[key] for key in keys} for keys in (("name", "epochs"), noted))
    check_repeats([made_up({OURS: [0.5, 0.6]}, arms=[earlier]), made_up({OURS: [0.6, 0.6]}, arms=[later])])
    other = noted | {"optimizer": "AdamW 0.001"}
    with pytest.raises(UserError, match="has trained D2NetTrainer otherwise"):
        check_repeats([made_up({OURS: [0.5, 0.6]}, arms=[later]), made_up({OURS: [0.6, 0.6]}, arms=[other])])
