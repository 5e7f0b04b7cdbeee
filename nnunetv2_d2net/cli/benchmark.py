"""``d2net benchmark``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_d2net.base.dataset import Dataset, folder_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli._checks import check_folds, dataset_folder
from nnunetv2_d2net.cli._nnunet import device_words
from nnunetv2_d2net.cli._words import refuse_extra
from nnunetv2_d2net.plugin.planning.plans import check_modalities
from nnunetv2_d2net.plugin.protocols import read_protocols
from nnunetv2_d2net.plugin.start import find_stock

if TYPE_CHECKING:
    from nnunetv2_d2net.study.benchmark.setup import Setup

HELP = (
    "Train several trainers on the same plans, predict every subset of the modalities, and compare. What is there is "
    "not done again: after a stop, the same command goes on."
)
_LOG = logging.getLogger("nnunetv2_d2net")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set, such as 7 or Dataset007_Name")
    parser.add_argument("configuration", metavar="CONFIG", help="such as 3d_fullres")
    parser.add_argument("-p", dest="plans", default="D2NetPlans", metavar="PLANS", help="of all arms (D2NetPlans)")
    parser.add_argument(
        "--arms",
        nargs="+",
        metavar="TRAINER",
        help="(nnUNetTrainer nnUNetTrainerModalityDropout D2NetTrainer; with --start_from that trainer, both "
        "companions, and modality dropout and stock nnU-Net of as many steps in all)",
    )
    parser.add_argument(
        "--start_from",
        default="",
        metavar="STOCK",
        help="what companions start from: one of the arms, another trained trainer, a model's folder or a checkpoint "
        "(the stock arm of their length, or the only stock arm)",
    )
    parser.add_argument(
        "--subsets",
        nargs="+",
        metavar="SUBSET[=WEIGHT]",
        help="train, predict and compare with these subsets only, such as FLAIR+T1 T2=2 all (all subsets)",
    )
    parser.add_argument(
        "--presence",
        nargs="+",
        metavar="MODALITY=PROBABILITY",
        help="the same for what occurs where each modality is there with a probability of its own, such as T1ce=0.4",
    )
    parser.add_argument(
        "-f", dest="folds", nargs="+", metavar="FOLD", help="folds to train (all with a test set, else 0 1 2 3 4)"
    )
    parser.add_argument(
        "--cases",
        choices=("test", "folds"),
        help="predict imagesTs, or each fold's validation cases (test where there is labelsTs)",
    )
    parser.add_argument("-o", dest="out", type=Path, metavar="FOLDER", help="(./d2net_benchmark_DatasetXXX_CONFIG)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at the same time (1)")
    parser.add_argument("--print_jobs", action="store_true", help="print one command per arm and fold, for a cluster")
    parser.add_argument("--job", metavar="NAME", help="do one job: ARM/FOLD, or what --print_jobs names")
    parser.add_argument("--disable_tta", action="store_true", help="predict without mirroring, several times faster")
    zero = "take NaN outside an image's field of view, where it was resliced, as 0 when predicting"
    parser.add_argument("--nan_outside_as_zero", action="store_true", help=zero)
    parser.add_argument("--no_cost", action="store_true", help="do not measure steps, memory and operations")
    parser.add_argument("-device", choices=("cpu", "cuda"), help="(cuda where there is one)")
    parser.add_argument("-np", dest="processes", type=int, default=2, metavar="N", help="to prepare and evaluate (2)")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Check everything that can be wrong before the first training, then run, or print, what is missing.

    Raises:
        UserError: A variable, data set, trainer, reference or fold is missing; or a job failed.
    """
    refuse_extra(extra)
    if args.jobs < 1 or args.processes < 1:
        raise UserError("--jobs and -np take a number from 1")
    setup = _setup(args)

    from nnunetv2_d2net.study.benchmark.jobs import job_list
    from nnunetv2_d2net.study.benchmark.one_job import run_job
    from nnunetv2_d2net.study.benchmark.run import run_benchmark

    if args.print_jobs:
        sys.stdout.write(job_list(setup))
    elif args.job:
        run_job(setup, args.job, args.parent)
    else:
        worked = run_benchmark(setup, n_jobs=args.jobs, cost=not args.no_cost, progress=True)
        sys.stdout.write((setup.out / "report.md").read_text(encoding="utf-8"))
        sys.stdout.write(f"\n{'written to' if worked else 'nothing to do, all of it is in'} {args.out or setup.out}\n")
    return 0


def _setup(args: argparse.Namespace) -> "Setup":
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
    chosen = default_arms(args.start_from)
    if args.arms is None and chosen.problem:
        _LOG.info(chosen.problem)
    arms = tuple(args.arms or chosen.names)
    check_arms(arms, args.start_from)
    out = args.out or Path(f"d2net_benchmark_{raw.name.partition('_')[0]}_{args.configuration}")
    return Setup(
        dataset,
        raw.resolve(),
        preprocessed / raw.name,
        results / raw.name,
        out.resolve(),
        args.configuration,
        args.plans,
        arms,
        folds,
        cases,
        _device(args.device),
        mirroring=not args.disable_tta,
        processes=args.processes,
        nan_outside_as_zero=args.nan_outside_as_zero,
        start_from=_start(args, arms, results / raw.name),
        subsets=read_protocols(args.subsets, args.presence, dataset.channels),
    )


def _start(args: argparse.Namespace, arms: Sequence[str], results: Path) -> str:
    """Return an arm's name as it is, and anything else as the path of what is there."""
    if not args.start_from or args.start_from in arms:
        return args.start_from
    return str(find_stock(results, args.start_from, args.configuration, args.plans)[0])


def _device(wanted: str | None) -> str:
    words = device_words(["-device", wanted] if wanted else [])
    return words[-1] if words else wanted or "cuda"
