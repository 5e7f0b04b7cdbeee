"""``d2net train``."""

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from nnunetv2_d2net.base.dataset import Dataset, dataset_number, folder_of
from nnunetv2_d2net.base.errors import UsageError, UserError
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.cli._checks import check_folds, dataset_folder
from nnunetv2_d2net.cli._nnunet import call_entry_point, device_words, trainer_class
from nnunetv2_d2net.cli._process_group import errors_of_processes, is_one_of_several, process_group
from nnunetv2_d2net.cli._words import (
    add_seed,
    in_nnunets_order,
    positionals,
    value_of,
    values_of,
    without,
)
from nnunetv2_d2net.patient.model import shipped_checkpoint
from nnunetv2_d2net.plugin.planning.plans import check_modalities, preprocessed_folder, read_plans
from nnunetv2_d2net.plugin.protocols import drawing_from, read_protocols
from nnunetv2_d2net.plugin.registration import announce_trainers
from nnunetv2_d2net.plugin.start import (
    SEPARATOR,
    STUDENT,
    check_begun,
    companion_of,
    find_stock,
    start_checkpoint,
)

_LOG = logging.getLogger("nnunetv2_d2net")
HELP = (
    "Train D2-Net: nnUNetv2_train with -tr D2NetTrainer and -p D2NetPlans unless you name others. With --start_from "
    "STOCK, a stock nnU-Net's trainer, model folder or checkpoint, train its companion, by modality dropout behind a "
    "guess of what is missing unless you name another trainer. With --start_from phantom, fine-tune the model of this "
    "package, on plans of D2NetWholeHeadPlanner."
)

