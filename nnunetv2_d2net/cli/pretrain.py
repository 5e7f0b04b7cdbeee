"""d2net pretrain."""

import argparse
import sys
from pathlib import Path

from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.cli._nnunet import device_words
from nnunetv2_d2net.cli._words import add_former, add_processes, check_processes

HELP = (
    "Simulate patients with gliomas, train on them, and write a model that segments real ones, all below one folder; "
    "the same command goes on where it was stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-o", dest="out", type=Path, metavar="FOLDER", help="for everything")
    add_former(parser, "--out", "-o", dest="out", type=Path)
    parser.add_argument("--cases", type=int, default=300, help="simulated patients (300)")
    parser.add_argument("--epochs", type=int, default=20, help="length, in 250 steps: 20, 50, 100 ... (20)")
    parser.add_argument("--seed", type=int, default=0, help="of patients and training (0)")
    words = "draw these subsets only in training, such as FLAIR+T1ce=3 all (every one alike, a quarter complete)"
    parser.add_argument("--subsets", nargs="+", metavar="SUBSET[=WEIGHT]", help=words)
    add_processes(parser, "patients at a time")
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda", "mps"), help="where to train (cpu)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Pretrain.

    Raises:
        UserError: Something cannot be written, an argument makes no sense, or there is no CUDA device.
    """
    check_processes(args.processes)
    if args.out is None:
        raise UsageError("no folder is given: d2net pretrain -o FOLDER")
    device_words(["-device", args.device])

    import torch

    from nnunetv2_d2net.base.modality_names import MODALITIES
    from nnunetv2_d2net.plugin.protocols import drawing_from, read_protocols
    from nnunetv2_d2net.study.pretrain import Pretraining, run_pretraining

    settings = Pretraining(args.cases, args.epochs, args.seed)
    device, processes = torch.device(args.device), args.processes
    with drawing_from(read_protocols(args.subsets, None, MODALITIES)):
        archive = run_pretraining(args.out, settings, device, processes=processes, progress=True)
    sys.stdout.write(f"written: {archive}\n")
    return 0
