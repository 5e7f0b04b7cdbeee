"""Plans, preprocessed data and splits, as far as they are missing."""

import subprocess
import sys
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.benchmark.arms import trainer_of
from nnunetv2_d2net.study.benchmark.setup import Setup, read_json_or, write_json

_PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}
N_SPLITS = 5


def prepared(setup: Setup) -> bool:
    """Tell whether every training can start.

    Raises:
        UserError: The plans lack the configuration, or the splits lack a fold.
    """
    return _data_ready(setup) and (not _numbered(setup) or _splits_ready(setup))


def prepare(setup: Setup) -> None:
    """Plan, preprocess and split what is not.

    Raises:
        UserError: Plans of another make are not preprocessed, or there are too few cases for the folds.
    """
    if not _data_ready(setup):
        _plan_and_preprocess(setup)
    if _numbered(setup) and not _splits_ready(setup):
        _write_splits(setup)


def validation_cases(setup: Setup, fold: str) -> list[str]:
    """Return the cases that a fold's training does not see."""
    return list(_splits(setup)[int(fold)]["val"])


def training_cases(setup: Setup) -> list[str]:
    """List the data set's training cases."""
    description = setup.dataset_json
    if "dataset" in description:
        return sorted(description["dataset"])
    ending = description["file_ending"]
    paths = (setup.raw / "labelsTr").glob(f"*{ending}")
    return sorted(path.name.removesuffix(ending) for path in paths if not path.name.startswith("."))


def _data_ready(setup: Setup) -> bool:
    plans = read_json_or(setup.preprocessed / f"{setup.plans}.json", None)
    if plans is None:
        return False
    if setup.configuration not in plans["configurations"]:
        raise UserError(
            f"{setup.plans} has no configuration {setup.configuration}: it has {', '.join(plans['configurations'])}"
        )
    folder = setup.preprocessed / _data_identifier(plans["configurations"], setup.configuration)
    # nnU-Net writes a case's properties last
    return all((folder / f"{case}.pkl").is_file() for case in training_cases(setup))


def _data_identifier(configurations: dict, name: str) -> str:
    configuration = configurations[name]
    if "data_identifier" in configuration or "inherits_from" not in configuration:
        return configuration.get("data_identifier", name)
    return _data_identifier(configurations, configuration["inherits_from"])


def _plan_and_preprocess(setup: Setup) -> None:
    started = setup.out / "prepare.json"  # says that an unfinished preparation is ours to repeat
    plans = setup.preprocessed / f"{setup.plans}.json"
    if plans.is_file() and read_json_or(started, None) is None and read_json_or(plans, None) is not None:
        raise UserError(
            f"{plans} is planned but {setup.configuration} is not preprocessed in full: run "
            f"nnUNetv2_preprocess -d {_number(setup)} -plans_name {setup.plans} -c {setup.configuration}"
        )
    write_json(started, {"plans": setup.plans})
    fingerprint = setup.preprocessed / "dataset_fingerprint.json"
    if fingerprint.is_file() and read_json_or(fingerprint, None) is None:
        fingerprint.unlink()  # cut short; nnU-Net would take it as it is
    words = ["plan_and_preprocess", "-d", str(_number(setup)), "-pl", _planner(setup.plans), "-c", setup.configuration]
    words += ["-np", str(setup.processes), "-npfp", str(setup.processes), "--no_pbar"]
    status = subprocess.run([sys.executable, "-m", "nnunetv2_d2net.cli.main", *words], check=False).returncode
    if status or not _data_ready(setup):
        raise UserError(f"d2net {' '.join(words)} failed: its words stand above")


def _planner(plans: str) -> str:
    if plans.startswith("D2Net") and plans.endswith("Plans"):
        return plans.removesuffix("Plans") + "Planner"
    if plans not in _PLANNERS:
        raise UserError(f"{plans} do not exist and no planner is known for them: plan first, or pass -p D2NetPlans")
    return _PLANNERS[plans]


def _number(setup: Setup) -> int:
    return int(setup.dataset.removeprefix("Dataset").partition("_")[0])


def _numbered(setup: Setup) -> list[int]:
    return [int(fold) for fold in setup.folds if fold != "all"]


def _splits_file(setup: Setup) -> Path:
    return setup.preprocessed / "splits_final.json"


def _splits(setup: Setup) -> list[dict[str, list[str]]]:
    return read_json_or(_splits_file(setup), [])


def _splits_ready(setup: Setup) -> bool:
    splits = _splits(setup)
    if splits and max(_numbered(setup)) >= len(splits):
        raise UserError(f"{_splits_file(setup)} has the folds 0 to {len(splits) - 1}: pass some of them with -f")
    return bool(splits)


def _write_splits(setup: Setup) -> None:
    """Split as a training would, once for all jobs: several trainings would write the file at the same time."""
    cases = training_cases(setup)
    if len(cases) < N_SPLITS:
        raise UserError(f"{len(cases)} training cases do not make {N_SPLITS} folds: pass -f all --cases test")
    _splits_file(setup).unlink(missing_ok=True)  # cut short
    with trainer_of(setup, "nnUNetTrainerModalityDropout") as trainer:
        trainer.do_split()
    _splits_ready(setup)
