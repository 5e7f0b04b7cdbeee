import contextlib
import gzip
import json
import os
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from nibabel.nifti1 import Nifti1Header

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import write_json
from nnunetv2_d2net.plugin.prediction.writing import NOTE
from nnunetv2_d2net.study.benchmark import jobs, one_job
from nnunetv2_d2net.study.benchmark.jobs import Job, Progress

JOB = Job("D2NetTrainer", "all")
SPLITS = [{"train": [f"case_Tr{i}" for i in range(5) if i != fold], "val": [f"case_Tr{fold}"]} for fold in range(5)]


def finish(setup, job, write_checkpoint):
    """Leave what a finished job leaves."""
    for fold in job.folds(setup):
        write_checkpoint(setup.model(job.arm).checkpoint(fold))
    images = Progress(setup).files_to_predict(job)
    cases = sorted(images)
    files = [f"{subset}/{case}.nii.gz" for subset in ("T1", "T2", "T1+T2") for case in cases]
    for file in files:
        path = setup.out / job.arm / "predictions" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(Nifti1Header().binaryblock + bytes(4)))
    note = {**jobs.maker_of(setup, job), "cases": cases, "complete": True, "files": files}
    note["images"] = jobs.image_states(images)
    write_json(jobs.prediction_note(setup, job), note)


def test_one_job_per_arm_and_fold(setup):
    several = replace(setup, folds=("0", "1"))
    assert {phase: [job.name for job in listed] for phase, listed in jobs.jobs_by_phase(several).items()} == {
        "train and predict": ["nnUNetTrainer/0", "nnUNetTrainer/1", "D2NetTrainer/0", "D2NetTrainer/1"],
        "predict": ["nnUNetTrainer/ensemble", "D2NetTrainer/ensemble"],
        "measure costs": ["cost/nnUNetTrainer", "cost/D2NetTrainer", "cost/steps"],
    }
    assert jobs.jobs_by_phase(setup)["predict"] == [] == jobs.jobs_by_phase(replace(several, cases="folds"))["predict"]


def test_finished_job_is_done_until_something_of_it_is_missing(setup, write_checkpoint):
    assert not Progress(setup).done(JOB)
    finish(setup, JOB, write_checkpoint)
    assert Progress(setup).done(JOB)
    first, second = (setup.out / f"D2NetTrainer/predictions/T2/case_Ts{case}.nii.gz" for case in range(2))
    whole = first.read_bytes()
    for damaged in (whole[:-4], b"", whole[:60] + b"damage" + whole[66:]):
        first.write_bytes(damaged)
        assert not Progress(setup).done(JOB)
    first.write_bytes(whole)
    assert Progress(setup).done(JOB)
    second.unlink()
    assert not Progress(setup).done(JOB)


def test_a_prediction_that_somebody_has_changed_is_neither_done_nor_overwritten(setup, write_checkpoint):
    finish(setup, JOB, write_checkpoint)
    prediction = setup.out / "D2NetTrainer/predictions/T2/case_Ts1"
    write_json(Path(f"{prediction}{NOTE}"), {"files": {".nii.gz": [1, "another"]}})
    with pytest.raises(UserError, match=r"case_Ts1\.nii\.gz was changed after it was written: move it away"):
        Progress(setup).done(JOB)


def test_a_damaged_checkpoint_is_not_done(setup, write_checkpoint):
    finish(setup, JOB, write_checkpoint)
    checkpoint = setup.model("D2NetTrainer").checkpoint("all")
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:40] + b"?" + content[41:])
    assert not Progress(setup).trained(JOB)


def test_checkpoint_that_was_cut_short_is_not_done(setup, write_checkpoint):
    finish(setup, JOB, write_checkpoint)
    checkpoint = setup.model("D2NetTrainer").checkpoint("all")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-8])
    assert not Progress(setup).trained(JOB)


@pytest.mark.parametrize("what", ["model", "mirroring", "cases", "interrupted"])
def test_predictions_of_something_else_are_not_done(setup, write_checkpoint, what):
    finish(setup, JOB, write_checkpoint)
    note = jobs.prediction_note(setup, JOB)
    if what == "model":
        write_checkpoint(setup.model("D2NetTrainer").checkpoint("all").with_name("other.pth"))
        setup.model("D2NetTrainer").checkpoint("all").with_name("other.pth").replace(
            setup.model("D2NetTrainer").checkpoint("all")
        )
    elif what == "mirroring":
        setup = replace(setup, mirroring=False)
    elif what == "cases":
        for channel in range(2):
            (setup.images / f"new_{channel:04d}.nii.gz").touch()
        (setup.references / "new.nii.gz").touch()
    else:
        note.write_text(
            json.dumps({**json.loads(note.read_text(encoding="utf-8")), "complete": False}), encoding="utf-8"
        )
    assert Progress(setup).trained(JOB)
    assert not Progress(setup).predicted(JOB)


