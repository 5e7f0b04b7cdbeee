"""``d2net train``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli import checks
from nnunetv2_d2net.cli.nnunet import call_entry_point, check_trainer, device_words
from nnunetv2_d2net.cli.process_group import errors_of_processes, is_one_of_several, process_group
from nnunetv2_d2net.cli.words import describe_passing, positionals, value_of
from nnunetv2_d2net.plugin.registration import announce_trainers

HELP = "Train D2-Net: nnUNetv2_train with -tr D2NetTrainer and -p D2NetPlans unless you name others."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments; all of them are nnU-Net's."""
    usage = "d2net train ID CONFIGURATION FOLD [-tr TRAINER] [-p PLANS] [nnU-Net's arguments ...]"
    describe_passing(parser, usage, "nnUNetv2_train")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Check that there is something to train on, then let nnU-Net train in this process.

    Raises:
        UserError: A variable, the plans, the preprocessed data or the trainer is missing, D2-Net cannot use them, or
            the pretrained weights are another network's.
    """
    words = ["-tr", "D2NetTrainer", "-p", "D2NetPlans", *extra]
    trainer = value_of(words, "-tr")
    _check_data(words, trainer)
    if weights := value_of(words, "-pretrained_weights"):
        checks.existing_file(weights, "-pretrained_weights takes a checkpoint such as fold_0/checkpoint_final.pth")
    announce_trainers()
    check_trainer(trainer)
    words = device_words(words) + words
    _check_processes(words, trainer)

    from nnunetv2.run.run_training import run_training_entry

    with process_group(value_of(words, "-device", "cuda")) if is_one_of_several() else errors_of_processes():
        try:
            return call_entry_point(run_training_entry, "train", words)
        except AssertionError as error:  # what nnU-Net says about weights that do not fit
            if not weights or "pretrained model" not in str(error):
                raise
            raise UserError(
                f"-pretrained_weights {weights} does not fit {trainer} on these plans: pass a checkpoint of a D2-Net "
                "trained on plans with the same network"
            ) from error


def _check_processes(words: Sequence[str], trainer: str) -> None:
    device, n_gpus = value_of(words, "-device", "cuda"), value_of(words, "-num_gpus", "1")
    if not is_one_of_several():
        if n_gpus != "1" and device != "cuda":
            raise UserError(
                f"-num_gpus {n_gpus} needs CUDA devices, this is {device}: leave it out, or start with torchrun"
            )
        return
    if n_gpus != "1":
        raise UserError(f"-num_gpus {n_gpus}: torchrun has started the processes already, leave it out")
    if device not in ("cuda", "cpu"):
        raise UserError(f"-device {device}: torchrun trains on cuda or cpu")

    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunetv2_d2net.plugin.training.modality_dropping import ModalityDroppingTrainer

    if not issubclass(recursive_find_trainer_class_by_name(trainer), ModalityDroppingTrainer):
        raise UserError(
            f"{trainer} takes the number of a process for that of its GPU, which is wrong with torchrun: train it with "
            "-num_gpus on one machine, or a trainer of this package such as nnUNetTrainerModalityDropout"
        )


def _check_data(words: Sequence[str], trainer: str) -> None:
    try:
        dataset, configuration, fold = positionals(words)
    except ValueError as error:
        raise UserError("give data set, configuration and fold: d2net train 7 3d_fullres 0") from error
    checks.known_folds([fold])
    checks.folder_of("nnUNet_results")
    folder = checks.dataset_folder(dataset, "nnUNet_preprocessed", f"run d2net plan_and_preprocess -d {dataset}")
    plans_file = folder / f"{value_of(words, '-p')}.json"
    _check_configuration(plans_file, configuration, dataset)
    if trainer.startswith("D2NetTrainer"):
        checks.enough_modalities(folder / "dataset.json", "train nnUNetTrainer instead, with -tr")


def _check_configuration(plans_file: Path, configuration: str, dataset: str) -> None:
    others = sorted(path.stem for path in plans_file.parent.glob("*Plans*.json"))
    remedy = f"run d2net plan_and_preprocess -d {dataset}, or pass other plans with -p (there: {', '.join(others)})"
    if not others:
        remedy = f"run d2net plan_and_preprocess -d {dataset}"
    configurations = checks.read_json(plans_file, remedy).get("configurations", {})
    if configuration not in configurations:
        raise UserError(f"{plans_file} has no configuration {configuration}: it has {', '.join(configurations)}")
    data = plans_file.parent / _data_identifier(configurations, configuration)
    if not data.is_dir():
        preprocess = f"nnUNetv2_preprocess -d {dataset} -plans_name {plans_file.stem} -c {configuration}"
        raise UserError(f"{data} does not exist, so {configuration} is planned but not preprocessed: run {preprocess}")


def _data_identifier(configurations: dict, name: str) -> str:
    """Return the folder of a configuration's preprocessed data, which another configuration may hand down."""
    configuration = configurations[name]
    if "data_identifier" in configuration or "inherits_from" not in configuration:
        return configuration.get("data_identifier", name)
    return _data_identifier(configurations, configuration["inherits_from"])
