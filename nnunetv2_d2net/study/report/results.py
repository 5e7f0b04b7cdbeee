"""What a benchmark has left in its folder, read once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, read_json_or, sha256_of, write_json
from nnunetv2_d2net.plugin.start import COMPANION, STUDENT, is_companion
from nnunetv2_d2net.study.scores.comparison import Comparison, dice_tables, read_comparison, shared_cases
from nnunetv2_d2net.study.scores.evaluate import read_scores
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import MEAN_REGION, METRICS, Summaries, in_order, summarize

CASES = {"test": "test cases", "folds": "validation cases of the folds"}
"""What the two kinds of cases are called."""

CHOICE = "choice_fold_"
"""What the files begin with, in an arm's folder, that say which network of a companion predicts with which subset."""

GATHERED = "gathered.json"
"""File that a benchmark has as long as its scores, comparison and page are of the same predictions; says which."""

SCORES, COMPARISON = "metrics.csv", "comparison.csv"
"""Tables of each arm, and of all arms, that pages are made from."""

BY_WEIGHT = "over subsets by weight"
"""What setup.json says of means; those of earlier versions counted each subset once."""

_OURS = "D2NetTrainer"
_EPOCHS = re.compile(r"_\d+epochs?$")
_AGAIN = "run d2net benchmark again"
_FILES = "files"
_NEEDED = {"arms": list, "modalities": list, "regions": dict, "images": str, "references": str, "file_ending": str}


@dataclass(frozen=True)
class Benchmark:
    """All that a report tells, but for the pictures.

    Attributes:
        folder: Of the benchmark.
        setup: Content of setup.json.
        scores: Of each arm, in the order of the tables.
        comparisons: Rows of comparison.csv.
        costs: Content of each arm's cost.json, empty where there is none.
        checkpoints: SHA-256 of those that predicted, by arm.
        choices: What the folds of each companion have chosen, see :mod:`.choices`; nothing for other arms.
    """

    folder: Path
    setup: Mapping[str, Any]
    scores: dict[str, list[CaseScore]]
    comparisons: list[Comparison]
    costs: dict[str, dict[str, Any]]
    checkpoints: dict[str, set[str]]
    choices: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, as far as setup.json knows it."""
        regions = {name: tuple(values) for name, values in self.setup["regions"].items()}
        channels = tuple(self.setup["modalities"])
        return Dataset(
            channels, tuple(range(len(channels))), regions, None, self.setup["file_ending"], {}, "setup.json"
        )

    @cached_property
    def summaries(self) -> dict[str, dict[str, Summaries]]:
        """Of each metric and arm: means by region and subset."""
        settings = self.dataset.channels, self.weights
        return {m: {arm: summarize(rows, m, *settings) for arm, rows in self.scores.items()} for m in METRICS}

    @property
    def weights(self) -> Mapping[str, float]:
        """How often each subset occurs, which is what it counts in means over them; empty where all count alike."""
        return self.setup.get("subsets", {})

    @property
    def arms(self) -> list[str]:
        """Names, in the order of the tables."""
        return list(self.scores)

    @cached_property
    def subsets(self) -> list[str]:
        """Subsets that any arm was scored with, in the order of the tables; those not made of modalities come last."""
        return in_order((score.subset for scores in self.scores.values() for score in scores), self.dataset.channels)

    @cached_property
    def cases(self) -> set[str]:
        """Names of the cases that were scored."""
        return {score.case for scores in self.scores.values() for score in scores}

    @property
    def overall_region(self) -> str:
        """The mean over regions, or the only region."""
        names = list(next(iter(self.summaries["dice"].values())))
        return MEAN_REGION if MEAN_REGION in names else names[0]

    @property
    def focus(self) -> str:
        """The arm that the others are rivals of: a companion, the default one first; D2NetTrainer; any."""
        ours = [arm for arm in self.arms if arm.startswith(_OURS)]
        names = (STUDENT + COMPANION, _OURS + COMPANION, _OURS)
        default, of_ours, itself = ([arm for arm in self.arms if trainer_of(arm) == name] for name in names)
        companions = [arm for arm in self.arms if is_companion(arm)]
        return [*default, *of_ours, *companions, *itself, *ours[::-1], *self.arms[::-1]][0]

    @cached_property
    def tables(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Dice of each arm, by region: a row per case, a column per subset."""
        return {arm: dice_tables(rows) for arm, rows in self.scores.items()}

    def shared_dice(self, subsets: Sequence[str], region: str) -> dict[str, float]:
        """Average Dice over subsets and over the cases that all arms with these subsets share; empty without any."""
        arms, shared = self._shared(subsets, region)
        return dict(zip(arms, shared.mean(axis=1).tolist(), strict=True)) if shared.size else {}

    def n_shared(self, subsets: Sequence[str], region: str) -> int:
        """Count the cases that :meth:`shared_dice` averages over."""
        shared = self._shared(subsets, region)[1]
        return shared.shape[1] if shared.size else 0

    def _shared(self, subsets: Sequence[str], region: str) -> tuple[list[str], NDArray[np.floating]]:
        parts = {arm: table[region] for arm, table in self.tables.items() if set(subsets) <= set(table[region])}
        if not subsets or not parts:
            return [], np.empty((0, 0))
        return list(parts), shared_cases(list(parts.values()), subsets, self.weights)[0]


