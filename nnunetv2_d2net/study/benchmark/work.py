"""What one job does, in a process of its own: prepare, train and predict, or measure."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
# nnU-Net declares attributes as None until they are initialized, and narrower types than it uses.

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.training.resuming import ResumingTrainer, written_whole
from nnunetv2_d2net.study.benchmark import jobs
from nnunetv2_d2net.study.benchmark.arms import facts_of, training_note, use_device
from nnunetv2_d2net.study.benchmark.cost import measure
from nnunetv2_d2net.study.benchmark.jobs import Job
from nnunetv2_d2net.study.benchmark.prepare import prepare
from nnunetv2_d2net.study.benchmark.setup import Setup, check_same_benchmark, comparable, read_json_or, write_json

_LOCK_SECONDS = 10.0
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")


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
        _end_with(parent)
    check_same_benchmark(setup)
    if not (setup.out / "setup.json").is_file():
        write_json(setup.out / "setup.json", comparable(setup))
    if name == jobs.PREPARE:
        with _locked(setup.out / ".prepare.lock"):
            prepare(setup)
        return
    job = jobs.find_job(setup, name)
    if not jobs.is_ready(setup):
        raise UserError(f"the data are not prepared: run the same command with --job {jobs.PREPARE} first")
    with _locked(setup.out / job.arm / f".{job.part}.lock"):
        _do(setup, job)


def _do(setup: Setup, job: Job) -> None:
    if job.arm == jobs.COST:
        measure(setup, job)
        return
    if job.part != jobs.ENSEMBLE and not jobs.trained(setup, job):
        train(setup, job)
    if (job.part == jobs.ENSEMBLE or not setup.ensemble) and not jobs.predicted(setup, job):
        predict(setup, job)


def train(setup: Setup, job: Job) -> None:
    """Train one fold without nnU-Net's validation on whole cases, from the latest checkpoint if there is one."""
    folder = setup.checkpoint(job.arm, job.part).parent
    resume = _usable_checkpoint(folder)
    device = torch.device(setup.device)
    use_device(device)
    fold = job.part if job.part == "all" else int(job.part)
    trainer = get_trainer_from_args(
        setup.dataset, setup.configuration, fold, job.arm, setup.plans, resume, device=device
    )
    maybe_load_checkpoint(trainer, resume, validation_only=False)
    trainer.save_every = min(trainer.save_every, max(1, trainer.num_epochs // 20))
    save = trainer.save_checkpoint

    def save_with_note(filename: str) -> None:
        write_json(training_note(setup, job.arm, job.part), facts_of(trainer))
        if isinstance(trainer, ResumingTrainer):
            save(filename)
            return
        with written_whole(Path(filename)) as unfinished:  # nnU-Net's own trainers write over the checkpoint before
            save(str(unfinished))

    trainer.save_checkpoint = save_with_note
    trainer.run_training()


def predict(setup: Setup, job: Job) -> None:
    """Predict the job's cases with every subset, from where it stopped."""
    note_file, model = jobs.prediction_note(setup, job), jobs.model_note(setup, job)
    folder = setup.out / job.arm / "predictions"
    files = jobs.files_to_predict(setup, job)
    before = read_json_or(note_file, {})
    if before and not jobs.same_model(before, model):
        _remove_predictions(setup, job, before.get("cases", ()))
    write_json(note_file, {**model, "cases": sorted(files), "complete": False})
    device = torch.device(setup.device)
    use_device(device)
    predictor = AllSubsetsPredictor(use_mirroring=setup.mirroring, device=device, allow_tqdm=True)
    predictor.initialize_from_trained_model_folder(str(setup.model(job.arm)), jobs.folds_of(setup, job))
    predictor.predict_from_files(list(files.values()), str(folder), overwrite=False)
    written = sorted(str(path.relative_to(folder)) for path in _predictions(setup, job, list(files)))
    write_json(note_file, {**model, "cases": sorted(files), "complete": True, "files": written})


def _remove_predictions(setup: Setup, job: Job, cases: list[str]) -> None:
    sys.stderr.write(f"d2net: the model of {job.name} has changed: predicting its cases again\n")
    for path in _predictions(setup, job, cases):
        path.unlink()


def _predictions(setup: Setup, job: Job, cases: list[str]) -> list[Path]:
    ending = setup.dataset_json["file_ending"]
    subsets = [d for d in (setup.out / job.arm / "predictions").glob("*") if d.is_dir()]
    return [path for subset in subsets for case in cases if (path := subset / f"{case}{ending}").is_file()]


def _usable_checkpoint(folder: Path) -> bool:
    """Remove checkpoints that were cut short, which nnU-Net would try to go on from; tell whether any is left."""
    for path in (folder / name for name in _CHECKPOINTS):
        if path.is_file() and not jobs.is_whole(path):
            sys.stderr.write(f"d2net: {path} was cut short and is removed\n")
            path.unlink()
    return any((folder / name).is_file() for name in _CHECKPOINTS)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time do a job; the lock goes with the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not handed down to forked processes
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise UserError(f"another process holds {path}: wait for it, or end it") from error
                time.sleep(0.2)
        yield


def _end_with(parent: int) -> None:
    """Listen to the benchmark alone: end when it says so, or when it is gone."""
    # in the background of a shell it ignores Ctrl-C, which its jobs would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
