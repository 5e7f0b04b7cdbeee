"""``d2net predict``."""

import argparse
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UsageError, UserError
from nnunetv2_d2net.base.files import locked_folder, make_folder
from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.cli._checks import check_folds, dataset_folder
from nnunetv2_d2net.cli._nnunet import call_entry_point, device_words
from nnunetv2_d2net.cli._words import value_of, values_of
from nnunetv2_d2net.plugin.planning.plans import MISSING_IN_MODEL, check_networks
from nnunetv2_d2net.plugin.protocols import flags_of, read_protocols
from nnunetv2_d2net.plugin.seams import predictor_seam

HELP = (
    "Predict with all modalities or as if some did not exist: nnUNetv2_predict with -tr D2NetTrainer and "
    "-p D2NetPlans unless you name others. Works with the networks of other trainers, too."
)

_OURS = ("-tr", "D2NetTrainer", "-p", "D2NetPlans")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what nnU-Net does not have."""
    usage = (
        "d2net predict -i FOLDER -o FOLDER -d ID -c CONFIGURATION [-f FOLD ...] "
        "[--modalities NAME ... | --drop NAME ...] [--all_subsets [--subsets SUBSET ...]] [--agreement] "
        "[nnU-Net's arguments ...]"
    )
    parser.usage = usage
    choice = parser.add_mutually_exclusive_group()
    names = "named as in dataset.json's channel_names, in any case; as if the other files did not exist"
    choice.add_argument("--modalities", nargs="+", metavar="NAME", help=f"use these modalities only, {names}")
    choice.add_argument("--drop", nargs="+", metavar="NAME", help="use all modalities but these, named likewise")
    parser.add_argument(
        "--all_subsets", action="store_true", help="predict with every subset of the modalities, one folder for each"
    )
    parser.add_argument(
        "--subsets",
        nargs="+",
        metavar="SUBSET",
        help="with --all_subsets: predict with these subsets only, such as FLAIR+T1 or all",
    )
    parser.add_argument(
        "--agreement",
        action="store_true",
        help="compare each segmentation with those without one of its modalities, of single folds and without "
        "mirroring, and say what it hangs on most; with K modalities the network runs up to K + 1 times as long",
    )
    parser.add_argument(
        "--nan_outside_as_zero",
        action="store_true",
        help="take NaN outside an image's field of view, where it was resliced, as 0; without, such a case is refused",
    )
    parser.add_argument(
        "--subsets_per_pass",
        type=int,
        default=4,
        metavar="N",
        help="with --all_subsets: subsets that go through the network together; fewer need less memory (default: 4)",
    )


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Check model and modalities, then let nnU-Net predict with our predictor in the place of its own.

    Raises:
        UserError: A variable, the input, the model or a fold of it is missing, the checkpoint is another trainer's, or
            the modalities are not those of the model.
    """
    if args.subsets_per_pass < 1:
        raise UsageError(f"--subsets_per_pass {args.subsets_per_pass}: choose at least 1")
    if args.subsets and not args.all_subsets:
        raise UsageError(
            "--subsets says which folders --all_subsets writes: add it, or name one subset by --modalities"
        )
    words = [*_OURS, *extra]
    output = _check_words(words)
    model = model_folder(words)
    dataset = Dataset.read(model / "dataset.json", MISSING_IN_MODEL)
    available = dataset.available(args.modalities, args.drop)
    only = flags_of(read_protocols(args.subsets, None, dataset.channels), dataset.channels)
    check_networks(model / "plans.json")
    part = _part(words)
    for checkpoint in _checkpoints(model, words):
        _check_trainer_of(checkpoint, value_of(words, "-tr"))

    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
    from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor

    make_folder(output)
    # nnU-Net builds the predictor itself, from arguments of its own, so the flags travel with the class.
    base = AllSubsetsPredictor if args.all_subsets else D2NetPredictor
    settings = {"allowed": available, "part": part, "subsets_per_pass": args.subsets_per_pass}
    settings |= ({"only": only} if only else {}) | {
        "nan_outside_as_zero": args.nan_outside_as_zero,
        "agreement": args.agreement,
    }
    predictor = type(base.__name__, (base,), settings)
    with locked_folder(output, f"part_{part[0]}_of_{part[1]}" if part[1] > 1 else ""), predictor_seam(predictor):
        call_entry_point(predict_entry_point, "predict", device_words(words) + words)
    _tell_count(output)
    return 0


