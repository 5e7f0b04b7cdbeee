"""The whole benchmark: what is missing is done, what is there stays."""

import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import modality_names
from nnunetv2_d2net.study.benchmark import jobs
from nnunetv2_d2net.study.benchmark.arms import describe_arms, differences
from nnunetv2_d2net.study.benchmark.children import run_children
from nnunetv2_d2net.study.benchmark.cost import cost_of
from nnunetv2_d2net.study.benchmark.gather import gather
from nnunetv2_d2net.study.benchmark.setup import (
    Setup,
    check_same_benchmark,
    comparable,
    machine,
    read_json_or,
    versions,
    write_json,
)
from nnunetv2_d2net.study.scores.subset_table import regions_of


def run_benchmark(setup: Setup, *, n_jobs: int = 1, cost: bool = True, report: bool = True) -> bool:
    """Prepare, train, predict, measure, score and report, as far as it is not done.

    Args:
        setup: The benchmark.
        n_jobs: How many trainings at a time.
        cost: Measure steps, memory and operations.
        report: Write report.html.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: Jobs have failed, after all others have ended; or the folder is of another benchmark.
        KeyboardInterrupt: It was stopped; calling it again goes on.
    """
    check_same_benchmark(setup)
    setup.out.mkdir(parents=True, exist_ok=True)
    if not jobs.is_ready(setup):
        _run(setup, [jobs.PREPARE], 1, "plan and preprocess")
    if not jobs.is_ready(setup):
        raise UserError(f"the data are not prepared: see {jobs.log_file(setup, jobs.PREPARE)}")
    arms = _write_setup(setup)
    for line in differences(arms):
        sys.stderr.write(f"d2net: the arms are not trained alike: {line}\n")
    worked = _run_jobs(setup, jobs.training_jobs(setup), n_jobs, "train and predict")
    worked |= _run_jobs(setup, jobs.ensemble_jobs(setup), 1, "predict")
    if cost:
        worked |= _run_jobs(setup, jobs.cost_jobs(setup), 1, "measure costs")
    _write_setup(setup)

    for arm in setup.arms:
        write_json(setup.out / arm / "cost.json", cost_of(setup, arm))
    return gather(setup, report=report) or worked


def describe(setup: Setup, arms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of setup.json."""
    description = setup.dataset_json
    before = read_json_or(setup.out / "setup.json", {})
    return {
        **comparable(setup),
        "arms": list(arms),
        "modalities": modality_names(description),
        "regions": {name: list(values) for name, values in regions_of(description).items()},
        "images": str(setup.images),
        "references": str(setup.references),
        "file_ending": description["file_ending"],
        "command": shlex.join(setup.command),
        "versions": versions(),
        "machine": before.get("machine") or machine(setup.device),
        "started": before.get("started") or datetime.now().isoformat(timespec="seconds"),
        "differences": differences(arms),
    }


def _write_setup(setup: Setup) -> list[dict[str, Any]]:
    arms = describe_arms(setup)
    write_json(setup.out / "setup.json", describe(setup, arms))
    return arms


def _run_jobs(setup: Setup, listed: Sequence[jobs.Job], n_jobs: int, title: str) -> bool:
    return _run(setup, [job.name for job in listed if not jobs.is_done(setup, job)], n_jobs, title)


def _run(setup: Setup, names: Sequence[str], n_jobs: int, title: str) -> bool:
    failures = run_children(setup, names, n_jobs, title) if names else []
    if failures:
        first = failures[0]
        others = f", and {', '.join(failure.name for failure in failures[1:])}" if len(failures) > 1 else ""
        raise UserError(
            f"{len(failures)} of {len(names)} jobs failed: {first.name} ({first.reason}; log: {first.log}){others}: "
            "mend it and run the same command to go on"
        )
    return bool(names)
