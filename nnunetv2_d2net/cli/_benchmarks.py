"""What the commands share that train several trainers alike: what they are told, and what a benchmark makes of it."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_d2net.base.dataset import Dataset, folder_of
from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.cli._checks import check_folds, dataset_folder
from nnunetv2_d2net.cli._nnunet import device_words
from nnunetv2_d2net.cli._words import add_seed
from nnunetv2_d2net.plugin.planning.plans import check_modalities
from nnunetv2_d2net.plugin.protocols import read_protocols
from nnunetv2_d2net.plugin.start import find_stock, is_companion

if TYPE_CHECKING:
    from nnunetv2_d2net.study.benchmark.setup import Setup

_LOG = logging.getLogger("nnunetv2_d2net")


def add_shared_arguments(
    parser: argparse.ArgumentParser, kind: str, *, plans: str, folds: str, cases: str = ""
) -> None:
    """Declare how arms are trained and predicted.

    Args:
        parser: Of the command.
        kind: ``benchmark`` or ``study``; the folder is named after it.
        plans: Of all arms, unless others are named.
        folds: Which ones are trained then, in words.
        cases: Which ones are predicted then; empty for test cases where there are any.
    """
    add = parser.add_argument
    add("-p", dest="plans", default=plans, metavar="PLANS", help="of all arms (%(default)s)")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help=f"folds to train ({folds})")
    add(
        "--cases",
        choices=("test", "folds"),
        default=cases or None,
        help=f"predict imagesTs, or each fold's validation cases ({cases or 'test where there is labelsTs'})",
    )
    add("-o", dest="out", type=Path, metavar="FOLDER", help=f"(./d2net_{kind}_DatasetXXX_CONFIG)")
    add("--jobs", type=int, default=1, metavar="N", help="trainings at the same time (1)")
    add("--print_jobs", action="store_true", help="print one command per arm and fold, for a cluster")
    add("--disable_tta", action="store_true", help="predict without mirroring, several times faster")
    zero = "take NaN outside an image's field of view, where it was resliced, as 0 when predicting"
    add("--nan_outside_as_zero", action="store_true", help=zero)
    add_seed(parser)
    add("-device", choices=("cpu", "cuda"), help="(cuda where there is one)")
    add("-np", dest="processes", type=int, default=2, metavar="N", help="to prepare and evaluate (2)")
    parser.set_defaults(kind=kind)


def setup_of(args: argparse.Namespace) -> "Setup":
    """Check everything that can be wrong before the first training.

    Raises:
        UserError: A variable, data set, trainer, reference or fold is missing, or a number is too small.
    """
    if args.jobs < 1 or args.processes < 1:
        raise UsageError("--jobs and -np take a number from 1")
    raw = dataset_folder(args.dataset, "nnUNet_raw", "put the raw data set there")
    dataset = Dataset.read(raw / "dataset.json")
    check_modalities(dataset.channels, raw / "dataset.json", "there is nothing that could be missing")
    check_folds(args.folds or ())

    from nnunetv2_d2net.plugin.registration import announce_trainers
    from nnunetv2_d2net.study.benchmark.arms import default_arms
    from nnunetv2_d2net.study.benchmark.setup import Setup, check_arms, choose_cases, choose_folds

    cases = choose_cases(raw, args.cases)
    folds = choose_folds(args.folds, cases)
    preprocessed, results = (folder_of(f"nnUNet_{kind}").resolve() for kind in ("preprocessed", "results"))
    announce_trainers()
    start, starts = _starts(args.start_from)
    chosen = default_arms(start)
    if args.arms is None and chosen.problem:
        _LOG.info(chosen.problem)
    arms = tuple(args.arms or chosen.names)
    check_arms(arms, [*filter(None, [start]), *starts.values()], [*starts])
    here = results / raw.name
    return Setup(
        dataset,
        raw.resolve(),
        preprocessed / raw.name,
        here,
        folder_for(args, raw).resolve(),
        args.configuration,
        args.plans,
        arms,
        folds,
        cases,
        _device(args.device),
        mirroring=not args.disable_tta,
        seed=args.seed,
        processes=args.processes,
        nan_outside_as_zero=args.nan_outside_as_zero,
        start_from=_found(start, args, arms, here),
        starts={arm: _found(of_arm, args, arms, here) for arm, of_arm in starts.items()},
        subsets=read_protocols(args.subsets, args.presence, dataset.channels),
    )


def folder_for(args: argparse.Namespace, raw: Path) -> Path:
    """Return the folder of the results: that of ``-o``, or one that is named after the data set's folder ``raw``."""
    return args.out or Path(f"d2net_{args.kind}_{raw.name.partition('_')[0]}_{args.configuration}")


def _starts(words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return what all companions start from, empty if nothing is said of all, and what single ones do."""
    starts: dict[str, str] = {}
    for word in words:
        arm, _, start = word.partition("=")
        arm, start = (arm, start) if start and "/" not in arm and is_companion(arm) else ("", word)
        if arm in starts:
            remedy = f"name one for {arm}" if arm else f"name one for all companions, others as COMPANION={start}"
            raise UsageError(f"--start_from {word}: {remedy}")
        starts[arm] = start
    return starts.pop("", ""), starts


def _found(start: str, args: argparse.Namespace, arms: Sequence[str], results: Path) -> str:
    """Return an arm's name as it is, and anything else as the path of what is there."""
    if not start or start in arms:
        return start
    return str(find_stock(results, start, args.configuration, args.plans)[0])


def _device(wanted: str | None) -> str:
    words = device_words(["-device", wanted] if wanted else [])
    return words[-1] if words else wanted or "cuda"
