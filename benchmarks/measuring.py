"""What the benchmark scripts share: arguments, interleaved timing, peak memory, and the report."""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from nnunetv2_d2net.base.text import markdown_table

Seconds = Mapping[str, Sequence[float]]
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def make_parser(description: str | None, *, runs: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the options of every script."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; default: torch's own")
    parser.add_argument("--runs", type=int, default=runs, help="counted ones; one more warms up")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="processor: of this process, for busy machines")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to see that the script works")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line and set the number of threads."""
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here, take --device cpu")
    if args.device == "cuda" and args.clock == "processor":
        parser.error("--clock processor does not see the GPU's time: leave it out")
    if args.threads:
        torch.set_num_threads(args.threads)
    args.runs = 1 if args.toy else args.runs
    return args


def interleave(arms: Mapping[str, Callable[[], object]], args: argparse.Namespace) -> dict[str, list[float]]:
    """Run the arms in turn and time each run, the first round left out.

    Args:
        arms: What to run, by name.
        args: Of :func:`parse`.

    Returns:
        Seconds of every counted run, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for i in range(args.runs + 1):
        for name, work in arms.items():
            took = timed(work, args)
            if i:
                seconds[name].append(took)
    return seconds


def timed(work: Callable[[], object], args: argparse.Namespace) -> float:
    """Return the seconds that one run takes, on the GPU until it has finished."""
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    clock = CLOCKS[args.clock]
    wait()
    begin = clock()
    work()
    wait()
    return clock() - begin


def ratio(seconds: Seconds, arm: str, reference: str) -> float:
    """Return the median over the rounds of an arm's time over the reference's."""
    return statistics.median(a / b for a, b in zip(seconds[arm], seconds[reference], strict=True))


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Return how far the memory that torch has allocated rises during one run, after one that warms up.

    On the CPU the profiler's records of torch's allocator are summed, which is exact, but does not see what oneDNN
    takes for itself; on the GPU it is ``torch.cuda.max_memory_allocated``.
    """
    work()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    allocated = peak = 0
    for _, change in changes:
        allocated += change
        peak = max(peak, allocated)
    return peak


def report(rows: Sequence[Mapping[str, Any]], args: argparse.Namespace, **more: object) -> None:
    """Print the machine and a table, and write both as JSON if asked.

    Args:
        rows: Lines of the table, all with the same columns; numbers are rounded in print alone.
        args: Of :func:`parse`.
        more: Further figures for the JSON file.
    """
    machine = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": args.clock,
        "toy": args.toy,
    }
    sys.stdout.write(f"\n{', '.join(f'{key} {value}' for key, value in machine.items())}\n\n{table(rows)}")
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows, **more}, indent=2), encoding="utf-8")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay rows with the same columns out as a Markdown table."""
    return markdown_table([list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