@pytest.mark.parametrize("what", ["replaced", "withdrawn", "added", "copied", "noted by nobody"])
def test_cases_whose_images_have_changed_are_predicted_again(setup, write_checkpoint, monkeypatch, what):
    late, image = (setup.images / f"case_Ts1_000{channel}.nii.gz" for channel in (1, 0))
    if what == "added":
        late.unlink()
    finish(setup, JOB, write_checkpoint)
    if what in ("withdrawn", "noted by nobody"):
        late.unlink()
    elif what == "added":
        late.touch()
    else:
        state = image.stat()
        image.write_bytes(b"another" if what == "replaced" else b"")
        os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    path = jobs.prediction_note(setup, JOB)
    if what == "noted by nobody":  # but by an earlier version
        note = json.loads(path.read_text(encoding="utf-8"))
        del note["images"]
        write_json(path, note)
    stays = what in ("copied", "noted by nobody")
    assert Progress(setup).predicted(JOB) is stays
    made = []
    monkeypatch.setattr(one_job, "predict_subsets", lambda *_, **__: made.append(len(left())))

    def left():
        return sorted(path.name for path in (setup.out / "D2NetTrainer" / "predictions").glob("*/*.gz"))

    one_job.predict(setup, JOB, Progress(setup).files_to_predict(JOB))
    assert made == [6 if stays else 3]
    assert left() == ["case_Ts0.nii.gz"] * 3 + ["case_Ts1.nii.gz"] * (3 if stays else 0)
    assert Progress(setup).predicted(JOB)


def test_ensemble_waits_for_all_folds(setup, write_checkpoint):
    several = replace(setup, folds=("0", "1"))
    write_checkpoint(several.model("D2NetTrainer").checkpoint("0"))
    assert Progress(several).done(Job("D2NetTrainer", "0"))
    assert not Progress(several).done(Job("D2NetTrainer", "ensemble"))
    finish(several, Job("D2NetTrainer", "ensemble"), write_checkpoint)
    assert Progress(several).done(Job("D2NetTrainer", "ensemble"))


def test_folds_predict_their_own_cases(setup):
    (setup.preprocessed / "splits_final.json").write_text(json.dumps(SPLITS), encoding="utf-8")
    folds = replace(setup, folds=("0", "1"), cases="folds")
    assert [list(Progress(folds).files_to_predict(Job("D2NetTrainer", fold))) for fold in folds.folds] == [
        ["case_Tr0"],
        ["case_Tr1"],
    ]


def test_test_cases_without_reference_are_left_out_and_none_is_an_error(setup):
    (setup.references / "case_Ts0.nii.gz").unlink()
    assert list(Progress(setup).files_to_predict(JOB)) == ["case_Ts1"]
    (setup.references / "case_Ts1.nii.gz").unlink()
    with pytest.raises(UserError, match="names must agree"):
        Progress(setup).files_to_predict(JOB)


def test_job_list_holds_what_is_missing(setup, write_checkpoint):
    def listed():
        lines = jobs.job_list(setup).splitlines()
        return [shlex.split(line) for line in lines if not line.startswith("#")]

    *single, last = listed()
    assert [words[-2:] for words in single] == [["--job", "nnUNetTrainer/all"], ["--job", "D2NetTrainer/all"]]
    assert last == setup.command_here
    assert all(words[: len(last)] == last for words in single)
    finish(setup, JOB, write_checkpoint)
    assert [words[-1] for words in listed()[:-1]] == ["nnUNetTrainer/all"]
    next((setup.preprocessed / "data").glob("*.pkl")).unlink()
    assert [words[-1] for words in listed()[:-1]] == ["prepare", "nnUNetTrainer/all", "D2NetTrainer/all"]


def test_unknown_job_names_the_others(setup):
    assert jobs.find_job(setup, "D2NetTrainer/all") == JOB
    with pytest.raises(UserError, match=r"there are prepare, nnUNetTrainer/all, .*cost/steps"):
        jobs.find_job(setup, "D2NetTrainer/0")