_PRETRAINED = "-pretrained_weights"
_START = "--start_from"
_PHANTOM = "phantom"
_KINDS = ("ResEnc", "Small", "WholeHead", "Paper")  # of planners beside D2NetPlanner
_FINE_TUNING = ("-tr", "nnUNetTrainerModalityDropoutModulated", "-p", "D2NetWholeHeadPlans")
_KEPT = ("final", "latest", "best")  # from which nnU-Net goes on
_SUBSETS, _PRESENCE = "--subsets", "--presence"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments that are not nnU-Net's."""
    parser.usage = (
        "d2net train ID CONFIGURATION FOLD (or -d ID -c CONFIGURATION -f FOLD) [-tr TRAINER] [-p PLANS] "
        "[--start_from STOCK | phantom] [--subsets SUBSET[=WEIGHT] ... | --presence MODALITY=PROBABILITY ...] "
        "[--seed S] [nnU-Net's arguments ...]"
    )
    add = parser.add_argument
    add(_START, metavar="STOCK", help="trainer, model folder or checkpoint to make the companion of; or phantom")
    add(_SUBSETS, nargs="+", metavar="SUBSET[=WEIGHT]", help="train for these subsets only, such as FLAIR+T1 T2=2 all")
    meaning = "the same for what occurs where each modality is there with a probability of its own, such as T1ce=0.4"
    add(_PRESENCE, nargs="+", metavar="MODALITY=PROBABILITY", help=meaning)
    add_seed(parser)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Check that there is something to train on, then let nnU-Net train in this process.

    Raises:
        UserError: A variable, the plans, the preprocessed data or the trainer is missing, D2-Net cannot use them, or
            the pretrained weights are another network's.
    """
    words = all_words(extra, args.start_from)
    trainer = value_of(words, "-tr")
    subsets = read_protocols(args.subsets, args.presence, _check_data(words, trainer))
    weights = _pretrained_weights(words)
    announce_trainers()
    trainer_type = trainer_class(trainer)
    words = device_words(words) + words
    _check_processes(words, trainer_type, args.seed)

    from nnunetv2.run.run_training import run_training_entry

    from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer
    from nnunetv2_d2net.plugin.training.pretrained import starting_from
    from nnunetv2_d2net.plugin.training.seeds import seed_training

    _check_loaded(words, safely=issubclass(trainer_type, ModalityDroppingTrainer))
    if issubclass(trainer_type, ModalityDroppingTrainer):
        words = without(words, _PRETRAINED)
    else:
        weights = None  # nnU-Net loads them itself, and never with --c
        words = [word for word in words if word != "--c" or not value_of(words, _PRETRAINED)]
        if subsets:
            raise UserError(f"{trainer} sees all modalities: leave {_SUBSETS} and {_PRESENCE} out, or pass another -tr")
    seed_training(args.seed)
    with starting_from(weights), drawing_from(subsets), _one_training(words):
        try:
            return call_entry_point(run_training_entry, "train", words)
        except AssertionError as error:  # what nnU-Net's own trainers say about weights that do not fit
            if "pretrained model" not in str(error):
                raise
            raise UserError(
                f"{_PRETRAINED} {value_of(words, _PRETRAINED)} does not fit {trainer} on these plans: "
                "pass a checkpoint that was trained on plans with the same network"
            ) from error


def all_words(extra: Sequence[str], start: str | None) -> list[str]:
    """Return what nnU-Net is told: data set, configuration and fold by their places, and which trainer and plans.

    Args:
        extra: The words that are nnU-Net's.
        start: What ``--start_from`` names.

    Raises:
        UserError: There is nothing to start from.
        UsageError: Two of the words exclude each other.
    """
    if "--c" in extra and (values_of(extra, _PRETRAINED) is not None or "--val" in extra):
        other = "--val only validates" if "--val" in extra else f"{_PRETRAINED} starts"
        raise UsageError(f"{other} a training and --c goes on with one: leave one of them out")
    return ["-tr", "D2NetTrainer", "-p", "D2NetPlans", *_with_start(in_nnunets_order(extra), start)]


@contextmanager
def _one_training(words: Sequence[str]) -> Iterator[None]:
    """Let one training at a time write a fold, and tell what goes wrong in the processes that nnU-Net starts for it.

    Of the processes that torchrun has started, the first one writes.
    """
    if not is_one_of_several():
        with locked_folder(_fold_folder(words)), errors_of_processes():
            yield
        return
    lock = locked_folder(_fold_folder(words)) if os.environ["RANK"] == "0" else nullcontext()
    with lock, process_group(value_of(words, "-device", "cuda")):
        yield


def _fold_folder(words: Sequence[str]) -> Path:
    """Return the folder into which a training of these words writes, below nnUNet_results."""
    dataset, configuration, fold = _positionals(words)
    data = dataset_folder(dataset, "nnUNet_preprocessed", _plan(dataset))
    model = SEPARATOR.join((value_of(words, "-tr"), value_of(words, "-p"), configuration))
    return folder_of("nnUNet_results") / data.name / model / f"fold_{fold}"


def _with_start(others: Sequence[str], start: str | None) -> list[str]:
    """Return the words that train from what ``--start_from`` names, a companion if it is a stock nnU-Net."""
    if start is None:
        return list(others)
    if value_of(others, _PRETRAINED):
        raise UsageError(f"{_START} and {_PRETRAINED} both name weights to start from: leave one of them out")
    if start == _PHANTOM:
        return _from([*_FINE_TUNING, *others], shipped_checkpoint())
    trainer = companion_of(value_of(others, "-tr", STUDENT))
    dataset, configuration, fold = _positionals(others)
    folder = folder_of("nnUNet_results") / dataset_folder(dataset, "nnUNet_preprocessed", _plan(dataset)).name
    model, plans = find_stock(folder, start, configuration, value_of(others, "-p"))
    if not value_of(others, "-tr") and {"--c", "--val"} & set(others):
        check_begun(folder, trainer, f"{plans}{SEPARATOR}{configuration}", fold)
    words = [*without(without(others, "-tr"), "-p"), "-tr", trainer, "-p", plans]
    return _from(words, start_checkpoint(model, fold))


def _from(words: Sequence[str], checkpoint: Path) -> list[str]:
    """Return the words of a training that starts from a checkpoint; one that goes on has weights of its own.

    With ``--c``, nnU-Net begins where nothing has been kept yet: from the checkpoint, then, and with the same subsets.
    """
    if "--val" in words:
        return list(words)
    if "--c" in words:
        folder = _fold_folder(words)
        if any((folder / f"checkpoint_{name}.pth").is_file() for name in _KEPT):
            return list(words)
        _LOG.warning("%s has no checkpoint to go on with: training starts from %s", folder, checkpoint)
    return [*words, _PRETRAINED, str(checkpoint)]


def _pretrained_weights(words: Sequence[str]) -> Path | None:
    """Return the checkpoint to start from, which holds weights and nothing that would run; None where none is used."""
    if values_of(words, _PRETRAINED) is None:
        return None
    weights = Path(value_of(words, _PRETRAINED))
    if not weights.is_file():
        example = "fold_0/checkpoint_final.pth"
        raise UserError(f"{weights} does not exist: {_PRETRAINED} takes a checkpoint such as {example}")

    from nnunetv2_d2net.plugin.checkpoints import check_finite, read_checkpoint

    check_finite(weights, read_checkpoint(weights)["network_weights"])
    return None if "--val" in words else weights


def _check_loaded(words: Sequence[str], *, safely: bool) -> None:
    """Refuse a training that is not there to be validated, and code in a checkpoint, to which a safe trainer sees."""
    from nnunetv2_d2net.plugin.checkpoints import read_checkpoint

    kept = [_fold_folder(words) / f"checkpoint_{name}.pth" for name in _KEPT]
    there = [path for path in kept if path.is_file()]
    loaded = there[:1] if "--c" in words else kept[:1] if "--val" in words else []
    for path in (*loaded, *(kept[-1:] if loaded and "--val_best" in words else ())):
        if "--val" in words and path not in there:
            raise UserError(f"{path} does not exist, so there is nothing to validate: train this fold to its end first")
        if path in there and not safely:
            read_checkpoint(path)  # nnU-Net unpickles it


def _positionals(words: Sequence[str]) -> tuple[str, str, str]:
    try:
        dataset, configuration, fold = positionals(words)
    except ValueError as error:
        raise UsageError("give data set, configuration and fold: d2net train 7 3d_fullres 0") from error
    check_folds([fold])
    return dataset, configuration, fold


def _plan(dataset: str, plans: str = "") -> str:
    """Say how data get plans of that name: our planners write those of their own, ours without a name any other."""
    planner = {"nnUNetPlans": "ExperimentPlanner", **{f"D2Net{kind}Plans": f"D2Net{kind}Planner" for kind in _KINDS}}
    more = f" -pl {planner[plans]}" if plans in planner else f" -overwrite_plans_name {plans}"
    return f"run d2net plan_and_preprocess -d {dataset}{'' if plans in ('', 'D2NetPlans') else more}"


def _check_data(words: Sequence[str], trainer: str) -> tuple[str, ...]:
    """Refuse data that cannot be trained on; return the names of the modalities."""
    dataset, configuration, fold = _positionals(words)
    folder_of("nnUNet_results")
    plans = value_of(words, "-p")
    plan = _plan(dataset, plans)
    folder = dataset_folder(dataset, "nnUNet_preprocessed", plan)
    others = ", ".join(sorted(path.stem for path in folder.glob("*Plans*.json") if "." not in path.stem))
    remedy = f"{plan}, or pass other plans with -p (there: {others})" if others else plan
    data = preprocessed_folder(folder / f"{plans}.json", configuration, remedy)
    command = f"run d2net preprocess -d {dataset_number(folder.name)} -plans_name {plans} -c {configuration}"
    if not data.is_dir():
        raise UserError(f"{data} does not exist, so {configuration} is planned but not preprocessed: {command}")
    data_set = Dataset.read(folder / "dataset.json")
    if trainer.startswith("D2NetTrainer"):
        check_modalities(data_set.channels, folder / "dataset.json", "train nnUNetTrainer instead, with -tr")

    from nnunetv2_d2net.plugin.preprocessing.cohort import check_preprocessed
    from nnunetv2_d2net.plugin.preprocessing.training_cases import check_unchanged
    from nnunetv2_d2net.plugin.training.same_plans import check_other_folds
    from nnunetv2_d2net.plugin.training.splits import check_fold

    if "--val" not in words:
        of_now = read_plans(folder / f"{plans}.json")
        of_now.pop(ORIENTATION, None)  # of the data that the plans were made for
        check_other_folds(_fold_folder(words), of_now, data_set.content)
    check_fold(folder / "splits_final.json", fold, check_preprocessed(data, data_set.channels, command))
    if os.environ.get("nnUNet_raw") and not {"--c", "--val"} & set(words):
        check_unchanged(data, folder_of("nnUNet_raw") / folder.name, command)
    return data_set.channels


def _check_processes(words: Sequence[str], trainer: type, seed: int | None) -> None:
    device, n_gpus = value_of(words, "-device", "cuda"), value_of(words, "-num_gpus", "1")
    if seed is not None and n_gpus != "1":
        raise UsageError(f"--seed does not reach the processes of -num_gpus {n_gpus}: start them with torchrun instead")
    if not is_one_of_several():
        if n_gpus != "1" and device != "cuda":
            raise UsageError(
                f"-num_gpus {n_gpus} needs CUDA devices, this is {device}: leave it out, or start with torchrun"
            )
        return
    if n_gpus != "1":
        raise UsageError(f"-num_gpus {n_gpus}: torchrun has started the processes already, leave it out")
    if device not in ("cuda", "cpu"):
        raise UsageError(f"-device {device}: torchrun trains on cuda or cpu")

    from nnunetv2_d2net.plugin.training.distributed import DistributedTrainer

    if not issubclass(trainer, DistributedTrainer):
        raise UserError(
            f"{trainer.__name__} takes the number of a process for that of its GPU, which is wrong with torchrun: "
            "train it with -num_gpus on one machine, or a trainer of this package such as nnUNetTrainerModalityDropout"
        )
