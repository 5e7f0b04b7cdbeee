"""What one job does, in a process of its own: prepare, train and predict, or measure."""

import logging
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from nnunetv2_d2net.base.dataset import dataset_number
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked, read_json_or, write_json
from nnunetv2_d2net.base.processes import end_with
from nnunetv2_d2net.plugin.planning.plans import preprocessed_folder
from nnunetv2_d2net.plugin.preprocessing.cohort import check_preprocessed
from nnunetv2_d2net.plugin.protocols import drawing_from, flags_of
from nnunetv2_d2net.plugin.start import is_companion
from nnunetv2_d2net.plugin.training import variants
from nnunetv2_d2net.plugin.training.splits import N_FOLDS
from nnunetv2_d2net.study.benchmark import jobs
from nnunetv2_d2net.study.benchmark.arms import DROPOUT
from nnunetv2_d2net.study.benchmark.cost import measure
from nnunetv2_d2net.study.benchmark.jobs import Job, Progress
from nnunetv2_d2net.study.benchmark.setup import Setup, schedule_of
from nnunetv2_d2net.study.pipeline import is_whole, passing_trainer, plan_and_preprocess, predict_subsets, train_fold

_PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}
_LOG = logging.getLogger("nnunetv2_d2net")


def run_job(setup: Setup, name: str, parent: int | None = None) -> None:
    """Do one job; what is there is not done again.

    Args:
        setup: The benchmark.
        name: Of the job, or ``prepare``.
        parent: Process whose end ends this one and all that it started.

    Raises:
        UserError: The data are not prepared, another process does this job, or the folder is of another benchmark.
    """
    if parent is not None:
        # in the background of a shell the benchmark ignores Ctrl-C, which its jobs would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end_with(parent, group=True)
    setup.check_same()
    setup.check_trained()
    if not setup.note.is_file():
        write_json(setup.note, setup.identity)
    if name == jobs.PREPARE:
        with locked(setup.out / ".prepare.lock"):
            prepare(setup)
        return
    job, progress = jobs.find_job(setup, name), Progress(setup)
    if not progress.prepared:
        raise UserError(f"the data are not prepared: run the same command with --job {jobs.PREPARE} first")
    with locked(setup.out / job.arm / f".{job.part}.lock"):
        if job.arm == jobs.COST:
            measure(setup, job)
            return
        if job.part != jobs.ENSEMBLE and not progress.trained(job):
            note = setup.training_note(job.arm, job.part)
            device = torch.device(setup.device)
            data = preprocessed_folder(setup.preprocessed / f"{setup.plans}.json", setup.configuration, "plan again")
            check_preprocessed(data, setup.dataset.channels, _preprocess_command(setup))
            checkpoint = _start(setup, job)
            start = setup.describe_start(job.arm, job.part)
            with drawing_from(setup.subsets):
                train_fold(
                    setup.model(job.arm),
                    job.part,
                    device,
                    lambda trainer: write_json(note, schedule_of(trainer) | start),
                    checkpoint,
                    setup.seed,
                )
        if job.predicts(setup) and not progress.predicted(job):
            predict(setup, job, progress.files_to_predict(job))


def _start(setup: Setup, job: Job) -> Path | None:
    """Return the checkpoint that a training starts from."""
    checkpoint = setup.start_checkpoint(job.arm, job.part)
    if checkpoint and not is_whole(checkpoint):
        first = jobs.first_of(setup, job.name)
        raise UserError(f"{job.name} starts from {checkpoint}, which is not there: run --job {first} to its end first")
    return checkpoint


def prepare(setup: Setup) -> None:
    """Plan, preprocess and split what is not.

    Raises:
        UserError: Plans of another make are not preprocessed, or there are too few cases for the folds.
    """
    progress = Progress(setup)
    if not progress.preprocessed:
        _preprocess(setup)
    if progress.fold_numbers and not progress.splits:
        _split(setup)
    if not Progress(setup).prepared:
        raise UserError(f"{setup.preprocessed} still lacks some of the training cases: see what is said above")


def predict(setup: Setup, job: Job, files: dict[str, list[str]]) -> None:
    """Predict the job's cases with every subset, from where it stopped."""
    path, folder = jobs.prediction_note(setup, job), setup.out / job.arm / "predictions"
    before, maker = read_json_or(path, {}), jobs.maker_of(setup, job)
    if before and not jobs.is_made_by(before, maker):
        _LOG.info("the model of %s has changed: predicting its cases again", job.name)
        for prediction in _predictions(setup, folder, before.get("cases", ())):
            prediction.unlink()
    elif stale := _predictions(setup, folder, jobs.changed_cases(before, files)):
        _LOG.info("images of %s have changed: predicting again what was made of them", job.name)
        for prediction in stale:
            prediction.unlink()
    note = {**maker, "cases": sorted(files), "images": jobs.image_states(files)}
    write_json(path, {**note, "complete": False})
    predict_subsets(
        setup.model(job.arm),
        job.folds(setup),
        list(files.values()),
        folder,
        torch.device(setup.device),
        mirroring=setup.mirroring,
        nan_outside_as_zero=setup.nan_outside_as_zero,
        subsets=flags_of(setup.subsets, setup.dataset.channels),
        progress=True,
    )
    written = sorted(str(path.relative_to(folder)) for path in _predictions(setup, folder, files))
    write_json(path, {**note, "complete": True, "files": written})


def _predictions(setup: Setup, folder: Path, cases: Iterable[Any]) -> list[Path]:
    subsets = [path for path in folder.glob("*") if path.is_dir()]
    files = [subset / f"{case}{setup.dataset.file_ending}" for subset in subsets for case in cases]
    return [file for file in files if file.is_file()]


def _preprocess(setup: Setup) -> None:
    started = jobs.preparation_note(setup)  # says that an unfinished preparation is ours to repeat
    number, plans = dataset_number(setup.raw.name), setup.preprocessed / f"{setup.plans}.json"
    if read_json_or(started, None) is None and plans.exists():
        raise UserError(
            f"{plans} is planned but {setup.configuration} is not preprocessed in full: {_preprocess_command(setup)}"
        )
    write_json(started, {"plans": setup.plans, "complete": False})
    plan_and_preprocess(number, _planner(setup.plans), setup.configuration, processes=setup.processes)
    write_json(started, {"plans": setup.plans, "complete": True})


def _preprocess_command(setup: Setup) -> str:
    number = dataset_number(setup.raw.name)
    return f"run d2net preprocess -d {number} -plans_name {setup.plans} -c {setup.configuration}"


def _split(setup: Setup) -> None:
    """Split as a training would, once for all jobs: several trainings would write the file at the same time."""
    n_cases = len(setup.dataset.training_cases(setup.raw))
    if n_cases < N_FOLDS:
        raise UserError(f"{n_cases} training cases do not make {N_FOLDS} folds: pass -f all --cases test")
    ours = [arm for arm in setup.arms if hasattr(variants, arm) and not is_companion(arm)]  # may want other folds
    with passing_trainer(setup.model([*ours, DROPOUT][0]), setup.folds[0], torch.device(setup.device)) as trainer:
        trainer.do_split()


def _planner(plans: str) -> str:
    if plans.startswith("D2Net") and plans.endswith("Plans"):
        return plans.removesuffix("Plans") + "Planner"
    if plans not in _PLANNERS:
        raise UserError(f"{plans} do not exist and no planner is known for them: plan first, or pass -p D2NetPlans")
    return _PLANNERS[plans]
