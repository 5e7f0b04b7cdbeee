"""What a benchmark compares, on which cases, and where everything lies."""

import os
import platform
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json_or
from nnunetv2_d2net.base.text import version_of
from nnunetv2_d2net.study.pipeline import Model

_PACKAGES = ("nnunetv2", "torch", "numpy", "scipy", "SimpleITK")


@dataclass(frozen=True)
class Setup:
    """One benchmark.

    Attributes:
        dataset: The data set.
        raw: Its folder below nnUNet_raw.
        preprocessed: Below nnUNet_preprocessed.
        results: Below nnUNet_results; may not exist yet.
        out: Folder of the benchmark.
        configuration: Of the plans.
        plans: Name of the plans that all arms share.
        arms: Names of the trainers, in the order of the tables.
        folds: ``all`` or numbers.
        cases: ``test`` for imagesTs, ``folds`` for the validation cases of every fold.
        device: ``cpu`` or ``cuda``.
        mirroring: Whether prediction averages over mirrored images.
        processes: For preprocessing and evaluation.
    """

    dataset: Dataset
    raw: Path
    preprocessed: Path
    results: Path
    out: Path
    configuration: str
    plans: str
    arms: tuple[str, ...]
    folds: tuple[str, ...]
    cases: str
    device: str = "cpu"
    mirroring: bool = True
    processes: int = 1

    @property
    def images(self) -> Path:
        """Folder of the images to predict."""
        return self.raw / ("imagesTs" if self.cases == "test" else "imagesTr")

    @property
    def references(self) -> Path:
        """Folder of their reference segmentations."""
        return self.raw / ("labelsTs" if self.cases == "test" else "labelsTr")

    @property
    def ensemble(self) -> bool:
        """Whether the models of several folds predict the test cases together."""
        return self.cases == "test" and len(self.folds) > 1

    @property
    def note(self) -> Path:
        """The file that says what the benchmark is: setup.json."""
        return self.out / "setup.json"

    def model(self, arm: str) -> Model:
        """Return the model of an arm."""
        return Model(self.results, arm, self.plans, self.configuration)

    @property
    def command(self) -> list[str]:
        """The command that describes this benchmark on any machine."""
        words = ["d2net", "benchmark", self.raw.name, self.configuration, "-p", self.plans]
        words += ["--arms", *self.arms, "-f", *self.folds, "--cases", self.cases]
        return words if self.mirroring else [*words, "--disable_tta"]

    @property
    def command_here(self) -> list[str]:
        """The command that goes on with this benchmark from any folder of this machine."""
        return [*self.command, "-o", str(self.out), "-device", self.device, "-np", str(self.processes)]

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change between the runs of one benchmark, as setup.json holds it."""
        return {
            "dataset": self.raw.name,
            "configuration": self.configuration,
            "plans": self.plans,
            "folds": list(self.folds),
            "cases": self.cases,
            "mirroring": self.mirroring,
        }

    def check_same(self) -> dict[str, Any]:
        """Refuse a folder that holds another benchmark; other arms may be added.

        Returns:
            What setup.json says; empty if there is none.

        Raises:
            UserError: It does.
        """
        before = read_json_or(self.note, {})
        for key, value in self.identity.items():
            if key in before and before[key] != value:
                raise UserError(
                    f"{self.note} is of another benchmark ({key} {_short(before[key])}, not {_short(value)}): "
                    "pass another -o, or remove the folder"
                )
        return before

    def describe(self, arms: Sequence[dict[str, Any]], differences: Sequence[str]) -> dict[str, Any]:
        """Return the content of setup.json.

        Args:
            arms: How each trains.
            differences: In which settings they differ, one line each.
        """
        before = self.check_same()
        return {
            **self.identity,
            "arms": list(arms),
            "modalities": list(self.dataset.channels),
            "regions": {name: list(values) for name, values in self.dataset.regions.items()},
            "images": str(self.images),
            "references": str(self.references),
            "file_ending": self.dataset.file_ending,
            "command": shlex.join(self.command),
            "versions": {
                "nnunetv2_d2net": __version__,
                **{name: version_of(name) for name in _PACKAGES},
                "python": platform.python_version(),
            },
            "machine": before.get("machine") or describe_machine(self.device),
            "started": before.get("started") or datetime.now().isoformat(timespec="seconds"),
            "differences": list(differences),
        }


def choose_cases(raw: Path, wanted: str | None) -> str:
    """Choose between the test cases and the validation cases of every fold: test where there is a test set.

    Raises:
        UserError: The test cases are wanted, and images or references are missing.
    """
    there = [any((raw / name).glob("*")) for name in ("imagesTs", "labelsTs")]
    if wanted == "test" and not all(there):
        raise UserError(f"{raw} lacks images in imagesTs or references in labelsTs: add them, or pass --cases folds")
    return wanted or ("test" if all(there) else "folds")


def choose_folds(wanted: Sequence[str] | None, cases: str) -> tuple[str, ...]:
    """Choose the folds to train: all with a test set, else five.

    Raises:
        UserError: They do not go together, or would have seen what they are to predict.
    """
    folds = tuple(dict.fromkeys(wanted or (["all"] if cases == "test" else ["0", "1", "2", "3", "4"])))
    if "all" in folds and cases == "folds":
        raise UserError("a model of fold all has seen every training case: pass -f 0 1 2 3 4, or --cases test")
    if "all" in folds and len(folds) > 1:
        raise UserError("fold all and numbered folds do not go together: pass -f all, or numbers")
    return folds


def describe_machine(device: str) -> dict[str, Any]:
    """Describe this machine: processor, cores, GPU, memory in GiB."""
    known = Path("/proc/cpuinfo")
    processors = re.findall(r"^model name\s*: *(.*)$", known.read_text() if known.is_file() else "", re.MULTILINE)
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpu = next(iter(processors), platform.processor() or platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "memory_GiB": round(memory, 1)}


def _short(value: Any) -> str:  # noqa: ANN401 - whatever setup.json holds
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
