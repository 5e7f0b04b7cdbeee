"""The jobs of a benchmark: what there is to do, what is done, and how a shell would start each."""

import shlex
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_d2net.base.case_files import find_cases
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import modality_names
from nnunetv2_d2net.plugin.prediction.used import describe_model
from nnunetv2_d2net.study.benchmark.prepare import prepared, validation_cases
from nnunetv2_d2net.study.benchmark.setup import FINAL, Setup, read_json_or

PREPARE = "prepare"
ENSEMBLE = "ensemble"
COST = "cost"
STEPS = "steps"


class Job(NamedTuple):
    """One part of the work.

    Attributes:
        arm: Name of the trainer; ``cost`` for measurements.
        part: Fold to train and predict, ``ensemble`` to predict with all folds; for measurements the trainer, or
            ``steps`` for the steps of all.
    """

    arm: str
    part: str

    @property
    def name(self) -> str:
        """How ``--job`` calls it."""
        return f"{self.arm}/{self.part}"


def training_jobs(setup: Setup) -> list[Job]:
    """One job for every arm and fold."""
    return [Job(arm, fold) for arm in setup.arms for fold in setup.folds]


def ensemble_jobs(setup: Setup) -> list[Job]:
    """One job for every arm whose folds predict together, after their training."""
    return [Job(arm, ENSEMBLE) for arm in setup.arms] if setup.ensemble else []


def cost_jobs(setup: Setup) -> list[Job]:
    """One job for every arm, and one that times the steps of all, each in a process with nothing else in it."""
    return [*(Job(COST, arm) for arm in setup.arms), Job(COST, STEPS)]


def find_job(setup: Setup, name: str) -> Job:
    """Return the job of that name.

    Raises:
        UserError: There is none.
    """
    jobs = {job.name: job for job in (*training_jobs(setup), *ensemble_jobs(setup), *cost_jobs(setup))}
    if name not in jobs:
        raise UserError(f"no job is called {name}: there are {PREPARE}, {', '.join(jobs)}")
    return jobs[name]


def is_done(setup: Setup, job: Job) -> bool:
    """Tell whether a job has left everything it should."""
    if job.arm == COST:
        return measurement_done(setup, job)
    if job.part == ENSEMBLE or not setup.ensemble:
        return trained(setup, job) and predicted(setup, job)
    return trained(setup, job)


def trained(setup: Setup, job: Job) -> bool:
    """Tell whether the final checkpoint of every fold that the job needs is there as a whole."""
    return all(is_whole(setup.checkpoint(job.arm, fold)) for fold in folds_of(setup, job))


def is_whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was written to its end, where torch puts the archive's directory."""
    return checkpoint.is_file() and zipfile.is_zipfile(checkpoint)


def folds_of(setup: Setup, job: Job) -> tuple[str, ...]:
    """Return the folds whose models the job uses."""
    return setup.folds if job.part == ENSEMBLE else (job.part,)


def predicted(setup: Setup, job: Job) -> bool:
    """Tell whether the job's cases are predicted by the models that are there now."""
    note = read_json_or(prediction_note(setup, job), {})
    if not note.get("complete") or note.get("cases") != sorted(files_to_predict(setup, job)):
        return False
    if not all((setup.out / job.arm / "predictions" / file).is_file() for file in note.get("files", ())):
        return False
    return same_model(note, model_note(setup, job))


def same_model(note: dict[str, Any], model: dict[str, Any]) -> bool:
    """Tell whether predictions are those that a model would make."""
    return {key: note.get(key) for key in model} == model


def model_note(setup: Setup, job: Job) -> dict[str, Any]:
    """Say what decides about a prediction: SHA-256 of the checkpoints, and mirroring."""
    checkpoints = describe_model(setup.model(job.arm), folds_of(setup, job), FINAL).checkpoints
    return {"checkpoints": checkpoints, "mirroring": setup.mirroring}


def prediction_note(setup: Setup, job: Job) -> Path:
    """Return the file that says which cases are predicted, and by which model."""
    return setup.out / job.arm / f"predicted_{_label(job)}.json"


def files_to_predict(setup: Setup, job: Job) -> dict[str, list[str]]:
    """Return the image files of each case that the job predicts.

    Raises:
        UserError: A case cannot be used, or there is none.
    """
    description = setup.dataset_json
    ending = description["file_ending"]
    found = find_cases(setup.images, ending, len(modality_names(description)))
    with_reference = {path.name.removesuffix(ending) for path in setup.references.glob(f"*{ending}")}
    wanted = with_reference if setup.cases == "test" else with_reference & set(validation_cases(setup, job.part))
    if problems := [line for case, line in found.problems.items() if case in wanted]:
        raise UserError(problems[0] if len(problems) == 1 else f"{problems[0]} ({len(problems) - 1} more like it)")
    files = {case: names for case, names in found.files.items() if case in wanted}
    if not files:
        raise UserError(f"no case of {setup.images} has a reference in {setup.references}: names must agree")
    return files


def measurement_done(setup: Setup, job: Job) -> bool:
    """Tell whether a measurement is there, of the arms in question."""
    content = read_json_or(measurement_file(setup, job), {})
    return set(setup.arms) <= set(content.get("seconds", ())) if job.part == STEPS else bool(content)


def measurement_file(setup: Setup, job: Job) -> Path:
    """Return the file that a measurement writes."""
    return setup.out / "step_seconds.json" if job.part == STEPS else setup.out / job.part / "measured.json"


def log_file(setup: Setup, name: str) -> Path:
    """Return the file that collects what a job prints."""
    arm, _, part = name.partition("/")
    if arm in (PREPARE, COST):
        return setup.out / f"{'_'.join(filter(None, (arm, part)))}.txt"
    return setup.out / arm / f"training_{_label(Job(arm, part))}.txt"


def job_command(setup: Setup, name: str) -> list[str]:
    """Return the command that does one job in this Python."""
    return [sys.executable, "-m", "nnunetv2_d2net.cli.main", *setup.command_here[1:], "--job", name]


def job_list(setup: Setup) -> str:
    """Return what a cluster has to run: preparation, then independent commands, then what gathers them."""
    words = setup.command_here
    todo = [job.name for job in training_jobs(setup) if not is_ready(setup) or not is_done(setup, job)]
    lines = []
    if not is_ready(setup):
        lines += ["# first:", _line([*words, "--job", PREPARE])]
    lines += ["# in any order, or at the same time:"] if todo else ["# every training is done"]
    lines += [_line([*words, "--job", name]) for name in todo]
    lines += ["# at last:", _line(words)]
    return "\n".join(lines) + "\n"


def is_ready(setup: Setup) -> bool:
    """Tell whether the data are prepared."""
    return prepared(setup)


def _label(job: Job) -> str:
    return job.part if job.part == ENSEMBLE else f"fold_{job.part}"


def _line(words: Sequence[str]) -> str:
    return shlex.join(words)
