"""The whole benchmark: what is missing is done, what is there stays; then scores, tables, comparison and report."""

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import file_state, locked_folder, make_folder, read_json_or, write_json
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.plugin.start import is_companion
from nnunetv2_d2net.plugin.training.companion import read_choice
from nnunetv2_d2net.study.benchmark import jobs
from nnunetv2_d2net.study.benchmark.children import run_children
from nnunetv2_d2net.study.benchmark.cost import cost_of
from nnunetv2_d2net.study.benchmark.jobs import Progress
from nnunetv2_d2net.study.benchmark.setup import Setup
from nnunetv2_d2net.study.report import results
from nnunetv2_d2net.study.report.page import write_report
from nnunetv2_d2net.study.report.results import CASES, read_benchmark
from nnunetv2_d2net.study.scores.comparison import Comparison, compare_all, write_comparison
from nnunetv2_d2net.study.scores.evaluate import evaluate_folder, replace_scores
from nnunetv2_d2net.study.scores.measured import keep_scores
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import METRICS, write_tables

_ARM_FILES = (
    results.SCORES,
    "tables.json",
    *(f"table_{metric}.{kind}" for metric in METRICS for kind in ("csv", "md", "tex")),
)
_FILES = (results.COMPARISON, "report.html", "report.md")
_LOG = logging.getLogger("nnunetv2_d2net")


def run_benchmark(setup: Setup, *, n_jobs: int = 1, cost: bool = True, progress: bool = False) -> bool:
    """Prepare, train, predict, measure, score and report, as far as it is not done.

    Args:
        setup: The benchmark.
        n_jobs: How many trainings at a time.
        cost: Measure steps, memory and operations.
        progress: Show bars.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: Jobs have failed, after all others have ended; or the folder is of another benchmark, or of another
            kind, or another process writes it.
        KeyboardInterrupt: It was stopped; calling it again goes on.
    """
    setup.check_same()
    setup.check_trained()
    make_folder(setup.out, "free space, or pass another -o")
    with locked_folder(setup.out):
        return _run_benchmark(setup, n_jobs, cost=cost, progress=progress)


def prepare_benchmark(setup: Setup, *, progress: bool = False) -> None:
    """Plan, preprocess and split what is not, for who has to look at the plans before anything is trained.

    Raises:
        UserError: It has failed, or the folder is of another benchmark, or another process writes it.
    """
    setup.check_same()
    make_folder(setup.out, "free space, or pass another -o")
    with locked_folder(setup.out):
        _prepare(setup, progress=progress)


def _prepare(setup: Setup, *, progress: bool) -> None:
    _refuse_foreign(setup)
    if not setup.note.is_file():
        write_json(setup.note, setup.identity)
    if not Progress(setup).prepared:
        _run(setup, [jobs.PREPARE], 1, "plan and preprocess", progress=progress)
    if not Progress(setup).prepared:
        raise UserError(f"the data are not prepared: see {jobs.log_file(setup, jobs.PREPARE)}")


def _run_benchmark(setup: Setup, n_jobs: int, *, cost: bool, progress: bool) -> bool:
    gone = [arm["name"] for arm in read_json_or(setup.note, {}).get("arms", ()) if arm["name"] not in setup.arms]
    if gone:
        stays = "what is there of them stays, and comes back where all arms are named with --arms"
        _LOG.warning("%s leaves out %s from now on: %s", setup.out / "report.html", listed(gone), stays)
    _prepare(setup, progress=progress)
    description = setup.describe()
    write_json(setup.note, description)
    for line in description["differences"]:
        _LOG.info("the arms are not trained alike: %s", line)
    worked, there = False, Progress(setup)
    for line in there.left_out:
        _LOG.warning(line)
    for phase, planned in jobs.jobs_by_phase(setup).items():
        todo = [job.name for job in planned if (cost or phase != jobs.MEASURE) and not there.done(job)]
        worked |= _run(setup, todo, n_jobs if phase == jobs.TRAIN else 1, phase, progress=progress)
        if todo:
            setup.check_trained()  # what was trained before may have started from what is trained anew
    write_json(setup.note, setup.describe())
    for arm in setup.arms:
        write_json(setup.out / arm / "cost.json", cost_of(setup, arm))
        _keep_choices(setup, arm)
    return _gather(setup, progress=progress) or worked


