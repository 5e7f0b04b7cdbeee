"""The paper's tables, measured: their arms are a benchmark's, and its scores are laid out as the paper does."""

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.files import write_text
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.plugin.training.paper import ROWS, Row
from nnunetv2_d2net.study.benchmark.jobs import Progress
from nnunetv2_d2net.study.benchmark.run import run_benchmark
from nnunetv2_d2net.study.benchmark.setup import Setup
from nnunetv2_d2net.study.paper_tables import NOTE, arm_of, measured_rows
from nnunetv2_d2net.study.report.results import CASES
from nnunetv2_d2net.study.scores.evaluate import read_scores


def run_study(setup: Setup, rows: Sequence[Row], n_epochs: int, *, n_jobs: int = 1, progress: bool = False) -> str:
    """Train, predict and score what is not, and write the tables of the paper that these rows belong to.

    Args:
        setup: The benchmark of the rows' trainers; another one of the same folder adds to the tables.
        rows: Of the paper's tables.
        n_epochs: Passes of every training.
        n_jobs: How many trainings at a time.
        progress: Show bars.

    Returns:
        The tables, as Markdown.

    Raises:
        UserError: Jobs have failed, after all others have ended; or the folder is of another benchmark, or another
            process writes it.
    """
    run_benchmark(setup, n_jobs=n_jobs, cost=False, progress=progress)
    tables = dict.fromkeys(row.table for row in rows)
    texts = {table: _table(setup, [row for row in ROWS if row.table == table], n_epochs) for table in tables}
    for table, text in texts.items():
        write_text(table_file(setup.out, table), text)
    return "\n".join(texts.values())


def table_file(folder: Path, table: str) -> Path:
    """Return the file of a table.

    Example:
        >>> table_file(Path("out"), "Table II").name, table_file(Path("out"), "Fig. 8").name
        ('Table_II.md', 'Fig_8.md')
    """
    return folder / f"{table.replace('. ', '_').replace(' ', '_')}.md"


def _table(setup: Setup, rows: Sequence[Row], n_epochs: int) -> str:
    files = {row.trainer: setup.out / arm_of(row, n_epochs) / "metrics.csv" for row in rows}
    scores = {trainer: read_scores(path) for trainer, path in files.items() if path.is_file()}
    cases = CASES[setup.cases]
    if setup.cases == "folds":
        cases += f" ({', '.join(setup.folds)}, of {len(Progress(setup).splits)})"
    passes = "1 pass" if n_epochs == 1 else f"{n_epochs} passes"
    measured = f"{setup.raw.name}, {cases}; {setup.plans}, {setup.configuration}; {passes} over the training cases"
    table = markdown_table(measured_rows(rows, scores, setup.dataset.channels))
    notes = f"Measured: Dice in percent, mean of all subsets, {measured}.\n\n(BraTS 2018): {NOTE}.\n"
    return f"# {rows[0].table}\n\n{table}\n{notes}"
