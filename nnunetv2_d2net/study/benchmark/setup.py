"""What a benchmark compares, on which cases, and where everything lies."""

import contextlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True)
class Setup:
    """One benchmark.

    Attributes:
        dataset: Name of the data set's folder, ``DatasetXXX_NAME``.
        configuration: Of the plans.
        plans: Name of the plans that all arms share.
        arms: Names of the trainers, in the order of the tables.
        folds: ``all`` or numbers.
        cases: ``test`` for imagesTs, ``folds`` for the validation cases of every fold.
        raw: The data set's folder below nnUNet_raw.
        preprocessed: Below nnUNet_preprocessed.
        results: Below nnUNet_results; may not exist yet.
        out: Folder of the benchmark.
        device: ``cpu`` or ``cuda``.
        mirroring: Whether prediction averages over mirrored images.
        processes: For preprocessing and evaluation.
    """

    dataset: str
    configuration: str
    plans: str
    arms: tuple[str, ...]
    folds: tuple[str, ...]
    cases: str
    raw: Path
    preprocessed: Path
    results: Path
    out: Path
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
    def dataset_json(self) -> dict[str, Any]:
        """Content of the data set's dataset.json."""
        return read_json(self.raw / "dataset.json")

    @property
    def ensemble(self) -> bool:
        """Whether the models of several folds predict the test cases together."""
        return self.cases == "test" and len(self.folds) > 1

    def model(self, arm: str) -> Path:
        """Return nnU-Net's folder of an arm's model."""
        return self.results / f"{arm}__{self.plans}__{self.configuration}"

    def checkpoint(self, arm: str, fold: str) -> Path:
        """Return the file that a finished training leaves."""
        return self.model(arm) / f"fold_{fold}" / FINAL

    @property
    def command(self) -> list[str]:
        """The command that describes this benchmark on any machine."""
        words = ["d2net", "benchmark", self.dataset, self.configuration, "-p", self.plans]
        words += ["--arms", *self.arms, "-f", *self.folds, "--cases", self.cases]
        return words if self.mirroring else [*words, "--disable_tta"]

    @property
    def command_here(self) -> list[str]:
        """The command that goes on with this benchmark from any folder of this machine."""
        return [*self.command, "-o", str(self.out), "-device", self.device, "-np", str(self.processes)]


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever it holds
    """Read a JSON file.

    Raises:
        UserError: It cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove or replace it") from error


def read_json_or(path: Path, default: Any) -> Any:  # noqa: ANN401
    """Read a JSON file, or return the default where there is none or it was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401
    """Write a JSON file whole or not at all; one that already says the same is left as it is.

    Raises:
        UserError: It cannot be written.
    """
    if path.is_file() and read_json_or(path, None) == content:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} cannot be written ({error.strerror}): free space or pass another -o") from error


def check_same_benchmark(setup: Setup) -> None:
    """Refuse a folder that holds another benchmark; other arms may be added.

    Raises:
        UserError: It does.
    """
    path = setup.out / "setup.json"
    before = read_json_or(path, {})
    if not before:
        return
    for key, value in comparable(setup).items():
        if key in before and before[key] != value:
            raise UserError(
                f"{path} is of another benchmark ({key} {_short(before[key])}, not {_short(value)}): "
                "pass another -o, or remove the folder"
            )


def comparable(setup: Setup) -> dict[str, Any]:
    """Return what must not change between the runs of one benchmark, as setup.json holds it."""
    return {
        "dataset": setup.dataset,
        "configuration": setup.configuration,
        "plans": setup.plans,
        "folds": list(setup.folds),
        "cases": setup.cases,
        "mirroring": setup.mirroring,
    }


def versions() -> dict[str, str | None]:
    """Return the versions that results depend on."""
    packages = ("nnunetv2", "torch", "numpy", "scipy", "SimpleITK")
    return {
        "nnunetv2_d2net": __version__,
        **{name: _version(name) for name in packages},
        "python": platform.python_version(),
    }


def machine(device: str) -> dict[str, Any]:
    """Describe this machine: processor, cores, GPU, memory in GiB."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": _processor(), "cores": os.cpu_count(), "gpu": gpu, "memory_GiB": round(memory, 1)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _short(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
