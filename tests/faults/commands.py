"""The commands that the campaign disturbs: tiny data, the folders each starts from, and how it is called again."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_d2net.plugin.registration import trainers_folder

NUMBER, NAME, CONFIGURATION, PLANS = 7, "Dataset007_Faults", "3d_fullres", "D2NetSmallPlans"
SHAPE = (24, 28, 26)  # z, y, x
N_TRAIN, N_TEST = 6, 2
_SUFFIXES = ("-t2f", "-t1n", "-t1c", "-t2w")

TRAINERS = '''
"""Trainers of three epochs of two steps, which draw the same numbers whenever they begin."""

import random

import numpy as np
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer

_construct = GaussianBlurTransform.__init__
# nnU-Net's blur takes the faster of two ways, whose last bits differ
GaussianBlurTransform.__init__ = lambda *args, **kwargs: _construct(*args, **{**kwargs, "benchmark": False})


class Quick:
    n_epochs = 3

    def on_train_start(self):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        super().on_train_start()
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch, self.save_every = 2, 1, 1

    def initialize(self):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        super().initialize()


class D2NetTrainerQuick(Quick, D2NetTrainer):
    pass


class DropoutQuick(Quick, nnUNetTrainerModalityDropout):
    pass


random.seed(2), np.random.seed(2), torch.manual_seed(2)  # the trainer draws the seed of its subsets when it is made
'''


@dataclass(frozen=True)
class Command:
    """One command, on a copy of a state of the workplace.

    Attributes:
        name: In the table.
        words: After ``d2net``; the folder of the workplace is the current one.
        state: What must have been done before.
        again: Words to add where it is called again.
        outputs: Folders and files that must be the same in the end.
        done: File whose presence says that the output is complete; None where each file says so for itself.
        done_alone: Whether it says so of itself only: a training's validation follows its final checkpoint.
        environment: Variables to set.
        same_content: Whether what it writes is the same in every run.
    """

    name: str
    words: tuple[str, ...]
    state: str
    again: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    done: str | None = None
    done_alone: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    same_content: bool = True


_MODEL = f"results/{NAME}/D2NetTrainerQuick__{PLANS}__{CONFIGURATION}"
_DATA = f"preprocessed/{NAME}"
_PREDICT = (*f"predict -i raw/{NAME}/imagesTs -d {NUMBER} -c {CONFIGURATION} -p {PLANS}".split(), "-f", "0")
_PREDICT = (*_PREDICT, "-tr", "D2NetTrainerQuick", "--disable_tta", "-device", "cpu", "-o")
_TRAIN = ("train", str(NUMBER), CONFIGURATION, "0", "-tr", "D2NetTrainerQuick", "-p", PLANS, "-device", "cpu")
_BENCHMARK = (
    "benchmark",
    "-d",
    str(NUMBER),
    "-c",
    CONFIGURATION,
    "-p",
    PLANS,
    "-o",
    "bench",
    "--no_cost",
    "--disable_tta",
)
_CONVERT = ("convert", "source/training", "--test", "source/test", "-d", str(NUMBER), "--name", "Faults", "-np", "2")

COMMANDS = {
    command.name: command
    for command in (
        Command("convert", _CONVERT, "source", outputs=(f"raw/{NAME}",), done=f"raw/{NAME}/dataset.json"),
        Command(
            "plan_and_preprocess",
            (
                "plan_and_preprocess",
                "-d",
                str(NUMBER),
                "-pl",
                "D2NetSmallPlanner",
                "-c",
                CONFIGURATION,
                "-np",
                "2",
                "-npfp",
                "2",
            ),
            "convert",
            outputs=(_DATA,),
            done=f"{_DATA}/{PLANS}_{CONFIGURATION}.available_modalities.json",
        ),
        Command(
            "preprocess",
            ("preprocess", "-d", str(NUMBER), "-plans_name", PLANS, "-c", CONFIGURATION, "-np", "2"),
            "planned",
            outputs=(_DATA,),
            done=f"{_DATA}/{PLANS}_{CONFIGURATION}.available_modalities.json",
        ),
        Command(
            "train",
            _TRAIN,
            "plan_and_preprocess",
            ("--c",),
            (_MODEL, f"{_DATA}/splits_final.json"),
            f"{_MODEL}/fold_0/checkpoint_final.pth",
            done_alone=True,
        ),
        Command(
            "train, with workers",
            _TRAIN,
            "plan_and_preprocess",
            ("--c",),
            (_MODEL, f"{_DATA}/splits_final.json"),
            f"{_MODEL}/fold_0/checkpoint_final.pth",
            done_alone=True,
            environment=(("nnUNet_n_proc_DA", "2"),),
            same_content=False,
        ),
        Command("predict", (*_PREDICT, "out"), "train", ("--continue_prediction",), ("out",)),
        Command(
            "predict --all_subsets", (*_PREDICT, "all", "--all_subsets"), "train", ("--continue_prediction",), ("all",)
        ),
        Command(
            "evaluate",
            ("evaluate", "-i", "all", "-r", f"raw/{NAME}/labelsTs", "-o", "scores", "-np", "2"),
            "predict --all_subsets",
            outputs=("scores",),
            done="scores/tables.json",
        ),
        Command(
            "benchmark",
            (*_BENCHMARK, "--arms", "DropoutQuick", "D2NetTrainerQuick", "-device", "cpu"),
            "convert",
            outputs=("bench", _DATA, "results"),
            done="bench/gathered.json",
        ),
    )
}


def write_source(folder: Path) -> None:
    """Write heads with nested tumors as BraTS has them; two cases lack modalities."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"), -1)
    for number in range(N_TRAIN + N_TEST):
        split = "training" if number < N_TRAIN else "test"
        name = f"BraTS-GLI-{number:05d}-000"
        head = np.linalg.norm(grid, axis=-1) < 0.95
        distance = np.linalg.norm(grid - rng.uniform(-0.2, 0.2, 3), axis=-1)
        label = (2 * (distance < 0.5)).astype(np.uint8)
        label[distance < 0.35] = 3
        label[distance < 0.2] = 1
        (folder / split / name).mkdir(parents=True)
        for channel, suffix in enumerate(_SUFFIXES):
            contrast = np.array([100, 150, 130, 190]) + 40 * channel * np.array([0, 1, 2, -1])
            voxels = head * (contrast[label] + rng.normal(scale=8, size=SHAPE)).clip(1)
            if number not in (1, N_TRAIN) or channel != number % 4:
                _write(voxels.astype(np.int16), folder / split / name / f"{name}{suffix}.nii.gz")
        _write(label, folder / split / name / f"{name}-seg.nii.gz")


