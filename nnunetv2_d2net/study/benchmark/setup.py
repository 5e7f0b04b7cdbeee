"""What a benchmark compares, on which cases, where everything lies, and whether its arms train alike."""

import contextlib
import difflib
import io
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json_or, sha256_of
from nnunetv2_d2net.base.images import NAN_OPTION
from nnunetv2_d2net.base.text import listed, version_of
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from nnunetv2_d2net.plugin.planning.plans import read_plans
from nnunetv2_d2net.plugin.protocols import SUBSETS, as_words
from nnunetv2_d2net.plugin.registration import TRAINERS_VARIABLE, nnunet_folder
from nnunetv2_d2net.plugin.start import STOCK_TRAINER, is_companion, start_checkpoint
from nnunetv2_d2net.plugin.training import variants
from nnunetv2_d2net.plugin.training.companion import has_stock
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer
from nnunetv2_d2net.plugin.training.same_plans import check_same_plans
from nnunetv2_d2net.plugin.training.splits import perhaps_trained_on, validation_cases
from nnunetv2_d2net.study.benchmark.arms import ARMS, stock_arm
from nnunetv2_d2net.study.pipeline import Model, Trainer, is_whole, passing_trainer
from nnunetv2_d2net.study.report.results import BY_WEIGHT, epochs_of