def test_measurement_is_done_for_the_arms_it_holds(setup):
    job = Job("cost", "steps")
    write_json(setup.out / "step_seconds.json", {"seconds": {"nnUNetTrainer": [1.0]}})
    assert not Progress(setup).done(job)
    assert Progress(replace(setup, arms=("nnUNetTrainer",))).done(job)


def test_prepared_needs_plans_every_case_and_the_folds(setup):
    assert Progress(setup).prepared
    assert Progress(replace(setup, configuration="2d_child")).prepared
    assert not Progress(replace(setup, plans="OtherPlans")).prepared
    assert not Progress(replace(setup, folds=("0",))).prepared
    (setup.preprocessed / "splits_final.json").write_text(json.dumps(SPLITS), encoding="utf-8")
    assert Progress(replace(setup, folds=("4",))).prepared
    with pytest.raises(UserError, match="folds 0 to 4"):
        _ = Progress(replace(setup, folds=("5",))).prepared
    with pytest.raises(UserError, match="has no configuration 3d_fullres: it has 2d"):
        _ = Progress(replace(setup, configuration="3d_fullres")).prepared


@pytest.mark.parametrize("text", ['[{"train": ', "[]", "5", '[{"train": ["case_Tr0"]}]'])
def test_splits_that_cannot_be_used_are_named_and_stay(setup, text):
    splits = setup.preprocessed / "splits_final.json"
    splits.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"splits_final\.json.*: repair it, or move it away"):
        one_job.prepare(replace(setup, folds=("0",)))
    assert splits.read_text(encoding="utf-8") == text
    assert Progress(setup).prepared  # fold all needs none


@pytest.mark.parametrize("text", ['{"dataset_name": ', "[]", "{}", '{"configurations": []}'])
def test_plans_that_cannot_be_read_are_named_and_stay(setup, text):
    plans = setup.preprocessed / "D2NetPlans.json"
    plans.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"D2NetPlans\.json.*: repair it, or move it away to plan anew"):
        one_job.prepare(setup)
    assert plans.read_text(encoding="utf-8") == text


def test_too_few_cases_make_no_folds(setup):
    (setup.raw / "labelsTr" / "case_Tr4.nii.gz").unlink()
    with pytest.raises(UserError, match="4 training cases do not make 5 folds"):
        one_job.prepare(replace(setup, folds=("0",)))


def test_plans_that_somebody_else_made_are_not_made_again(setup):
    next((setup.preprocessed / "data").glob("*.pkl")).unlink()
    with pytest.raises(UserError, match="run d2net preprocess -d 7 -plans_name D2NetPlans -c 2d"):
        one_job.prepare(setup)
    with pytest.raises(UserError, match="no planner is known"):
        one_job.prepare(replace(setup, plans="OtherPlans"))


def test_a_preparation_that_was_killed_behind_its_last_case_is_made_again(setup, monkeypatch):
    """What follows the cases, such as the note of their modalities, would be missing."""
    begun = []
    monkeypatch.setattr(one_job, "plan_and_preprocess", lambda *_, **__: begun.append(Progress(setup).preprocessed))
    assert Progress(setup).prepared
    write_json(jobs.preparation_note(setup), {"plans": "D2NetPlans", "complete": False})
    assert not Progress(setup).prepared
    one_job.prepare(setup)
    assert begun == [False]
    assert Progress(setup).prepared


def test_what_is_there_is_read_once_for_all_jobs(setup, write_checkpoint, monkeypatch):
    for arm in setup.arms:
        finish(setup, Job(arm, "all"), write_checkpoint)
    progress, listed = Progress(setup), []
    find = Dataset.find_cases
    monkeypatch.setattr(Dataset, "find_cases", lambda *args: listed.append(args[1]) or find(*args))
    assert all(progress.done(job) for job in jobs.jobs_by_phase(setup)[jobs.TRAIN])
    assert listed == [setup.images]


@pytest.fixture
def with_companion(setup):
    return replace(setup, arms=("D2NetTrainerCompanion", "D2NetTrainer", "nnUNetTrainer"))


def test_a_companion_comes_after_what_it_starts_from(with_companion):
    names = [job.name for job in jobs.jobs_by_phase(with_companion)[jobs.TRAIN]]
    assert names == ["D2NetTrainer/all", "nnUNetTrainer/all", "D2NetTrainerCompanion/all"]
    assert [jobs.first_of(with_companion, name) for name in names] == ["", "", "nnUNetTrainer/all"]
    lines = jobs.job_list(with_companion).splitlines()
    assert jobs.job_list(with_companion, cost=False).splitlines() == [*lines[:-1], f"{lines[-1]} --no_cost"]
    assert lines[-4] == "# once nnUNetTrainer/all is done:"
    assert lines[-3].endswith("--job D2NetTrainerCompanion/all")


