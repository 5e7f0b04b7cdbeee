"""``d2net benchmark``."""

import argparse
import sys

from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.cli._benchmarks import add_shared_arguments, setup_of
from nnunetv2_d2net.cli._words import add_dataset, add_former

HELP = (
    "Train several trainers on the same plans, predict every subset of the modalities, and compare. What is there is "
    "not done again: after a stop, the same command goes on."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_dataset(parser)
    parser.add_argument("-c", dest="configuration", metavar="CONFIG", help="such as 3d_fullres")
    add_former(parser, "dataset", "-d", metavar="ID")
    add_former(parser, "configuration", "-c", metavar="CONFIG")
    parser.add_argument(
        "--arms",
        nargs="+",
        metavar="TRAINER",
        help="(nnUNetTrainer nnUNetTrainerModalityDropout D2NetTrainer; with --start_from that trainer, its "
        "companions with the default student and with D2NetTrainer, and modality dropout by AdamW and stock nnU-Net of "
        "as many steps in all)",
    )
    parser.add_argument(
        "--start_from",
        action="append",
        default=[],
        metavar="STOCK",
        help="what companions start from: one of the arms, another trained trainer, a model's folder or a checkpoint "
        "(the stock arm of their length, or the only stock arm); COMPANION=STOCK for one of them; may be repeated",
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
    parser.add_argument("--job", metavar="NAME", help="do one job: ARM/FOLD, or what --print_jobs names")
    parser.add_argument("--no_cost", action="store_true", help="do not measure steps, memory and operations")
    add_shared_arguments(parser, "benchmark", plans="D2NetPlans", folds="all with a test set, else 0 1 2 3 4")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Check everything that can be wrong before the first training, then run, or print, what is missing.

    Raises:
        UserError: A variable, data set, trainer, reference or fold is missing; or a job failed.
    """
    if not (args.dataset and args.configuration):
        raise UsageError("missing -d or -c: d2net benchmark -d ID -c CONFIG")
    setup = setup_of(args)

    from nnunetv2_d2net.study.benchmark.jobs import job_list
    from nnunetv2_d2net.study.benchmark.one_job import run_job
    from nnunetv2_d2net.study.benchmark.run import run_benchmark

    if args.print_jobs:
        sys.stdout.write(job_list(setup, cost=not args.no_cost))
    elif args.job:
        run_job(setup, args.job, args.parent)
    else:
        worked = run_benchmark(setup, n_jobs=args.jobs, cost=not args.no_cost, progress=True)
        sys.stdout.write((setup.out / "report.md").read_text(encoding="utf-8"))
        sys.stdout.write(f"\n{'written to' if worked else 'nothing to do, all of it is in'} {args.out or setup.out}\n")
    return 0
