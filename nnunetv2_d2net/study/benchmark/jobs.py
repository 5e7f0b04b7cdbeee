"""The jobs of a benchmark: what there is to do, what is done, and how a shell would start each."""

import contextlib
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_d2net.base.dataset import FoundCases
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import file_state, read_json_or, sha256_of
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.plugin.planning.plans import preprocessed_folder
from nnunetv2_d2net.plugin.prediction.writing import is_written
from nnunetv2_d2net.plugin.training.splits import check_fold, read_splits
from nnunetv2_d2net.study.benchmark.setup import Setup
from nnunetv2_d2net.study.pipeline import is_whole

TRAIN, PREDICT, MEASURE = "train and predict", "predict", "measure costs"
PREPARE = "prepare"
ENSEMBLE = "ensemble"
COST = "cost"
STEPS = "steps"


class Job(NamedTuple):
    """One part of a benchmark.

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

    @property
    def label(self) -> str:
        """How its files call it."""
        return self.part if self.part == ENSEMBLE else f"fold_{self.part}"

    def folds(self, setup: Setup) -> tuple[str, ...]:
        """Return the folds whose models it uses."""
        return setup.folds if self.part == ENSEMBLE else (self.part,)

    def predicts(self, setup: Setup) -> bool:
        """Tell whether it predicts: each fold by itself, or all of them together."""
        return self.part == ENSEMBLE or not setup.ensemble


def jobs_by_phase(setup: Setup) -> dict[str, list[Job]]:
    """List all jobs, by what they do, in the order in which that is done."""
    arms = sorted(setup.arms, key=lambda arm: setup.start_of(arm) in setup.arms)  # what others start from comes first
    return {
        TRAIN: [Job(arm, fold) for arm in arms for fold in setup.folds],
        PREDICT: [Job(arm, ENSEMBLE) for arm in setup.arms] if setup.ensemble else [],
        # each in a process with nothing else in it
        MEASURE: [*(Job(COST, arm) for arm in setup.arms), Job(COST, STEPS)],
    }


def find_job(setup: Setup, name: str) -> Job:
    """Return the job of that name.

    Raises:
        UserError: There is none.
    """
    jobs = {job.name: job for listed in jobs_by_phase(setup).values() for job in listed}
    if name not in jobs:
        raise UserError(f"no job is called {name}: there are {PREPARE}, {', '.join(jobs)}")
    return jobs[name]


def preparation_note(setup: Setup) -> Path:
    """Return the file that says that this benchmark has begun to plan and preprocess, and whether that is complete."""
    return setup.out / f"{PREPARE}.json"


def first_of(setup: Setup, name: str) -> str:
    """Name the training from which the job of that name starts; empty where it need not wait for any."""
    arm, _, part = name.partition("/")
    start = setup.start_of(arm) if part in setup.folds else ""
    return f"{start}/{part}" if start in setup.arms else ""


class Progress:
    """What is there of a benchmark: plans, splits and cases are read once, when they are first asked for."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    @property
    def fold_numbers(self) -> list[int]:
        """The folds to train that the splits must have."""
        return [int(fold) for fold in self.setup.folds if fold != "all"]

    @cached_property
    def preprocessed(self) -> bool:
        """Whether every training case is preprocessed for these plans.

        Raises:
            UserError: The plans cannot be read, or lack the configuration.
        """
        setup, plans = self.setup, self.setup.preprocessed / f"{self.setup.plans}.json"
        if not plans.exists():
            return False
        folder = preprocessed_folder(plans, setup.configuration, "repair it, or move it away to plan anew")
        if not read_json_or(preparation_note(setup), {}).get("complete", True):
            return False
        # nnU-Net writes a case's properties last
        return all((folder / f"{case}.pkl").is_file() for case in setup.dataset.training_cases(setup.raw))

    @cached_property
    def splits(self) -> list[dict[str, list[str]]]:
        """Training and validation cases of each fold; empty where there is no such file.

        Raises:
            UserError: It cannot be read, or lacks a fold.
        """
        path = self.setup.preprocessed / "splits_final.json"
        if not path.is_file():
            return []
        splits, cases = read_splits(path), self.setup.dataset.training_cases(self.setup.raw)
        if max(self.fold_numbers, default=0) >= len(splits):
            raise UserError(f"{path} has the folds 0 to {len(splits) - 1}: pass some of them with -f")
        for fold in self.fold_numbers:
            check_fold(path, fold, cases)
        return splits

    @property
    def prepared(self) -> bool:
        """Whether every training can start."""
        return self.preprocessed and (not self.fold_numbers or bool(self.splits))

    @cached_property
    def scored_cases(self) -> FoundCases:
        """The cases with a reference, of which each job predicts all or some."""
        setup = self.setup
        with_reference = setup.dataset.segmentations(setup.references)
        return _part_of(setup.dataset.find_cases(setup.images), with_reference)

    @property
    def left_out(self) -> list[str]:
        """Say which images have no reference and which references no images, a line for each kind."""
        setup, found = self.setup, self.setup.dataset.find_cases(self.setup.images)
        images, references = {*found.files, *found.problems}, set(setup.dataset.segmentations(setup.references))
        kinds = (
            (images - references, f"{setup.images} without a reference in {setup.references}"),
            (references - images, f"{setup.references} without an image in {setup.images}"),
        )
        return [f"not scored, {kind}: {listed(sorted(cases))}" for cases, kind in kinds if cases]

    def predictions_of_others(self, arm: str) -> set[str]:
        """Name cases of which an arm has predictions though none of its jobs predicts them."""
        setup = self.setup
        parts = [Job(arm, ENSEMBLE)] if setup.ensemble else [Job(arm, fold) for fold in setup.folds]
        known = {case for job in parts for case in self.files_to_predict(job)}
        folders = [path for path in (setup.out / arm / "predictions").glob("*") if path.is_dir()]
        return {case for folder in folders for case in setup.dataset.segmentations(folder)} - known

    def files_to_predict(self, job: Job) -> dict[str, list[str]]:
        """Return the image files of each case that a job predicts.

        Raises:
            UserError: A case cannot be used, or there is none.
        """
        setup, (files, problems) = self.setup, self.scored_cases
        if setup.cases == "folds":
            files, problems = _part_of(self.scored_cases, self.splits[int(job.part)]["val"])
        if problems:
            first, *others = problems.values()
            raise UserError(f"{first} ({len(others)} more like it)" if others else first)
        if not files:
            raise UserError(f"no case of {setup.images} has a reference in {setup.references}: names must agree")
        return files

    def trained(self, job: Job) -> bool:
        """Tell whether the final checkpoint of every fold that a job needs is there as a whole."""
        model = self.setup.model(job.arm)
        return all(is_whole(model.checkpoint(fold)) for fold in job.folds(self.setup))

    def predicted(self, job: Job) -> bool:
        """Tell whether the models that are there now have predicted a job's cases as they are, and the files are whole.

        Raises:
            UserError: Somebody has changed a file.
        """
        note = read_json_or(prediction_note(self.setup, job), {})
        images = self.files_to_predict(job)
        if not note.get("complete") or note.get("cases") != sorted(images) or changed_cases(note, images):
            return False
        folder = self.setup.out / job.arm / "predictions"
        ending = self.setup.dataset.file_ending
        whole = (is_written(str(folder / file).removesuffix(ending), [ending]) for file in note.get("files", ()))
        return is_made_by(note, maker_of(self.setup, job)) and all(whole)

    def done(self, job: Job) -> bool:
        """Tell whether a job has left everything it should."""
        if job.arm == COST:
            content = read_json_or(measurement_file(self.setup, job), {})
            return set(self.setup.arms) <= set(content.get("seconds", ())) if job.part == STEPS else bool(content)
        return self.trained(job) and (not job.predicts(self.setup) or self.predicted(job))