def test_each_companion_may_start_from_an_arm_of_its_own(setup):
    stocks, companions = ([f"{name}_{n}epochs" for n in (5, 10)] for name in ("nnUNetTrainer", "D2NetTrainerCompanion"))
    setup = replace(setup, arms=(*companions, *stocks), start_from=stocks[0], starts={companions[0]: stocks[1]})
    assert [setup.start_of(arm) for arm in setup.arms] == [stocks[1], stocks[0], "", ""]
    words = setup.command
    given = [word for flag, word in pairwise(words) if flag == "--start_from"]
    assert given == [stocks[0], f"{companions[0]}={stocks[1]}"]
    assert jobs.first_of(setup, f"{companions[0]}/all") == f"{stocks[1]}/all"


def test_a_companion_whose_start_is_not_trained_says_what_to_run(with_companion):
    with pytest.raises(UserError, match=r"which is not there: run --job nnUNetTrainer/all to its end first"):
        one_job._start(with_companion, Job("D2NetTrainerCompanion", "all"))


def test_a_start_elsewhere_must_be_the_same_folds(with_companion, tmp_path, write_checkpoint):
    model, job = tmp_path / "elsewhere" / "nnUNetTrainer__D2NetPlans__2d", Job("D2NetTrainerCompanion", "0")
    setup = replace(with_companion, start_from=str(model))
    with pytest.raises(UserError, match=r"fold_0.checkpoint_final\.pth does not exist: train fold 0"):
        one_job._start(setup, job)
    for fold in "01":
        write_checkpoint(model / f"fold_{fold}" / "checkpoint_final.pth")
    assert one_job._start(setup, job) == model / "fold_0" / "checkpoint_final.pth"
    assert jobs.first_of(setup, job.name) == "" == jobs.first_of(setup, "nnUNetTrainer/all")
    other = replace(setup, start_from=str(model / "fold_1" / "checkpoint_final.pth"))
    with pytest.raises(UserError, match="has seen validation cases of fold 0"):
        one_job._start(other, job)
    assert one_job._start(other, Job("D2NetTrainerCompanion", "all"))  # which leaves no case out


@pytest.mark.parametrize(
    ("arms", "splitting"),
    [
        (("nnUNetTrainer", "D2NetTrainerPaperNoKD_5epochs"), "D2NetTrainerPaperNoKD_5epochs"),  # three folds
        (("nnUNetTrainer", "D2NetTrainerCompanion"), "nnUNetTrainerModalityDropout"),
    ],
)
def test_new_splits_are_those_of_the_first_arm_of_this_package(setup, monkeypatch, arms, splitting):
    asked = []

    @contextlib.contextmanager
    def passing_trainer(model, *_):
        asked.append(model.trainer)
        yield SimpleNamespace(do_split=lambda: write_json(setup.preprocessed / "splits_final.json", SPLITS))

    monkeypatch.setattr(one_job, "passing_trainer", passing_trainer)
    one_job.prepare(replace(setup, arms=arms, folds=("0",)))
    assert asked == [splitting]


def test_cases_without_a_partner_are_named(setup):
    assert Progress(setup).left_out == []
    (setup.references / "case_Ts1.nii.gz").rename(setup.references / "case_Ts01.nii.gz")
    images, references = Progress(setup).left_out
    assert images.startswith(f"not scored, {setup.images} without a reference in")
    assert images.endswith(": case_Ts1")
    assert references.startswith(f"not scored, {setup.references} without an image in")
    assert references.endswith(": case_Ts01")


def test_predictions_of_cases_that_nobody_predicts_any_more_are_named(setup):
    folder = setup.out / setup.arms[0] / "predictions" / "T1"
    folder.mkdir(parents=True)
    for case in ("case_Ts0", "case_Ts1"):
        (folder / f"{case}.nii.gz").touch()
    assert Progress(setup).predictions_of_others(setup.arms[0]) == set()
    for channel in (0, 1):
        (setup.images / f"case_Ts1_000{channel}.nii.gz").unlink()
    assert Progress(setup).predictions_of_others(setup.arms[0]) == {"case_Ts1"}
