"""Finds the subcommand and imports only that, so that ``d2net --help`` needs neither torch nor nnU-Net.

A subcommand is a module of this package with ``HELP``, ``add_arguments(parser)`` and ``run(args, extra) -> int``;
``extra`` holds the words that its parser does not know, which are nnU-Net's or a model's.
"""

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UsageError, UserError
from nnunetv2_d2net.cli._commands import COMMANDS
from nnunetv2_d2net.cli._help import HelpFormatter, epilog_of, overview, page_named
from nnunetv2_d2net.cli._next import tell_next_step
from nnunetv2_d2net.cli._nnunet_arguments import ARGUMENTS
from nnunetv2_d2net.cli._words import guess

_GO_ON = {
    "train": "run it again with --c to go on from the last checkpoint, if there is one",
    "predict": "run it again with --continue_prediction to go on",
}
_TAKES_OTHER_WORDS = ("segment",)  # whose options are called like the model's sequences
_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``d2net`` command.

    Args:
        argv: The words after ``d2net``; None for those of this process.

    Returns:
        The exit status: 1 after an error that the user can mend, 2 where the words make no sense, which prints the
        usage, too, and 130 after Ctrl-C; told in one line on stderr (with the traceback under ``-v``).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Read when torch is imported. Threads that spin while they wait slow a training on a shared CPU several times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # nnU-Net's bars would leave each step; ours leave a line
    # torch 2.14 says this of itself whenever it is imported
    warnings.filterwarnings("ignore", "`torch.jit.interface` is deprecated", FutureWarning)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII only
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return _BROKEN_PIPE
    return status


def _run(words: Sequence[str]) -> int:
    logger, handler = logging.getLogger("nnunetv2_d2net"), _OnStderr()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = bool(logging.root.handlers)  # or whoever sets the root up meanwhile would say each line again
    debugging, usage = os.environ.get("D2NET_DEBUG") == "1", ""
    try:
        if not words or words[0] == "help":
            return _help(words[1:])
        args, extra = _parse(words)
        debugging, usage = debugging or args.verbose, args.usage
        logger.setLevel(logging.WARNING if args.quiet else logging.INFO)
        status = args.run(args, handed_on := _handed_on(words[0], args, extra))
        if status == 0:
            tell_next_step(words, args, handed_on)
        return status
    except (UserError, KeyboardInterrupt) as error:
        sys.stdout.flush()  # in a file that takes both, the error comes last
        if debugging:
            raise
        if isinstance(error, UserError):
            is_usage = isinstance(error, UsageError)
            sys.stderr.write(f"{usage if is_usage else ''}d2net: error: {error}\n")
            return 2 if is_usage else 1
        go_on = _GO_ON.get(words[0], "run the same command to go on")
        sys.stderr.write(f"d2net: stopped; what is done is kept: {go_on}\n")
        return 130
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


class _OnStderr(logging.Handler):
    """Shows what the package logs, in lines that begin with ``d2net:``."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.flush()  # or in a pipe this line would come before what was printed earlier
        level = "error: " if record.levelno >= logging.ERROR else ""
        sys.stderr.write(f"d2net: {level}{record.getMessage()}\n")


def _reader_is_gone() -> bool:
    """Say whether stdout is what broke, as under ``| head``, and if so let nobody complain about it any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _help(words: Sequence[str]) -> int:
    """Print what there is, what a command takes, or a page of the documentation."""
    if not words:
        parser_of(()).print_help()
    elif words[0] in COMMANDS:
        parser_of(words[:1]).parse_args([words[0], "--help"])
    else:
        sys.stdout.write(page_named(words[0]))
    return 0


def parser_of(names: Iterable[str]) -> argparse.ArgumentParser:
    """Return the parser, which knows the arguments of these commands, and of the others that they exist."""
    parser = argparse.ArgumentParser(
        prog="d2net",
        usage="d2net COMMAND ...",
        description="D2-Net for nnU-Net v2: one model for every subset of modalities. Research use only.",
        epilog=overview(),
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"nnunetv2_d2net {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", help=argparse.SUPPRESS, prog="d2net")
    for name, command in COMMANDS.items():
        settings = {"help": command.summary, "allow_abbrev": False, "formatter_class": HelpFormatter}
        subparser = subparsers.add_parser(name, **settings)
        if name in names:
            module = import_module(f"nnunetv2_d2net.cli.{name}")
            module.add_arguments(subparser)
            of_its_own = [subparser.epilog] if subparser.epilog else []
            subparser.description, subparser.epilog = module.HELP, "\n\n".join([*of_its_own, epilog_of(command)])
            subparser.add_argument("-q", dest="quiet", action="store_true", help="no progress bars, no notes")
            subparser.add_argument("-v", dest="verbose", action="store_true", help="say more, and where an error arose")
            subparser.set_defaults(run=module.run, usage=subparser.format_usage())
    return parser


def _parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the words of a command.

    Raises:
        UsageError: No such command.
    """
    name = words[0]
    if name not in COMMANDS and not name.startswith("-"):
        raise UsageError(f"no command is called {name}{guess(name, COMMANDS)}: d2net help lists them")
    parser = parser_of((name,))
    args, extra = parser.parse_known_args(words)
    if not hasattr(args, "run"):
        parser.error(f"unknown argument {name}: the command comes first")
    return args, extra


def _handed_on(name: str, args: argparse.Namespace, extra: Sequence[str]) -> list[str]:
    """Return the words for nnU-Net or a model, among them what -q and -v are there.

    Raises:
        UsageError: Words that nobody understands, of a command that hands nothing on.
    """
    nnunet = COMMANDS[name].nnunet
    if extra and not nnunet and name not in _TAKES_OTHER_WORDS:
        meant = guess(extra[0], args.usage.replace("[", " ").split())
        raise UsageError(f"unknown argument {extra[0]}{meant}: d2net {name} --help lists them")
    quiet, verbose = ("--no_pbar", "--disable_progress_bar"), ("--verbose",)
    known = {flag for flag, _, _ in ARGUMENTS.get(nnunet, ())}
    return [
        *extra,
        *(flag for flag in (quiet if args.quiet else ()) + (verbose if args.verbose else ()) if flag in known),
    ]


if __name__ == "__main__":
    sys.exit(main())
