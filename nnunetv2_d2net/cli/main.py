"""Finds the subcommand and imports only that, so that ``d2net --help`` needs neither torch nor nnU-Net.

A subcommand is a module of this package with ``HELP``, ``add_arguments(parser)`` and ``run(args, extra) -> int``;
``extra`` holds the words that its parser does not know, which are nnU-Net's.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UsageError, UserError

COMMANDS = {
    "segment": "segment one patient from FLAIR, T1, T1ce, T2 or any of them: files, a folder or DICOM, on a CPU",
    "pretrain": "a model for real patients from simulated ones alone: hours on 2 CPU cores",
    "demo": "everything below, once, on phantom data: about 10 minutes on 2 CPU cores",
    "phantom": "write a data set of simulated brain MRI with gliomas",
    "convert": "turn BraTS folders, or your own, into a raw data set of nnU-Net; cases may lack modalities",
    "convert_back": "give predictions the label values of the folders that were converted",
    "inspect": "look at a raw data set: who has which modality, volumes, intensities, cases that look wrong",
    "plan_and_preprocess": "plan for D2-Net's memory and preprocess: nnUNetv2_plan_and_preprocess with our planner",
    "extract_fingerprint": "the first of its steps alone: check every training case and describe the cohort",
    "plan": "the second step alone",
    "preprocess": "the third step alone: with plans that are there, also edited ones or those of another data set",
    "train": "train D2-Net: nnUNetv2_train with our trainer and plans",
    "predict": "predict with any subset of the modalities: nnUNetv2_predict, and --modalities, --drop, --all_subsets",
    "export": "write a trained model for prediction alone",
    "evaluate": "score predictions: Dice, HD95, ASSD and surface Dice by subset and region",
    "benchmark": "train several trainers alike, predict every subset, and compare",
    "report": "make one HTML page of a benchmark, with cases to look at",
    "repeats": "compare benchmarks that were trained anew: what is more than chance",
    "study": "measure a table of the paper, row by row, beside what is printed; or list the rows",
    "figures": "draw the paper's figures of a trained model: patterns of absence, codes and tumor features",
    "trainers": "print the folder for nnUNet_extTrainer",
    "register": "let nnUNetv2_* commands find our trainers and planners with no variable set",
    "unregister": "take 'd2net register' back",
}


_GO_ON = {
    "train": "run it again with --c to go on from the last checkpoint",
    "predict": "run it again with --continue_prediction to go on",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``d2net`` command.

    Args:
        argv: The words after ``d2net``; None for those of this process.

    Returns:
        The exit status: 1 after an error that the user can mend, 2 where the words make no sense and 130 after Ctrl-C,
        which are told in one line on stderr (with the traceback where ``D2NET_DEBUG=1`` is set).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Read when torch is imported. Threads that spin while they wait slow a training on a shared CPU several times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logger, handler = logging.getLogger("nnunetv2_d2net"), _OnStderr()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        args, extra = _parse(words)
        return args.run(args, extra)
    except (UserError, KeyboardInterrupt) as error:
        if os.environ.get("D2NET_DEBUG") == "1":
            raise
        if isinstance(error, UserError):
            sys.stderr.write(f"d2net: error: {error}\n")
            return 2 if isinstance(error, UsageError) else 1
        go_on = _GO_ON.get(words[0], "run the same command to go on")
        sys.stderr.write(f"d2net: stopped; what is done is kept: {go_on}\n")
        return 130
    finally:
        logger.removeHandler(handler)


class _OnStderr(logging.Handler):
    """Shows what the package logs, in lines that begin with ``d2net:``."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error: " if record.levelno >= logging.ERROR else ""
        sys.stderr.write(f"d2net: {level}{record.getMessage()}\n")


def _parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="d2net",
        description="D2-Net for nnU-Net v2: one model for every subset of modalities. Research use only.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nnunetv2_d2net {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, allow_abbrev=False)
        if words[:1] == [name]:
            command = import_module(f"nnunetv2_d2net.cli.{name}")
            subparser.description = command.HELP
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    args, extra = parser.parse_known_args(words)
    if not hasattr(args, "run"):
        parser.error(f"unknown argument {words[0]}: the command comes first")
    return args, extra


if __name__ == "__main__":
    sys.exit(main())