def maker_of(setup: Setup, job: Job) -> dict[str, Any]:
    """Say what decides about a prediction: SHA-256 of the checkpoints, and mirroring."""
    return {"checkpoints": setup.model(job.arm).digests(job.folds(setup)), "mirroring": setup.mirroring}


def is_made_by(note: dict[str, Any], maker: dict[str, Any]) -> bool:
    """Tell whether predictions are those that a model would make."""
    return all(note.get(key) == value for key, value in maker.items())


def image_states(files: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[Any]]]:
    """Return size, time of the last change (ns) and SHA-256 of each image, by case and name of the file."""
    return {case: {Path(file).name: _image_state(Path(file)) for file in of_case} for case, of_case in files.items()}


def _image_state(path: Path) -> list[Any]:
    with contextlib.suppress(OSError):
        return [*(file_state(path) or ()), sha256_of(path)]
    return []  # who reads the image will say why


def changed_cases(note: dict[str, Any], files: Mapping[str, Sequence[str]]) -> list[str]:
    """Name cases of other images than those that were predicted; none where an earlier version did not note any."""
    if "images" not in note:
        return []
    return [case for case, of_case in files.items() if not _are_as_noted(note["images"].get(case, {}), of_case)]


def _are_as_noted(noted: dict[str, list[Any]], files: Sequence[str]) -> bool:
    """Compare the images of a case with what was noted of them; copies of other times are the same."""
    paths = {Path(file).name: Path(file) for file in files}
    return paths.keys() == noted.keys() and all(
        file_state(path) == noted[name][:2] or _image_state(path)[2:] == noted[name][2:] for name, path in paths.items()
    )


