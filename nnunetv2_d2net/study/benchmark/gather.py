"""From predictions to scores, tables, comparison and report, as far as anything has changed."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import modality_names
from nnunetv2_d2net.plugin.prediction.used import describe_model, write_expected_dice
from nnunetv2_d2net.study.benchmark.jobs import ENSEMBLE, Job, prediction_note
from nnunetv2_d2net.study.benchmark.setup import FINAL, Setup, read_json_or, write_json
from nnunetv2_d2net.study.scores.comparison import compare_all, write_comparison
from nnunetv2_d2net.study.scores.evaluate import evaluate_folder
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.subset_table import markdown_table, mean_by_subset
from nnunetv2_d2net.study.scores.tables import METRICS, arms_table, write_tables

_COSTS = {
    "training_seconds": "training (s)",
    "step_seconds": "step (s)",
    "peak_memory_GiB": "peak memory (GiB)",
    "parameters": "parameters",
    "inference_parameters": "parameters in prediction",
    "inference_gflops": "GFLOPs per patch in prediction",
}
_ARM_FILES = (
    "metrics.csv",
    "tables.json",
    *(f"table_{metric}.{kind}" for metric in METRICS for kind in ("csv", "md", "tex")),
)
_REPORT = ("report.html", "report.md")
_FILES = ("comparison.csv", "benchmark.md", *_REPORT)


def gather(setup: Setup, *, report: bool = True) -> bool:
    """Score, tabulate, compare and report, unless all of it was made from what is there now.

    Args:
        setup: The benchmark; every job is done, and setup.json and each cost.json are written.
        report: Write report.html and report.md, too.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: A case could not be scored, a file cannot be written, or the report failed.
    """
    made_from, note = _inputs(setup), setup.out / "gathered.json"
    files = [setup.out / name for name in _FILES if report or name not in _REPORT]
    files += [setup.out / arm / name for arm in setup.arms for name in _ARM_FILES]
    if read_json_or(note, None) == made_from and all(path.is_file() for path in files):
        return False
    note.unlink(missing_ok=True)
    modalities = modality_names(setup.dataset_json)
    scores = {arm: _evaluate(setup, arm, modalities) for arm in setup.arms}
    write_comparison(compare_all(scores, modalities), setup.out / "comparison.csv")
    _write_text(setup.out / "benchmark.md", benchmark_page(setup, scores, modalities))
    if report:
        _report(setup)
    write_json(note, made_from)
    return True


def benchmark_page(setup: Setup, scores: Mapping[str, Sequence[CaseScore]], modalities: Sequence[str]) -> str:
    """Lay the arms side by side: setup, a table for each metric, costs."""
    description = read_json_or(setup.out / "setup.json", {})
    cases = len({score.case for rows in scores.values() for score in rows})
    which = "test cases" if setup.cases == "test" else "validation cases of the folds"
    lines = [
        f"# {setup.dataset}, {setup.configuration}, {setup.plans}",
        "",
        f"{cases} {which}; every arm trained on fold {', '.join(setup.folds)}.",
        *(f"Arms are not trained alike: {line}." for line in description.get("differences", ())),
    ]
    tables = [
        f"## {metric.title}\n\n{arms_table(scores, name, modalities).markdown()}" for name, metric in METRICS.items()
    ]
    return "\n\n".join(["\n".join(lines), *tables, f"## Costs\n\n{_cost_table(setup)}"])


def _evaluate(setup: Setup, arm: str, modalities: Sequence[str]) -> list[CaseScore]:
    """The one place that calls the evaluation."""
    folder = setup.out / arm
    evaluation = evaluate_folder(folder / "predictions", setup.references, folder, processes=setup.processes)
    if evaluation.failures:
        n = len(evaluation.failures)
        raise UserError(f"{n} of {arm}'s segmentations could not be scored: mend what is said above and repeat")
    write_tables(evaluation.scores, folder, modalities)
    which = "test cases" if setup.cases == "test" else "validation cases of the folds"
    dice = mean_by_subset(evaluation.scores)  # pyright: ignore[reportArgumentType] - has all that this needs
    checkpoints = describe_model(setup.model(arm), setup.folds, FINAL).checkpoints
    write_expected_dice(setup.model(arm), dice, f"{which} of {setup.dataset}", checkpoints)
    return evaluation.scores


def _report(setup: Setup) -> None:
    command = [sys.executable, "-m", "nnunetv2_d2net.cli.main", "report", str(setup.out)]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise UserError(f"the report failed, scores and tables are in {setup.out}: run d2net report {setup.out}")


def _inputs(setup: Setup) -> dict[str, Any]:
    """Fingerprint what the results depend on."""
    references = sorted(setup.references.glob(f"*{setup.dataset_json['file_ending']}"))
    description = read_json_or(setup.out / "setup.json", {})
    content = {
        "version": __version__,
        "arms": {arm: _arm_inputs(setup, arm) for arm in setup.arms},
        "references": [[path.name, path.stat().st_mtime_ns] for path in references],
        "setup": {key: value for key, value in description.items() if key not in ("started", "machine")},
    }
    return {"inputs": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def _arm_inputs(setup: Setup, arm: str) -> list[Any]:
    jobs = [Job(arm, ENSEMBLE)] if setup.ensemble else [Job(arm, fold) for fold in setup.folds]
    return [
        read_json_or(setup.out / arm / "cost.json", None),
        *(read_json_or(prediction_note(setup, j), None) for j in jobs),
    ]


def _cost_table(setup: Setup) -> str:
    rows = [["arm", *_COSTS.values()]]
    for arm in setup.arms:
        cost = read_json_or(setup.out / arm / "cost.json", {})
        rows.append([arm, *("-" if cost.get(key) is None else f"{cost[key]:,}" for key in _COSTS)])
    return markdown_table(rows)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
