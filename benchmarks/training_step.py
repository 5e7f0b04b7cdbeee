"""Seconds per training step of several trainers on the same plans and the same batch, interleaved; medians and ratios.

Usage: python benchmarks/training_step.py ID [--plans D2NetSmallPlans] [--configuration 3d_fullres] [--steps 7]
       [--arms nnUNetTrainer nnUNetTrainerModalityDropout D2NetTrainer] [--json FILE]

One step is nnU-Net's ``train_step`` with augmentation left out. The first step of each arm is warm-up and not counted.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_d2net.evaluation.subset_table import markdown_table
from nnunetv2_d2net.network.d2net import count_parameters
from nnunetv2_d2net.registration import announce_trainers

ARMS = ("nnUNetTrainer", "nnUNetTrainerModalityDropout", "D2NetTrainer")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_id", type=int)
    parser.add_argument("--plans", default="D2NetSmallPlans")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    announce_trainers()
    trainers = {arm: build(arm, args) for arm in args.arms}
    first = next(iter(trainers.values()))
    loader, validation_loader = first.get_dataloaders()
    batch = next(loader)
    for generator in (loader, validation_loader):
        getattr(generator, "_finish", lambda: None)()
    seconds: dict[str, list[float]] = {arm: [] for arm in trainers}
    for _ in range(args.steps + 1):
        for arm, trainer in trainers.items():
            seconds[arm].append(timed_step(trainer, dict(batch)))
    report({arm: values[1:] for arm, values in seconds.items()}, trainers, args)


def build(arm: str, args: argparse.Namespace) -> nnUNetTrainer:
    """Return the trainer, ready to step; its log goes to a folder that nobody keeps."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = get_trainer_from_args(str(args.dataset_id), args.configuration, "all", arm, args.plans, device=device)
    trainer.log_file = str(Path(tempfile.mkdtemp()) / "log.txt")
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()
    return trainer


def timed_step(trainer: nnUNetTrainer, batch: dict) -> float:
    """Do one step and return its seconds."""
    if hasattr(trainer, "train_step_index"):
        trainer.train_step_index = 1  # the diagnostics of an epoch's first step are not part of a step
    begin = time.perf_counter()
    trainer.train_step(batch)
    return time.perf_counter() - begin


def report(seconds: dict[str, list[float]], trainers: dict[str, nnUNetTrainer], args: argparse.Namespace) -> None:
    """Print the table and, if asked, write the figures."""
    reference = next(iter(seconds.values()))
    rows = [["trainer", "parameters", "median s", "min s", "max s", "ratio to the first"]]
    for arm, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, reference, strict=True))
        figures = [statistics.median(values), min(values), max(values), ratio]
        rows.append([arm, f"{count_parameters(trainers[arm].network):,}", *(f"{x:.2f}" for x in figures)])
    sys.stdout.write(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}\n\n{markdown_table(rows)}")
    if args.json:
        args.json.write_text(json.dumps({"threads": torch.get_num_threads(), "seconds": seconds}, indent=2))


if __name__ == "__main__":
    main()