def prediction_note(setup: Setup, job: Job) -> Path:
    """Return the file that says which cases are predicted, and by which model."""
    return setup.out / job.arm / f"predicted_{job.label}.json"


def measurement_file(setup: Setup, job: Job) -> Path:
    """Return the file that a measurement writes."""
    return setup.out / "step_seconds.json" if job.part == STEPS else setup.out / job.part / "measured.json"


def log_file(setup: Setup, name: str) -> Path:
    """Return the file that collects what a job prints."""
    arm, _, part = name.partition("/")
    if arm in (PREPARE, COST):
        return setup.out / f"{'_'.join(filter(None, (arm, part)))}.txt"
    return setup.out / arm / f"training_{Job(arm, part).label}.txt"


def job_command(setup: Setup, name: str) -> list[str]:
    """Return the command that does one job in this Python."""
    return [sys.executable, "-m", "nnunetv2_d2net.cli", *setup.command_here[1:], "--job", name]


def job_list(setup: Setup, *, cost: bool = True) -> str:
    """Return what a cluster has to run: preparation, independent commands, those that follow one, what gathers them.

    Args:
        setup: The benchmark.
        cost: Let the last one measure what the arms cost.
    """
    words, progress = setup.command_here, Progress(setup)
    todo = [job.name for job in jobs_by_phase(setup)[TRAIN] if not progress.prepared or not progress.done(job)]
    lines = [] if progress.prepared else ["# first:", shlex.join([*words, "--job", PREPARE])]
    lines += ["# in any order, or at the same time:"] if todo else ["# every training is done"]
    waits = ""
    for name in todo:
        first = first_of(setup, name)
        lines += [f"# once {first} is done:"] if first in todo and first != waits else []
        lines.append(shlex.join([*words, "--job", name]))
        waits = first
    return "\n".join([*lines, "# at last:", shlex.join([*words, *([] if cost else ["--no_cost"])])]) + "\n"


def _part_of(found: FoundCases, cases: Collection[str]) -> FoundCases:
    files = {case: files for case, files in found.files.items() if case in cases}
    return FoundCases(files, {case: problem for case, problem in found.problems.items() if case in cases})