def _tell_count(output: Path) -> None:
    from nnunetv2_d2net.plugin.prediction.writing import NOTE

    files = [path.name for pattern in ("*", "*/*") for path in output.glob(f"{pattern}{NOTE}")]
    n_files, n_cases = counted(len(files), "segmentation"), counted(len(set(files)), "case")
    logging.getLogger("nnunetv2_d2net").info("%s: %s of %s", output, n_files, n_cases)


def model_folder(words: Sequence[str]) -> Path:
    """Return the folder of the model that predicts.

    Raises:
        UserError: It is not there.
    """
    words = [*_OURS, *words]
    dataset, configuration = value_of(words, "-d"), value_of(words, "-c")
    remedy = f"train first: d2net train {dataset} {configuration} 0"
    results = dataset_folder(dataset, "nnUNet_results", remedy)
    model = results / f"{value_of(words, '-tr')}__{value_of(words, '-p')}__{configuration}"
    if not model.is_dir():
        others = ", ".join(sorted(path.name for path in results.glob("*__*__*") if path.is_dir())) or "none"
        raise UserError(
            f"{model} does not exist: pass -tr, -p and -c of a trained model (there: {others}), or {remedy}"
        )
    return model


def _checkpoints(model: Path, words: Sequence[str]) -> list[Path]:
    name = value_of(words, "-chk", "checkpoint_final.pth")
    folds = values_of(words, "-f") or ["0", "1", "2", "3", "4"]  # nnU-Net's default
    check_folds(folds)
    for fold in folds:
        if not (model / f"fold_{fold}" / name).is_file():
            trained = sorted(path.parent.name.removeprefix("fold_") for path in model.glob(f"fold_*/{name}"))
            remedy = (
                f"pass the trained folds, -f {' '.join(trained)}" if trained else "finish the training, or pass -chk"
            )
            if (model / f"fold_{fold}" / f"{name}.pth").is_file():
                remedy = f"pass -chk {name}.pth"
            raise UserError(f"{model / f'fold_{fold}' / name} does not exist: {remedy}")
    return [model / f"fold_{fold}" / name for fold in folds]


def _check_words(words: Sequence[str]) -> Path:
    """Refuse what nnU-Net, or a pool of threads, would stumble over once the model is loaded; return the output."""
    missing = [flag for flag in ("-i", "-o", "-d", "-c") if not value_of(words, flag)]
    if missing:
        raise UsageError(f"missing {' '.join(missing)}: d2net predict -i FOLDER -o FOLDER -d ID -c CONFIGURATION")
    images, output = Path(value_of(words, "-i")), Path(value_of(words, "-o"))
    if not images.is_dir():
        raise UserError(f"{images} is no folder: -i takes the folder of the images")
    if images.resolve() == output.resolve():
        raise UserError(f"{output} holds the images, for which segmentations would be taken, too: pass another -o")
    step, fits = value_of(words, "-step_size", "0.5"), False
    with suppress(ValueError):
        fits = 0 < float(step) <= 1
    if not fits:
        raise UsageError(f"-step_size {step} is no share of a tile: choose a number above 0, at most 1")
    for flag in ("-npp", "-nps"):
        if not (number := value_of(words, flag, "3")).isdecimal():
            raise UsageError(f"{flag} {number}: choose 0 or more processes")
    return output


def _part(words: Sequence[str]) -> tuple[int, int]:
    """Return which part of the cases to predict, and of how many."""
    part_id, num_parts = (value_of(words, flag, default) for flag, default in (("-part_id", "0"), ("-num_parts", "1")))
    if not (part_id.isdecimal() and num_parts.isdecimal() and int(part_id) < int(num_parts)):
        raise UsageError(f"-part_id {part_id} is no part of -num_parts {num_parts}: parts are numbered from 0")
    return int(part_id), int(num_parts)


def _check_trainer_of(checkpoint: Path, wanted: str) -> None:
    from nnunetv2_d2net.plugin.checkpoints import read_checkpoint

    trainer = read_checkpoint(checkpoint)["trainer_name"]
    if trainer != wanted:
        name = checkpoint.parents[1].name.replace(wanted, trainer, 1)
        raise UserError(
            f"{checkpoint} is {trainer}'s, not {wanted}'s: rename its folder to {name} and pass -tr {trainer}"
        )