_COMPARED = {
    "epochs": "epochs",
    "steps_before": "steps before the first epoch",
    "steps_per_epoch": "steps per epoch",
    "batch_size": "batch size",
    "patch_size": "patch",
    "optimizer": "optimizers",
    "p_complete": "shares of samples that stay complete",
}
_PLANS = "plans.json"
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
        seed: Of all trainings; None to begin anywhere.
        processes: For preprocessing and evaluation.
        nan_outside_as_zero: Take NaN outside the field of view of an image to predict as 0.
        start_from: Arm, model's folder or checkpoint that companions start from; empty for the stock arm that fits.
        starts: The same for single companions, by their names.
        subsets: Weight of each subset that trainings draw from and predictions are made with; empty for all subsets.
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
    seed: int | None = None
    processes: int = 1
    nan_outside_as_zero: bool = False
    start_from: str = ""
    starts: Mapping[str, str] = field(default_factory=dict)
    subsets: Mapping[str, float] = field(default_factory=dict)

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

    def start_of(self, arm: str) -> str:
        """Name what an arm starts from, an arm or a path; empty if nothing, or if its trainer looks for it itself."""
        return (self.starts.get(arm) or self.start_from or stock_arm(arm, self.arms)) if is_companion(arm) else ""

    def start_checkpoint(self, arm: str, fold: str) -> Path | None:
        """Return the checkpoint that a fold of an arm starts from, which the benchmark itself may have yet to train.

        Raises:
            UserError: It is nobody's here, and does not exist, or belongs to another fold.
        """
        start, own = self.start_of(arm), self.model(STOCK_TRAINER).checkpoint(fold)
        if not start:  # where its trainer looks by itself
            return own if is_companion(arm) and own.is_file() else None
        return self.model(start).checkpoint(fold) if start in self.arms else start_checkpoint(Path(start), fold)

    @property
    def command(self) -> list[str]:
        """The command that describes this benchmark on any machine."""
        words = ["d2net", "benchmark", "-d", self.raw.name, "-c", self.configuration, "-p", self.plans]
        words += ["--arms", *self.arms, "-f", *self.folds, "--cases", self.cases]
        starts = [*filter(None, [self.start_from]), *(f"{arm}={start}" for arm, start in self.starts.items())]
        words += [word for start in starts for word in ("--start_from", start)]
        words += ["--subsets", *as_words(self.subsets)] if self.subsets else []
        words += [] if self.mirroring else ["--disable_tta"]
        words += [] if self.seed is None else ["--seed", str(self.seed)]
        return [*words, NAN_OPTION] if self.nan_outside_as_zero else words

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
            "seed": self.seed,
            "start_from": self.start_from,
            "starts": dict(self.starts),
            "subsets": dict(self.subsets),
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
            known = before.get(key, type(value)())  # earlier versions knew fewer settings
            if before and known != value:
                raise UserError(
                    f"{self.note} is of another benchmark ({key} {_short(known)}, not {_short(value)}): "
                    "pass another -o, or remove the folder"
                )
        results = Path(before.get("results", self.results))
        if results != self.results and results.is_dir():
            raise UserError(
                f"{self.note} is of models in {results}, not {self.results}: pass another -o, or set nnUNet_results so"
            )
        return before

    def check_trained(self) -> None:
        """Refuse models that were trained otherwise than they are compared.

        Those are models of other plans, models whose trainings have drawn from other subsets, companions that have
        begun elsewhere, and, where the folds' validation cases are scored, models that may have trained on these.

        Raises:
            UserError: There is one.
        """
        for arm in self.arms:
            self._check_plans(self.model(arm).folder)
        for arm, fold in product(self.arms, self.folds):
            folder = self.model(arm).checkpoint(fold).parent
            self._check_start(arm, fold)
            self._check_split(arm, fold)
            known = read_json_or(folder / SUBSETS, {}).get("subsets", {})
            if known != self.subsets and any(folder.glob("checkpoint_*.pth")) and _hides_modalities(arm):
                raise UserError(
                    f"{folder} was trained with other subsets ({_short(known)}, not {_short(dict(self.subsets))}): "
                    "give this benchmark an nnUNet_results of its own"
                )

    def _check_plans(self, model: Path) -> None:
        path, of_model = self.preprocessed / f"{self.plans}.json", model / _PLANS
        if not (path.is_file() and of_model.is_file() and any(model.glob("fold_*/checkpoint_*.pth"))):
            return
        plans = read_plans(path, "repair it, or move it away to plan anew")
        trained_by = {
            "plans": read_plans(of_model),
            "dataset_json": read_json_or(model / "dataset.json", None),
            "configuration": self.configuration,
        }
        content = {"channel_names": dict(enumerate(self.dataset.channels))}
        check_same_plans(of_model, trained_by, plans, content, "put its own plans back, or train it anew by these")

    def _check_start(self, arm: str, fold: str) -> None:
        """Refuse a companion whose stock network is not that of the start that is there now.

        That is the one which the benchmark noted when it trained the companion: arms that came later may look nearer.
        """
        checkpoint = self.model(arm).kept(fold) if is_companion(arm) else None
        if checkpoint is None:
            return
        noted = read_json_or(self.training_note(arm, fold), {}).get("start", {}).get("from", "")
        is_trainer = noted and not Path(noted).is_absolute()
        start = self.model(noted).checkpoint(fold) if is_trainer else self.start_checkpoint(arm, fold)
        if start and is_whole(start) and not has_stock(read_checkpoint(checkpoint), read_checkpoint(start)):
            named = "name the model that it started from with --start_from, or give this benchmark an nnUNet_results of"
            remedy = f"move {checkpoint.parent} away to train it anew" if noted else f"{named} its own"
            raise UserError(f"{checkpoint} did not start from {start}: {remedy}")

    def _check_split(self, arm: str, fold: str) -> None:
        splits = self.preprocessed / "splits_final.json"
        if self.cases != "folds" or not (cases := validation_cases(splits, fold)):
            return
        for checkpoint in filter(None, (self.model(arm).checkpoint(fold), self.start_checkpoint(arm, fold))):
            if seen := perhaps_trained_on(checkpoint, cases):
                raise UserError(
                    f"{checkpoint} was validated on other cases than fold {fold} of {splits} has, and may have trained "
                    f"on {listed(seen, 5)}: put its own splits back, train it anew, or score others with --cases test"
                )

    def training_note(self, arm: str, fold: str) -> Path:
        """Return the file in which a training says how it trained."""
        return self.out / arm / f"training_fold_{fold}.json"

    def describe(self) -> dict[str, Any]:
        """Return the content of setup.json."""
        before = self.check_same()
        shared = {"plans": self.plans, "folds": list(self.folds)}
        arms = [{"name": arm, **shared, **self._schedule(arm)} for arm in self.arms]
        return {
            **self.identity,
            "means": BY_WEIGHT,
            "arms": arms,
            "modalities": list(self.dataset.channels),
            "regions": {name: list(values) for name, values in self.dataset.regions.items()},
            "results": str(self.results),
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
            "differences": differences(arms),
        }

    def _schedule(self, arm: str) -> dict[str, Any]:
        """Say how an arm trains: what its training noted, or what its trainer says before one."""
        if noted := read_json_or(self.training_note(arm, self.folds[0]), {}):
            return noted
        with passing_trainer(self.model(arm), self.folds[0], torch.device(self.device)) as trainer:
            schedule = schedule_of(trainer)
        if (checkpoint := self.model(arm).checkpoint(self.folds[0])).is_file():  # trained by somebody else
            schedule |= {"epochs": read_checkpoint(checkpoint).get("current_epoch") or schedule["epochs"]}
        start = self.start_of(arm)
        if start in self.arms:
            return schedule | {"start": {"from": start, "epochs": self._schedule(start)["epochs"]}}
        return schedule | self.describe_start(arm, self.folds[0])

    def describe_start(self, arm: str, fold: str) -> dict[str, Any]:
        """Say what a fold of an arm starts from, which is there by now; empty if nothing that the benchmark names."""
        checkpoint = self.start_checkpoint(arm, fold)
        if checkpoint is None:
            return {}
        epochs = read_checkpoint(checkpoint).get("current_epoch")
        return {
            "start": {"from": self.start_of(arm) or STOCK_TRAINER, "epochs": epochs, "sha256": sha256_of(checkpoint)}
        }