def read_benchmark(folder: Path, *, finished: bool = True) -> Benchmark:
    """Read a benchmark that is complete.

    Args:
        folder: Holds setup.json, comparison.csv, and metrics.csv for each arm.
        finished: False for who is about to finish it.

    Raises:
        UserError: It is no such folder, a file is missing or damaged, or files may be of different runs.
    """
    path = folder / "setup.json"
    if not path.is_file():
        raise UserError(f"{folder} is no benchmark, it lacks setup.json: name the folder that d2net benchmark wrote")
    setup = read_json(path, _AGAIN, _NEEDED)
    if empty := [key for key in _NEEDED if not setup[key]]:
        raise UserError(f"{path} lacks {', '.join(empty)}: {_AGAIN}")
    if finished and not (folder / GATHERED).is_file():
        raise UserError(f"{folder} is not finished: some of its scores may be older than others: {_AGAIN}")
    changed = [path for path in changed_files(folder) if path.is_file() and path.name in (SCORES, COMPARISON)]
    if finished and changed:
        raise UserError(f"{changed[0]} was changed or cut short since: {_AGAIN}")
    if len(set(setup.get("subsets", {}).values())) > 1 and setup.get("means") != BY_WEIGHT:
        raise UserError(f"{folder}: an earlier version took means that count each subset once, not by weight: {_AGAIN}")
    arms = [str(arm["name"]) for arm in setup["arms"]]
    return Benchmark(
        folder,
        setup,
        {arm: _read_scores(folder / arm / SCORES) for arm in arms},
        read_comparison(folder / COMPARISON),
        {arm: read_json_or(folder / arm / "cost.json", {}) for arm in arms},
        {arm: _read_checkpoints(folder / arm) for arm in arms},
        {arm: _read_choices(folder / arm) for arm in arms},
    )


def note_files(folder: Path, files: Sequence[Path], made_from: Mapping[str, Any]) -> None:
    """Write what the files of a benchmark were made from, and their digests: it is finished."""
    digests = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_json(folder / GATHERED, {**made_from, _FILES: digests})


def changed_files(folder: Path) -> list[Path]:
    """Return the files that are not what they were when the benchmark was finished, or not there any more.

    Returns:
        None of them where an earlier version finished it, which did not note what they held.
    """
    noted = read_json_or(folder / GATHERED, {}).get(_FILES, {}).items()
    paths = [(folder / name, digest) for name, digest in noted]
    return [path for path, digest in paths if not (path.is_file() and sha256_of(path) == digest)]


def trainer_of(arm: str) -> str:
    """Return an arm's name without the number of epochs that nnU-Net's trainers can carry in theirs.

    Example:
        >>> trainer_of("D2NetTrainer_10epochs"), trainer_of("D2NetTrainerNoKD")
        ('D2NetTrainer', 'D2NetTrainerNoKD')
    """
    return _EPOCHS.sub("", arm)


def epochs_of(arm: Mapping[str, Any]) -> int:
    """Count the epochs of an arm of setup.json, with those of the stock model that it starts from.

    Example:
        >>> epochs_of({"epochs": 50, "start": {"from": "nnUNetTrainer_50epochs", "epochs": 50}})
        100
    """
    return (arm.get("epochs") or 0) + (arm.get("start", {}).get("epochs") or 0)


def mean_name(by_subset: Mapping[str, Any]) -> str:
    """Return what the mean over all subsets is called; with one subset it is that one."""
    return [*by_subset][-1]


def _read_scores(path: Path) -> list[CaseScore]:
    scores = read_scores(path) if path.is_file() else []
    if not scores:
        raise UserError(f"{path} holds no score, the benchmark is not finished: {_AGAIN}")
    return scores


def _read_choices(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path, _AGAIN, {"subsets": dict}) for path in sorted(folder.glob(f"{CHOICE}*.json"))]


def _read_checkpoints(folder: Path) -> set[str]:
    notes = [read_json_or(path, {}) for path in folder.glob("predicted_*.json")]
    return {digest for note in notes for digest in note.get("checkpoints", {}).values()}