def _refuse_foreign(setup: Setup) -> None:
    """Refuse a folder with files of these names that no benchmark has written."""
    foreign = [path for name in _FILES if (path := setup.out / name).exists()]
    if foreign and not setup.note.is_file():
        raise UserError(f"{foreign[0]} is no benchmark's, which would write over it: pass another -o, or move it away")


def _keep_choices(setup: Setup, arm: str) -> None:
    """Keep what each fold of a companion has chosen, for the subsets that are compared."""
    compared = {*setup.subsets, setup.dataset.complete}
    for fold in setup.folds if is_companion(arm) else ():
        chosen = read_choice(setup.model(arm).checkpoint(fold), setup.dataset.channels)
        rows = {name: row for name, row in chosen["subsets"].items() if not setup.subsets or name in compared}
        write_json(setup.out / arm / f"{results.CHOICE}{fold}.json", {**chosen, "subsets": rows})


def _gather(setup: Setup, *, progress: bool) -> bool:
    """Score, tabulate, compare and report; tell if any of it was not made from what is there now."""
    made_from, note = _inputs(setup), setup.out / results.GATHERED
    pages = [setup.out / name for name in _FILES if name != results.COMPARISON]  # d2net report may write them anew
    files = [setup.out / arm / name for arm in setup.arms for name in _ARM_FILES]
    files.append(setup.out / results.COMPARISON)
    changed, before = results.changed_files(setup.out), read_json_or(note, {})
    same = all(before.get(key) == value for key, value in made_from.items())
    if same and not changed and all(path.is_file() for path in (*files, *pages)):
        return False
    for path in (path for path in changed if path in files and path.name == results.SCORES):
        replace_scores(path, [])  # none of its rows can be trusted
    note.unlink(missing_ok=True)
    scores = {arm: _evaluate(setup, arm, progress=progress) for arm in setup.arms}
    write_comparison(compare_all(scores, setup.dataset.channels, setup.subsets), setup.out / results.COMPARISON)
    write_report(read_benchmark(setup.out, finished=False), setup.out / "report.html", progress=progress)
    results.note_files(setup.out, files, made_from)
    return True


def _run(setup: Setup, names: Sequence[str], n_jobs: int, title: str, *, progress: bool) -> bool:
    failed = run_children(setup, names, n_jobs, title, progress=progress) if names else []
    if failed:
        first, *others = failed
        more = f", and {', '.join(child.name for child in others)}" if others else ""
        raise UserError(
            f"{len(failed)} of {len(names)} jobs failed: {first.name} ({first.problem}; log: {first.log}){more}: "
            "mend it and run the same command to go on"
        )
    return bool(names)


def _evaluate(setup: Setup, arm: str, *, progress: bool) -> list[CaseScore]:
    folder, model = setup.out / arm, setup.model(arm)
    foreign = sorted(Progress(setup).predictions_of_others(arm))
    if foreign:
        raise UserError(f"{folder / 'predictions'} holds {listed(foreign)}, no case to predict: move these files away")
    found = evaluate_folder(
        folder / "predictions", setup.references, folder, processes=setup.processes, progress=progress
    )
    if found.failures:
        n = len(found.failures)
        raise UserError(f"{n} of {arm}'s segmentations could not be scored: mend what is said above and repeat")
    write_tables(found.scores, folder, setup.dataset.channels, setup.subsets)
    keep_scores(found.scores, model.folder, f"{CASES[setup.cases]} of {setup.raw.name}", model.digests(setup.folds))
    return found.scores


def _inputs(setup: Setup) -> dict[str, Any]:
    """Fingerprint what the results depend on."""
    references = setup.dataset.segmentations(setup.references).values()
    description = read_json_or(setup.note, {})
    content = {
        "version": __version__,
        "comparison": Comparison._fields,
        "arms": {arm: _arm_inputs(setup, arm) for arm in setup.arms},
        "references": [[path.name, file_state(path)] for path in references],
        "setup": {key: value for key, value in description.items() if key not in ("started", "machine")},
    }
    return {"inputs": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def _arm_inputs(setup: Setup, arm: str) -> list[Any]:
    parts = [jobs.ENSEMBLE] if setup.ensemble else setup.folds
    notes = [jobs.prediction_note(setup, jobs.Job(arm, part)) for part in parts]
    notes += [setup.out / arm / f"{results.CHOICE}{fold}.json" for fold in setup.folds]
    return [read_json_or(path, None) for path in (setup.out / arm / "cost.json", *notes)]
