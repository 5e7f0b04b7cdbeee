"""Seconds per training step of several trainers on the same plans and the same batch, interleaved; medians and ratios.

Usage: python benchmarks/training_step.py [ID] [--plans D2NetSmallPlans] [--configuration 3d_fullres]
       [--arms nnUNetTrainerModalityDropout D2NetTrainer] [--device cpu|cuda] [--runs 5] [--json FILE]

One step is nnU-Net's ``train_step`` with augmentation left out. The first step of each arm is warm-up and not counted.
With the ID of a preprocessed data set the arms are any trainers that nnU-Net finds, on that data set's plans. Without
one they are modality dropout, D2NetTrainer with and without activation checkpointing, and dropout behind a guess, on
plans of several sizes.
"""

import argparse
import functools
import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from measuring import interleave, make_parser, parse, ratio, report
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from synthetic import ARMS, PHANTOM, TOY, Setting, do_step, make_batch, make_trainer, nnunet_folders

from nnunetv2_d2net.method.network.d2net import count_parameters
from nnunetv2_d2net.plugin.registration import announce_trainers
from nnunetv2_d2net.study.pipeline import Model, load_batch, make_ready, passing_trainer

REAL_ARMS = ("nnUNetTrainer", "nnUNetTrainerModalityDropout", "D2NetTrainer")
SETTINGS = (PHANTOM, Setting((64, 64, 64)), Setting((128, 128), n_cases=12))
GPU_SETTINGS = (Setting((128, 128, 128)), Setting((512, 512), n_cases=12))


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__, runs=7)
    parser.add_argument("dataset_id", type=int, nargs="?")
    parser.add_argument("--plans", default="D2NetSmallPlans")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--arms", nargs="+", default=REAL_ARMS)
    args = parse(parser)
    rows, all_seconds = [], {}
    settings = [TOY] if args.toy else GPU_SETTINGS if args.device == "cuda" else SETTINGS
    for setting in settings if args.dataset_id is None else [None]:
        with ExitStack() as stack:
            if setting is None:
                trainers, batch = real(args, stack)
            else:
                stack.enter_context(nnunet_folders())
                trainers = {arm: make_trainer(trainer, setting, args.device) for arm, trainer in ARMS.items()}
                batch = make_batch(setting, next(iter(trainers.values())))
            size = str(setting or args.plans)
            all_seconds[size] = measure(trainers, batch, args)
            rows += [row(arm, size, trainers[arm], all_seconds[size]) for arm in trainers]
    report(rows, args, seconds=all_seconds)


def measure(
    trainers: dict[str, nnUNetTrainer], batch: dict[str, Any], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the seconds of every step, by trainer."""
    steps: dict[str, Callable[[], object]] = {
        arm: functools.partial(do_step, trainer, batch) for arm, trainer in trainers.items()
    }
    return interleave(steps, args)


def row(arm: str, size: str, trainer: nnUNetTrainer, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return one line of the table."""
    reference = "nnUNetTrainerModalityDropout" if "nnUNetTrainerModalityDropout" in seconds else next(iter(seconds))
    values = seconds[arm]
    return {
        "size": size,
        "trainer": arm,
        "parameters": count_parameters(trainer.network),
        "median s": statistics.median(values),
        "min s": min(values),
        "max s": max(values),
        f"ratio to {reference}": ratio(seconds, arm, reference),
    }


def real(args: argparse.Namespace, stack: ExitStack) -> tuple[dict[str, nnUNetTrainer], dict[str, Any]]:
    """Return the trainers on a preprocessed data set's plans, ready to step, and one of its batches."""
    announce_trainers()
    results = Path(os.environ["nnUNet_results"]) / convert_id_to_dataset_name(args.dataset_id)
    models = {arm: Model(results, arm, args.plans, args.configuration) for arm in args.arms}
    device = torch.device(args.device)
    trainers = {
        arm: make_ready(stack.enter_context(passing_trainer(model, "all", device))) for arm, model in models.items()
    }
    return trainers, load_batch(next(iter(trainers.values())))


if __name__ == "__main__":
    main()