def _write(voxels: np.ndarray, path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))


def environment(place: Path, command: Command | None = None, mark: str = "") -> dict[str, str]:
    """Return the variables of a shell in the workplace; the mark tells its processes from others."""
    ours = {f"nnUNet_{kind}": str(place / kind) for kind in ("raw", "preprocessed", "results")}
    ours |= {"nnUNet_extTrainer": f"{trainers_folder()}{os.pathsep}{place / 'trainers'}", "D2NET_FAULTS": mark}
    ours |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "2", "OMP_NUM_THREADS": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "D2NET"))}
    return kept | ours | dict(command.environment if command else ())


def d2net(*words: str) -> list[str]:
    """Return the words that call ``d2net`` in this Python."""
    return [sys.executable, "-m", "nnunetv2_d2net.cli.main", *words]


def make_states(place: Path, states: Path, say: Callable[[str], None]) -> None:
    """Run every command once, and keep the workplace as it is before and after each, under ``states``."""
    if not (states / "source").is_dir():
        shutil.rmtree(place, ignore_errors=True)
        write_source(place / "source")
        (place / "trainers").mkdir()
        (place / "trainers" / "quick.py").write_text(TRAINERS, encoding="utf-8")
        for kind in ("raw", "preprocessed", "results"):
            (place / kind).mkdir()
        keep(place, states / "source")
    _make(place, states, "planned", ("plan", *COMMANDS["plan_and_preprocess"].words[1:5]), "convert", say)
    for command in COMMANDS.values():
        _make(place, states, command.name, command.words, command.state, say, command)


def _make(
    place: Path,
    states: Path,
    name: str,
    words: tuple[str, ...],
    before: str,
    say: Callable[[str], None],
    command: Command | None = None,
) -> None:
    if (states / name).is_dir():
        return
    if not (states / before).is_dir():
        _make(place, states, before, COMMANDS[before].words, COMMANDS[before].state, say, COMMANDS[before])
    say(f"undisturbed: d2net {' '.join(words)}")
    restore(states / before, place)
    subprocess.run(d2net(*words), cwd=place, env=environment(place, command), check=True, capture_output=True)
    keep(place, states / name)


def keep(place: Path, state: Path) -> None:
    """Copy the workplace, whole or not at all."""
    unfinished = state.with_name(f"{state.name}.copying")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(place, unfinished, symlinks=True)
    unfinished.rename(state)


def restore(state: Path, place: Path) -> None:
    """Let the workplace be what it was; the folder itself stays, as it may be a disk of its own."""
    place.mkdir(parents=True, exist_ok=True)
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(state, place, symlinks=True, dirs_exist_ok=True)


def seeded(*parts: object) -> random.Random:
    """Return a generator that depends on the parts alone."""
    return random.Random(repr(parts))
