import contextlib
from dataclasses import replace

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json_or, write_json
from nnunetv2_d2net.study.benchmark import setup as benchmark_setup
from nnunetv2_d2net.study.benchmark.setup import check_arms, choose_cases, choose_folds, differences
from tests.unit.conftest import whole_plans
from tests.unit.study.benchmark.conftest import save_weights

ARM = {"plans": "D2NetPlans", "folds": ["all"], "epochs": 10, "steps_per_epoch": 250, "batch_size": 2}


def test_differences_name_each_arm():
    arms = [{"name": "A", **ARM}, {"name": "B", **ARM, "epochs": 20}, {"name": "C", **ARM, "batch_size": None}]
    assert differences(arms) == ["epochs differ: A 10, B 20, C 10"]
    assert differences(arms[:1]) == []
    companion = {"name": "D", **ARM, "start": {"from": "A", "epochs": 10}}
    assert differences([arms[1], companion]) == []
    assert differences([arms[0], companion]) == ["epochs differ: A 10, D 20 with those of its start"]
    arms = [{"name": "A", **ARM}, {"name": "B", **ARM, "steps_before": 1000}]
    assert differences(arms) == ["steps before the first epoch differ: A 0, B 1000"]
    arms = [{"name": "A", **ARM}, {"name": "B", **ARM, "optimizer": "SGD 0.01", "p_complete": 0.5}]
    assert differences(arms) == []  # A has not begun, and hides nothing
    arms += [{"name": "C", **ARM, "optimizer": "AdamW 0.001", "p_complete": 0.0}]
    assert differences(arms) == [
        "optimizers differ: B SGD 0.01, C AdamW 0.001",
        "shares of samples that stay complete differ: B 0.5, C 0.0",
    ]


def test_unknown_arm_lists_near_names_and_an_arm_comes_once():
    with pytest.raises(UserError, match=r"called D2NetTraner: did you mean .*D2NetTrainer"):
        check_arms(["nnUNetTrainer", "D2NetTraner"])
    with pytest.raises(UserError, match="twice"):
        check_arms(["D2NetTrainer", "D2NetTrainer"])
    check_arms(["nnUNetTrainer_5epochs", "nnUNetTrainerModalityDropout_10epochs", "D2NetTrainer"])


def test_only_companions_start_from_something_and_not_from_each_other():
    with pytest.raises(UserError, match="no arm is a companion"):
        check_arms(["nnUNetTrainer", "D2NetTrainer"], ["nnUNetTrainer"])
    with pytest.raises(UserError, match="starts from a stock nnU-Net"):
        check_arms(["nnUNetTrainer", "D2NetTrainerCompanion"], ["nnUNetTrainer", "D2NetTrainerCompanion"])
    arms = ["nnUNetTrainer", "D2NetTrainerCompanion_5epochs"]
    check_arms(arms, ["nnUNetTrainer"])
    check_arms(arms, ["nnUNetTrainer"], arms[1:])
    with pytest.raises(UserError, match=r"--start_from D2NetTrainerCompanion=\.\.\.: no companion among the arms has"):
        check_arms(arms, ["nnUNetTrainer"], ["D2NetTrainerCompanion"])


def test_cases_and_folds_that_do_not_go_together_are_refused(setup):
    assert choose_cases(setup.raw, None) == "test"
    assert (choose_folds(None, "test"), choose_folds(None, "folds")) == (("all",), ("0", "1", "2", "3", "4"))
    assert choose_folds(["1", "0", "1"], "test") == ("1", "0")
    with pytest.raises(UserError, match="has seen every training case"):
        choose_folds(["all"], "folds")
    with pytest.raises(UserError, match="do not go together"):
        choose_folds(["all", "0"], "test")
    for path in setup.references.iterdir():
        path.unlink()
    assert choose_cases(setup.raw, None) == "folds"
    with pytest.raises(UserError, match="labelsTs: add them, or pass --cases folds"):
        choose_cases(setup.raw, "test")


@pytest.fixture
def trained(setup):
    """A benchmark whose trainings have noted how they trained."""
    for arm, epochs in zip(setup.arms, (10, 20), strict=True):
        write_json(setup.training_note(arm, "all"), {"epochs": epochs})
    return setup


