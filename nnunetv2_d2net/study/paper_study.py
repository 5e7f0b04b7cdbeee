"""The paper's tables, measured: their arms are a benchmark's, and its scores are laid out as the paper does."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import write_text
from nnunetv2_d2net.base.text import counted, markdown_table
from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.plugin.training.paper import FIGURE_8, ROWS, Row
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer
from nnunetv2_d2net.study.benchmark.jobs import Progress
from nnunetv2_d2net.study.benchmark.run import prepare_benchmark, run_benchmark
from nnunetv2_d2net.study.benchmark.setup import Setup
from nnunetv2_d2net.study.paper_curves import draw_weights
from nnunetv2_d2net.study.paper_tables import NOTE, arm_of, means_of, measured_rows
from nnunetv2_d2net.study.report.results import CASES
from nnunetv2_d2net.study.scores.evaluate import read_scores

_FIGURE, _LEVELS = "Fig. 8", "Table VI"
_LOG = logging.getLogger("nnunetv2_d2net")


def run_study(setup: Setup, rows: Sequence[Row], n_epochs: int, *, n_jobs: int = 1, progress: bool = False) -> str:
    """Train, predict and score what is not, and write the tables of the paper that these rows belong to.

    Args:
        setup: The benchmark of the rows' trainers; another one of the same folder adds to the tables. Rows that its
            plans allow no network for are left out, and told before anything is trained.
        rows: Of the paper's tables.
        n_epochs: Passes of every training.
        n_jobs: How many trainings at a time.
        progress: Show bars.

    Returns:
        The tables, as Markdown.

    Raises:
        UserError: No row can be built; jobs have failed, after all others have ended; or the folder is of another
            benchmark, or another process writes it.
    """
    prepare_benchmark(setup, progress=progress)
    run_benchmark(buildable(setup, rows, n_epochs), n_jobs=n_jobs, cost=False, progress=progress)
    texts = [_write_table(setup, table, n_epochs) for table in dict.fromkeys(row.table for row in rows)]
    return "\n".join(texts)


def buildable(setup: Setup, rows: Sequence[Row], n_epochs: int) -> Setup:
    """Return the benchmark without the rows that its plans allow no network for, each of which is told.

    Raises:
        UserError: None is left.
    """
    problems = {table: problems_of(setup, rows, table) for table in dict.fromkeys(row.table for row in rows)}
    for table, of_table in problems.items():
        for name, why in of_table.items():
            _LOG.warning("%s, %s, cannot be built and is left out: %s", table, name, why)
    left = [row for row in rows if row.name not in problems[row.table]]
    if not left:
        raise UserError(f"{counted(len(rows), 'row')} asked for, none can be built with {setup.plans}: choose others")
    return replace(setup, arms=tuple(dict.fromkeys(arm_of(row, n_epochs) for row in left)))


def problems_of(setup: Setup, rows: Sequence[Row], table: str) -> dict[str, str]:
    """Say why rows of a table cannot be built with the plans, by their names; nothing where there are no plans yet."""
    file = setup.preprocessed / f"{setup.plans}.json"
    found = {row.name: _problem_of(setup, row, file) for row in rows if row.table == table} if file.is_file() else {}
    return {name: problem for name, problem in found.items() if problem}


def _problem_of(setup: Setup, row: Row, file: Path) -> str:
    """Build a row's network without memory for its weights."""
    plans, trainer = PlansManager(str(file)), cast(type[D2NetTrainer], find_trainer(row.trainer))
    n_heads = plans.get_label_manager(dict(setup.dataset.content)).num_segmentation_heads
    configuration = plans.get_configuration(setup.configuration)
    try:
        with torch.device("meta"):
            network = trainer.build_network_architecture(plans, configuration, len(setup.dataset.channels), n_heads)
    except UserError as error:
        return str(error)
    banks = cast(D2Net, network).feature_banks
    n_levels, n_wanted = len(banks.student) if banks else 0, trainer.network_options.distilled_levels
    if row.table == _LEVELS and n_levels < n_wanted:  # D2Net takes as many as there are
        return f"plans {setup.plans}: the decoder has {counted(n_levels, 'level')} below the finest, not {n_wanted}"
    return ""


def table_file(folder: Path, table: str) -> Path:
    """Return the file of a table.

    Example:
        >>> table_file(Path("out"), "Table II").name, table_file(Path("out"), "Fig. 8").name
        ('Table_II.md', 'Fig_8.md')
    """
    return folder / f"{table.replace('. ', '_').replace(' ', '_')}.md"


def _write_table(setup: Setup, table: str, n_epochs: int) -> str:
    """Write the table, for a figure its curves, too, with every row that has been measured."""
    rows, file = [row for row in ROWS if row.table == table], table_file(setup.out, table)
    files = {row.trainer: setup.out / arm_of(row, n_epochs) / "metrics.csv" for row in rows}
    scores = {trainer: read_scores(path) for trainer, path in files.items() if path.is_file()}
    means = {trainer: means_of(of_trainer, setup.dataset.channels) for trainer, of_trainer in scores.items()}
    text = _text_of(setup, rows, means, n_epochs)
    if table == _FIGURE:
        text += f"\nThe same as curves: {file.with_suffix('.png').name}\n"
        draw_weights(file.with_suffix(".png"), _curves(rows, means))
    write_text(file, text)
    return text


def _text_of(setup: Setup, rows: Sequence[Row], means: Mapping[str, Mapping[str, float]], n_epochs: int) -> str:
    cases = CASES[setup.cases]
    if setup.cases == "folds":
        cases += f" ({', '.join(setup.folds)}, of {len(Progress(setup).splits)})"
    passes = "1 pass" if n_epochs == 1 else f"{n_epochs} passes"
    measured = f"{setup.raw.name}, {cases}; {setup.plans}, {setup.configuration}; {passes} over the training cases"
    problems = problems_of(setup, rows, rows[0].table)
    table = markdown_table(measured_rows(rows, means, problems))
    notes = [f"Measured: Dice in percent, mean of all subsets, {measured}."]
    notes += [f"{name} cannot be built with these plans: {why}." for name, why in problems.items()]
    return f"# {rows[0].table}\n\n{table}\n" + "\n\n".join([*notes, f"(BraTS 2018): {NOTE}."]) + "\n"


def _curves(rows: Sequence[Row], means: Mapping[str, Mapping[str, float]]) -> dict[str, dict[float, float]]:
    """Return the mean Dice by weight, by loss."""
    curves: dict[str, dict[float, float]] = {term: {} for term in FIGURE_8}
    for row in rows:
        if row.trainer in means:
            term, weight = row.name.split()
            curves[term][float(weight)] = list(means[row.trainer].values())[-1]
    return curves