def differences(arms: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line for each setting in which arms differ.

    Example:
        >>> differences([{"name": "A", "epochs": 10}, {"name": "B", "epochs": 20}])
        ['epochs differ: A 10, B 20']
    """
    lines, told = [], [{"steps_before": 0} | arm for arm in arms]
    for key, title in _COMPARED.items():
        values = {arm["name"]: _compared(arm, key) for arm in told if arm.get(key) is not None}
        if len({value.partition(" with")[0] for value in values.values()}) > 1:
            lines.append(f"{title} differ: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    return lines


def _compared(arm: dict[str, Any], key: str) -> str:
    if key == "epochs" and arm.get("start"):
        return f"{epochs_of(arm)} with those of its start"
    return str(arm[key])


def schedule_of(trainer: Trainer) -> dict[str, Any]:
    """Return how a trainer trains: epochs, steps before and in each, batch, patch; optimizer if it has begun."""
    configuration = trainer.configuration_manager
    n_before, optimizer = getattr(trainer, "n_guess_steps", 0), getattr(trainer, "optimizer", None)
    return {
        "epochs": trainer.num_epochs,
        **({"steps_before": n_before} if n_before else {}),
        "steps_per_epoch": trainer.num_iterations_per_epoch,
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        **({"optimizer": f"{type(optimizer).__name__} {trainer.initial_lr:g}"} if optimizer else {}),
        **({"p_complete": trainer.p_complete} if isinstance(trainer, ModalityDroppingTrainer) else {}),
    }


def check_arms(arms: Sequence[str], starts: Sequence[str] = (), of: Sequence[str] = ()) -> None:
    """Refuse a trainer that nnU-Net would not find, one that is named twice, and a start that nobody can use.

    Args:
        arms: Names of trainers.
        starts: What companions start from, arms or whatever else.
        of: Arms that are said to start from one of these.

    Raises:
        UserError: There is no such trainer; near names are listed. Or nothing can start from there.
    """
    known = _known_trainers()
    for arm in arms:
        if arm not in known and not hasattr(variants, arm) and not _found_by_nnunet(arm):
            near = difflib.get_close_matches(arm, sorted(known), n=4, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"for instance {', '.join(ARMS)}"
            raise UserError(f"no trainer is called {arm}: {hint} (folders of your own go into {TRAINERS_VARIABLE})")
    twice = [arm for arm in arms if list(arms).count(arm) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice: name each arm once")
    companions = [arm for arm in arms if is_companion(arm)]
    if starts and not companions:
        raise UserError("--start_from: no arm is a companion: add one, such as D2NetTrainerCompanion, or leave it out")
    for arm in (arm for arm in of if arm not in companions):
        raise UserError(f"--start_from {arm}=...: no companion among the arms has this name: add it, or leave it out")
    for start in (start for start in starts if start in companions):
        raise UserError(f"--start_from {start}: a companion starts from a stock nnU-Net: name such an arm")


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
    processors = re.findall(
        r"^model name\s*: *(.*)$", known.read_text(encoding="utf-8") if known.is_file() else "", re.MULTILINE
    )
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpu = next(iter(processors), platform.processor() or platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "memory_GiB": round(memory, 1)}


def _short(value: Any) -> str:  # noqa: ANN401 - whatever setup.json holds
    if isinstance(value, dict):
        is_named = any(isinstance(of, str) for of in value.values())
        value = [f"{key}={of}" for key, of in value.items()] if is_named else as_words(value)
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"


def _known_trainers() -> set[str]:
    """Name the classes of this package, of nnU-Net, and of the user's folders, without importing any."""
    folders = [nnunet_folder() / "training" / "nnUNetTrainer"]
    folders += [Path(folder) for folder in os.environ.get(TRAINERS_VARIABLE, "").split(os.pathsep) if folder]
    files = (path for folder in folders for path in folder.rglob("*.py") if path.is_file())
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files)
    return set(variants.__all__).union(*(re.findall(r"^class (\w+)", text, re.MULTILINE) for text in texts))


def _found_by_nnunet(arm: str) -> type | None:
    """Let nnU-Net look for a trainer, which imports its files and those of the user."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return recursive_find_trainer_class_by_name(arm)
    except RuntimeError as error:
        if not str(error).startswith("Could not find requested nnunet trainer"):
            raise
        return None


def _hides_modalities(arm: str) -> bool:
    return issubclass(getattr(variants, arm, None) or _found_by_nnunet(arm) or object, ModalityDroppingTrainer)