def test_setup_json_stays_as_it_was_when_nothing_changes(trained):
    setup = trained
    content = setup.describe()
    write_json(setup.note, content)
    before = setup.note.stat().st_mtime_ns
    write_json(setup.note, setup.describe())
    assert setup.note.stat().st_mtime_ns == before
    assert read_json_or(setup.note, None) == content
    assert content["arms"][0] == {"name": "nnUNetTrainer", "plans": "D2NetPlans", "folds": ["all"], "epochs": 10}
    assert content["differences"] == ["epochs differ: nnUNetTrainer 10, D2NetTrainer 20"]
    assert content["modalities"] == ["T1", "T2"]
    assert content["regions"] == {"lesion": [1]}
    assert content["command"] == (
        "d2net benchmark -d Dataset007_Paper -c 2d -p D2NetPlans --arms nnUNetTrainer D2NetTrainer -f all --cases test"
    )
    assert replace(setup, nan_outside_as_zero=True).command[-1] == "--nan_outside_as_zero"


def test_folder_of_another_benchmark_is_refused_but_arms_may_come(trained):
    setup = trained
    assert setup.check_same() == {}
    write_json(setup.note, setup.describe())
    replace(setup, arms=("D2NetTrainerPaper",), device="cuda", processes=7).check_same()
    for change in (
        {"start_from": "nnUNetTrainer"},
        {"starts": {"D2NetTrainerCompanion": "nnUNetTrainer"}},
        {"configuration": "3d_fullres"},
        {"mirroring": False},
        {"folds": ("0",)},
        {"plans": "X"},
    ):
        with pytest.raises(UserError, match="pass another -o"):
            replace(setup, **change).check_same()


def test_subsets_are_part_of_what_a_benchmark_is(trained):
    setup = replace(trained, subsets={"T1": 1.0, "T1+T2": 0.5})
    assert setup.command[-3:] == ["--subsets", "T1", "T1+T2=0.5"]
    write_json(trained.note, trained.describe())
    with pytest.raises(UserError, match=r"\(subsets none, not T1 T1\+T2=0\.5\)"):
        setup.check_same()
    trained.check_same()
    before = read_json_or(trained.note, {})
    del before["subsets"], before["start_from"], before["starts"]  # as earlier versions wrote it
    write_json(trained.note, before)
    trained.check_same()
    with pytest.raises(UserError, match="subsets none"):
        setup.check_same()


def test_models_that_were_trained_with_other_subsets_are_refused(setup, write_checkpoint):
    setup = replace(setup, arms=("nnUNetTrainer", "nnUNetTrainerModalityDropout"), subsets={"T1": 1.0})
    for arm in setup.arms:
        write_checkpoint(setup.model(arm).checkpoint("all"))
    with pytest.raises(UserError, match=r"ModalityDropout.*was trained with other subsets \(none, not T1\)"):
        setup.check_trained()
    note = setup.model("nnUNetTrainerModalityDropout").checkpoint("all").with_name("subsets.json")
    write_json(note, {"subsets": {"T1": 1.0}})
    setup.check_trained()
    with pytest.raises(UserError, match=r"\(T1, not none\)"):
        replace(setup, subsets={}).check_trained()


def test_models_that_may_have_trained_on_the_cases_to_be_scored_are_refused(setup, write_checkpoint):
    setup = replace(setup, arms=("nnUNetTrainer", "D2NetTrainerCompanion"), folds=("0",), cases="folds")
    elsewhere = setup.results.parent / "elsewhere" / "nnUNetTrainer__D2NetPlans__2d" / "fold_0" / "checkpoint_final.pth"
    started = replace(setup, start_from=str(elsewhere.parents[1]))
    for checkpoint in (setup.model("nnUNetTrainer").checkpoint("0"), elsewhere):
        write_checkpoint(checkpoint)
    names = [f"case_Tr{i}" for i in range(5)]
    write_json(setup.preprocessed / "splits_final.json", [{"train": names[1:], "val": names[:1]}])

    def validated(checkpoint, case):
        (checkpoint.parent / "validation").mkdir(exist_ok=True)
        rows = [{"prediction_file": f"/anywhere/{case}.nii.gz"}]
        write_json(checkpoint.parent / "validation" / "summary.json", {"metric_per_case": rows})

    validated(setup.model("nnUNetTrainer").checkpoint("0"), names[0])
    validated(elsewhere, names[1])
    setup.check_trained()
    replace(started, cases="test").check_trained()
    with pytest.raises(UserError, match=r"elsewhere.* may have trained on case_Tr0: put its own splits back"):
        started.check_trained()
    validated(setup.model("nnUNetTrainer").checkpoint("0"), names[2])
    with pytest.raises(UserError, match=r"results.*nnUNetTrainer__D2NetPlans__2d.* was validated on other cases"):
        setup.check_trained()


