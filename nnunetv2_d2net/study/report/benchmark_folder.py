"""What a benchmark has left in its folder."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.scores.comparison import Comparison, read_comparison
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.score_file import read_scores
from nnunetv2_d2net.study.scores.tables import MEAN_REGION, METRICS, Summaries, subset_order, summarize

_OURS = "D2NetTrainer"
_EPOCHS = re.compile(r"_\d+epochs?$")
_AGAIN = "run d2net benchmark again"
_NEEDED = ("arms", "modalities", "regions", "images", "references", "file_ending")


class Benchmark(NamedTuple):
    """All that a report tells, but for the pictures.

    Attributes:
        folder: Of the benchmark.
        setup: Content of setup.json.
        arms: Names, in the order of the tables.
        scores: Of each arm.
        summaries: Of each metric and arm: means by region and subset.
        comparisons: Rows of comparison.csv.
        costs: Content of each arm's cost.json, empty where there is none.
    """

    folder: Path
    setup: Mapping[str, Any]
    arms: list[str]
    scores: dict[str, list[CaseScore]]
    summaries: dict[str, dict[str, Summaries]]
    comparisons: list[Comparison]
    costs: dict[str, dict[str, Any]]

    @property
    def modalities(self) -> list[str]:
        """Names, in the order of the channels."""
        return list(self.setup["modalities"])

    @property
    def regions(self) -> dict[str, list[int]]:
        """Label values by region."""
        return {name: list(values) for name, values in self.setup["regions"].items()}

    @property
    def subsets(self) -> list[str]:
        """Subsets that any arm was scored with, in the order of the tables; those not made of modalities come last."""
        there = {score.subset for scores in self.scores.values() for score in scores}
        order = [name for name in subset_order(self.modalities) if name in there]
        return [*order, *sorted(there - set(order))]

    @property
    def complete(self) -> str:
        """Name of the subset of all modalities."""
        return subset_order(self.modalities)[-1]

    @property
    def overall_region(self) -> str:
        """The mean over regions, or the only region."""
        names = list(next(iter(self.summaries["dice"].values())))
        return MEAN_REGION if MEAN_REGION in names else names[0]

    @property
    def focus(self) -> str:
        """The arm that the others are rivals of: D2NetTrainer, a variant of it, or the last one."""
        ours = [arm for arm in self.arms if arm.startswith(_OURS)]
        return next((arm for arm in ours if trainer_of(arm) == _OURS), [*self.arms, *ours][-1])

    @property
    def n_cases(self) -> int:
        """How many cases were scored."""
        return len({score.case for scores in self.scores.values() for score in scores})


def read_benchmark(folder: Path) -> Benchmark:
    """Read a benchmark that is complete.

    Args:
        folder: Holds setup.json, comparison.csv, and metrics.csv for each arm.

    Raises:
        UserError: It is no such folder, or a file is missing or damaged.
    """
    setup = _read_setup(folder)
    arms = [str(arm["name"]) for arm in setup["arms"]]
    scores = {arm: _read_scores(folder / arm / "metrics.csv") for arm in arms}
    return Benchmark(
        folder,
        setup,
        arms,
        scores,
        {m: {arm: summarize(rows, m, setup["modalities"]) for arm, rows in scores.items()} for m in METRICS},
        _read_comparisons(folder / "comparison.csv"),
        {arm: _read_cost(folder / arm / "cost.json") for arm in arms},
    )


def trainer_of(arm: str) -> str:
    """Return an arm's name without the number of epochs that nnU-Net's trainers can carry in theirs.

    Example:
        >>> trainer_of("D2NetTrainer_10epochs"), trainer_of("D2NetTrainerNoKD")
        ('D2NetTrainer', 'D2NetTrainerNoKD')
    """
    return _EPOCHS.sub("", arm)


def mean_name(by_subset: Mapping[str, Any]) -> str:
    """Return what the mean over all subsets is called; with one subset it is that one."""
    return [*by_subset][-1]


def _read_setup(folder: Path) -> dict[str, Any]:
    path = folder / "setup.json"
    if not path.is_file():
        raise UserError(f"{folder} is no benchmark, it lacks setup.json: name the folder that d2net benchmark wrote")
    try:
        setup = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in _NEEDED if not setup.get(key)]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}): {_AGAIN}") from error
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: {_AGAIN}")
    return setup


def _read_scores(path: Path) -> list[CaseScore]:
    if not path.is_file():
        raise UserError(f"{path} does not exist, the benchmark is not finished: {_AGAIN}")
    scores = read_scores(path)
    if not scores:
        raise UserError(f"{path} holds no score: {_AGAIN}")
    return scores


def _read_comparisons(path: Path) -> list[Comparison]:
    try:
        return read_comparison(path)
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path} cannot be read ({error}): {_AGAIN}") from error


def _read_cost(path: Path) -> dict[str, Any]:
    try:
        cost = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cost if isinstance(cost, dict) else {}
