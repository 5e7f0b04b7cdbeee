"""Trainings of the same number of seconds on simulated patients, and the Dice of their models by subset."""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.data.phantom.dataset import PhantomSpec, write_phantom
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from nnunetv2_d2net.plugin.training.variants import nnUNetTrainerModalityDropout
from nnunetv2_d2net.study.pipeline import (
    Model,
    QuickFingerprint,
    plan_and_preprocess,
    predict_subsets,
    use_device,
    work_below,
)
from nnunetv2_d2net.study.scores.evaluate import evaluate_folder
from nnunetv2_d2net.study.scores.tables import dice_by_subset

DATASET = PhantomSpec(997, n_train=16, n_test=6, size="medium", name="OnGpu")
TOY_DATASET = PhantomSpec(997, n_train=1, n_test=1, size="small", name="OnGpu")
TOY_SUBSETS = ((True, False, False, False), (True, True, True, True))
CONFIGURATION, FOLD = "3d_fullres", "all"
N_PROCESSES = max(1, (os.cpu_count() or 1) - 1)


class Timed(nnUNetTrainer):
    """Trains for so many seconds of steps, and takes for its number of epochs what fits by the time they have taken.

    Attributes:
        seconds: How many; one epoch is trained in any case.
        spent: Seconds of the epochs so far, without what follows each of them, such as drawing the curves.
        n_iterations: Steps of an epoch in training and in validation.
    """

    seconds: float
    spent: float = 0
    n_iterations: tuple[int, int] = (50, 4)

    def on_train_start(self) -> None:
        """Shorten the epochs."""
        super().on_train_start()
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = self.n_iterations
        self.disable_checkpointing = True  # until the end

    def run_training(self) -> None:
        """Train as nnU-Net does, which asks for the number of epochs only once."""
        self.on_train_start()
        while self.current_epoch < self.num_epochs:
            begin = time.monotonic()
            self.on_epoch_start()  # pyright: ignore[reportAttributeAccessIssue]
            self.on_train_epoch_start()
            steps = range(self.num_iterations_per_epoch)
            self.on_train_epoch_end([self.train_step(next(self.dataloader_train)) for _ in steps])
            with torch.no_grad():
                self.on_validation_epoch_start()
                steps = range(self.num_val_iterations_per_epoch)
                self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val)) for _ in steps])
            self.spent += time.monotonic() - begin
            self.on_epoch_end()
        self.disable_checkpointing = False
        self.on_train_end()

    def on_epoch_end(self) -> None:
        """Estimate how many epochs there will be, by which the learning rate falls."""
        super().on_epoch_end()
        n_done = self.current_epoch
        fitting = round(n_done * self.seconds / self.spent)
        self.num_epochs = max(n_done + 1, fitting) if self.spent < self.seconds else n_done
        self.lr_scheduler = PolyLRScheduler(self.optimizer, self.initial_lr, self.num_epochs)


TRAINERS = {trainer.__name__: trainer for trainer in (D2NetTrainer, nnUNetTrainerModalityDropout, nnUNetTrainer)}


def simulate(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Simulate the patients unless they have travelled along, plan and preprocess."""
    begin, out = time.monotonic(), work_below(args.phantoms, "work folder of this script")
    spec = TOY_DATASET if args.toy else DATASET
    raw = out / "nnUNet_raw" / spec.folder_name
    if not (raw / "dataset.json").is_file():  # which is written last
        write_phantom(raw.parent, spec, processes=N_PROCESSES, resume=raw.is_dir())
    simulated = time.monotonic()
    if not args.only_simulate:
        plan_and_preprocess(
            spec.dataset_id, _planner(args), CONFIGURATION, extractor=QuickFingerprint, processes=N_PROCESSES
        )
    yield {"cases": spec.n_train, "simulated, s": simulated - begin, "preprocessed, s": time.monotonic() - simulated}


def train(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train for the given seconds, predict the test cases and yield the mean Dice of each subset."""
    out, spec = work_below(args.phantoms, "work folder of this script"), TOY_DATASET if args.toy else DATASET
    os.environ["nnUNet_n_proc_DA"] = "0" if args.toy else str(min(12, N_PROCESSES))
    plans_name = _planner(args).replace("Planner", "Plans")
    model = Model(out / "nnUNet_results" / spec.folder_name, name, plans_name, CONFIGURATION)
    device, raw = torch.device(args.device), out / "nnUNet_raw" / spec.folder_name
    use_device(device)
    trainer = _make(TRAINERS[name], out / "nnUNet_preprocessed" / spec.folder_name, plans_name, device)
    trainer.seconds = args.train_seconds
    if args.toy:
        trainer.n_iterations = 2, 1
    trainer.run_training()
    predictions, subsets = out / "predictions" / name, TOY_SUBSETS if args.toy else ()
    predict_subsets(model, [FOLD], str(raw / "imagesTs"), predictions, device, mirroring=False, subsets=subsets)
    processes = 1 if args.toy else N_PROCESSES
    dice = dice_by_subset(evaluate_folder(predictions, raw / "labelsTs", processes=processes).scores)
    size = "x".join(map(str, trainer.configuration_manager.patch_size))
    told = {"patch": size, "steps": trainer.current_epoch * trainer.num_iterations_per_epoch, "s": trainer.spent}
    for subset, of_subset in dice.items():
        yield {**told, "available": subset, **of_subset}
    regions = next(iter(dice.values()))
    means = {region: fmean(of_subset[region] for of_subset in dice.values()) for region in regions}
    yield {**told, "available": f"mean of {len(dice)}", **means}


def _planner(args: argparse.Namespace) -> str:
    return "D2NetSmallPlanner" if args.toy else "D2NetPlanner"


def _make(trainer: type[nnUNetTrainer], preprocessed: Path, plans: str, device: torch.device) -> Any:  # noqa: ANN401
    """Construct a trainer that stops in time; its models are those of the trainer itself, by its name."""
    timed: Any = type(trainer.__name__, (Timed, trainer), {})
    remedy = "the step of the phantoms makes it"
    content, dataset = (read_json(preprocessed / f"{name}.json", remedy) for name in (plans, "dataset"))
    return timed({**content, "continue_training": False}, CONFIGURATION, FOLD, dataset, device)
