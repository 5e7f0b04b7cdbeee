"""Seconds until ``d2net --help`` has printed, and whether it imports torch.

Usage: python benchmarks/startup.py [--runs 5] [--json FILE]
"""

import functools
import statistics
import subprocess
import sys

from measuring import interleave, make_parser, parse, report

COMMANDS = {
    "python -c pass": "pass",
    "d2net --help": "import sys; sys.argv = ['d2net', '--help']; from nnunetv2_d2net.cli.main import main; main()",
}
IMPORTS_TORCH = """
import atexit, sys
atexit.register(lambda: sys.stderr.write(f"torch {'torch' in sys.modules}"))
"""


def main() -> None:
    """Measure and print; processes of their own have no processor time here, so the clock is always the wall's."""
    args = parse(make_parser(__doc__))
    args.clock = "wall"
    arms = {name: functools.partial(start, code) for name, code in COMMANDS.items()}
    seconds = interleave(arms, args)
    rows = [
        {"command": name, "s": statistics.median(seconds[name]), "imports torch": "torch True" in start(code)}
        for name, code in COMMANDS.items()
    ]
    report(rows, args, seconds=seconds)


def start(code: str) -> str:
    """Run a program in an interpreter of its own; return what it says about torch at its end."""
    command = [sys.executable, "-c", IMPORTS_TORCH + code]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stderr


if __name__ == "__main__":
    main()