@pytest.mark.parametrize(
    ("changes", "channels", "words"),
    [
        ({}, ("T1", "T2"), None),
        ({"spacing": [2.0, 1.0]}, ("T1", "T2"), r"trained by other plans than those of now \(spacing\): put its own"),
        ({}, ("T2", "T1"), "trained with T2, T1, in this order, and dataset.json has T1, T2 now"),
    ],
)
def test_models_of_other_plans_are_refused(setup, write_checkpoint, changes, channels, words):
    model = setup.model("nnUNetTrainer")
    plans = whole_plans({"2d": {"spacing": [1.0, 1.0]}})
    write_json(setup.preprocessed / "D2NetPlans.json", plans)
    plans["configurations"]["2d"] |= changes
    model.folder.mkdir(parents=True)
    write_json(model.folder / "plans.json", plans)
    write_json(model.folder / "dataset.json", {"channel_names": dict(enumerate(channels))})
    setup.check_trained()  # nothing is trained
    write_checkpoint(model.checkpoint("all"))
    if words is None:
        setup.check_trained()
        return
    with pytest.raises(UserError, match=words):
        setup.check_trained()


def test_before_its_training_an_arm_counts_the_epochs_of_its_start(trained, monkeypatch):
    monkeypatch.setattr(benchmark_setup, "passing_trainer", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(benchmark_setup, "schedule_of", lambda _: {"epochs": 7})
    arms = replace(trained, arms=("nnUNetTrainer", "D2NetTrainerCompanion")).describe()
    assert arms["arms"][1]["start"] == {"from": "nnUNetTrainer", "epochs": 10}
    assert arms["differences"] == ["epochs differ: nnUNetTrainer 10, D2NetTrainerCompanion 17 with those of its start"]


def test_models_of_another_folder_need_another_benchmark(trained, tmp_path):
    write_json(trained.note, trained.describe())
    elsewhere = replace(trained, results=tmp_path / "results_2" / trained.raw.name)
    elsewhere.check_same()  # the first folder does not exist any more: it was moved
    trained.results.mkdir(parents=True)
    with pytest.raises(UserError, match=r"is of models in .*results/.*, not .*results_2/.*: pass another -o"):
        elsewhere.check_same()
    trained.check_same()


def test_a_companion_trained_before_has_to_have_begun_with_what_is_named(trained, monkeypatch):
    arm, other = "D2NetTrainerCompanion", "nnUNetTrainer_5epochs"
    setup = replace(trained, arms=(arm,))
    save_weights(setup.model(arm).checkpoint("all"), 7, stock__decoder__seg=1, student__decoder__seg=3)
    save_weights(setup.model("nnUNetTrainer").checkpoint("all"), 1000, decoder__seg=1, encoder__stem=5)
    save_weights(setup.model(other).checkpoint("all"), 5, decoder__seg=2)
    setup.check_trained()
    named = replace(setup, start_from=str(setup.model(other).folder))
    with pytest.raises(UserError, match=r"did not start from .*nnUNetTrainer_5epochs.*: name the model"):
        named.check_trained()
    write_json(named.training_note(arm, "all"), {"start": {"from": str(setup.model(other).folder)}})
    with pytest.raises(UserError, match=r"did not start from .*nnUNetTrainer_5epochs.*: move .*fold_all away"):
        named.check_trained()
    setup.training_note(arm, "all").unlink()
    monkeypatch.setattr(benchmark_setup, "passing_trainer", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(benchmark_setup, "schedule_of", lambda _: {"epochs": 1000})
    described = setup.describe()["arms"][0]
    assert described["epochs"] == 7  # of the checkpoint
    assert described["start"] | {"sha256": ""} == {"from": "nnUNetTrainer", "epochs": 1000, "sha256": ""}


def test_a_companion_starts_from_what_its_training_noted_whichever_arms_there_are(trained):
    arm, start = "D2NetTrainerCompanion_10epochs", "nnUNetTrainer_5epochs"
    setup = replace(trained, arms=(arm, start, "nnUNetTrainer_10epochs"))
    latest = setup.model(arm).checkpoint("all").with_name("checkpoint_latest.pth")
    save_weights(latest, 7, stock__decoder__seg=1)
    for trainer, weight in ((start, 1), ("nnUNetTrainer_10epochs", 2), ("nnUNetTrainer", 3)):
        save_weights(setup.model(trainer).checkpoint("all"), 5, decoder__seg=weight)
    write_json(setup.training_note(arm, "all"), {"start": {"from": start}})
    setup.check_trained()
    replace(setup, arms=(arm,)).check_trained()
    save_weights(setup.model(start).checkpoint("all"), 5, decoder__seg=4)
    with pytest.raises(UserError, match=r"checkpoint_latest\.pth did not start from .*nnUNetTrainer_5epochs__"):
        setup.check_trained()
    latest.write_bytes(latest.read_bytes()[:-8])  # is removed, and trained anew
    setup.check_trained()
