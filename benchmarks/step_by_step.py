"""Steps one after the other, each in a process of its own with a time limit; what is known is on the disk after each.

A step is a generator of rows. It is forked, so that nothing is imported twice, and what it has yielded by the time it
fails, is killed or has outlasted its limit is kept. The process that forks must not have touched the GPU.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from measuring import table

from nnunetv2_d2net.base.files import write_json, write_text
from nnunetv2_d2net.base.processes import end_with
from nnunetv2_d2net.base.text import last_line, markdown_table

Row = dict[str, Any]
FORK = multiprocessing.get_context("fork")
DONE, FAILED, OUT_OF_TIME, SKIPPED = "done", "failed", "out of time", "skipped"


class Step(NamedTuple):
    """What is to be done.

    Attributes:
        name: For tables.
        work: Makes its rows, all with the same columns.
        limit: Seconds that it may take.
        least: Seconds without which it need not begin.
    """

    name: str
    work: Callable[[], Iterable[Row]]
    limit: float
    least: float = 10


class Outcome(NamedTuple):
    """What came of a step: how it ended, why unless it is done, and its rows."""

    step: str
    status: str
    seconds: float
    problem: str
    rows: list[Row]


def run_steps(steps: Sequence[Step], seconds: float, out: Path, log: Path) -> list[Outcome]:
    """Run steps until the time is over, and write ``out.json`` and ``out.md`` after each.

    Args:
        steps: In their order.
        seconds: For all of them; those for which too little is left are skipped.
        out: The two files without their endings.
        log: File for whatever the steps print.

    Returns:
        What came of each.
    """
    end, outcomes = time.monotonic() + seconds, []
    for step in steps:
        left = end - time.monotonic()
        if left < step.least:
            outcomes.append(Outcome(step.name, SKIPPED, 0, f"{max(0, left):.0f} s left, needs {step.least:.0f}", []))
        else:
            outcomes.append(run_step(step, left, log))
        write_json(out.with_suffix(".json"), [outcome._asdict() for outcome in outcomes])
        write_text(out.with_suffix(".md"), as_markdown(outcomes))
        last = outcomes[-1]
        sys.stdout.write(f"{last.step}: {last.status}, {last.seconds:.0f} s {last.problem}\n")
        sys.stdout.flush()
    return outcomes


def run_step(step: Step, left: float, log: Path) -> Outcome:
    """Run one step in a process, and end that, with all that it has started, when its time is over."""
    begin = time.monotonic()
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_work, args=(step, sender, log), daemon=False)
    process.start()
    sender.close()  # else its end would not be seen
    rows: list[Row] = []
    try:
        status, problem = OUT_OF_TIME, f"more than {min(step.limit, left):.0f} s"
        for kind, content in _received(receiver, begin + min(step.limit, left)):
            if kind == "row":
                rows.append(content)
            else:
                status, problem = kind, content
    except EOFError:
        process.join(5)
        status, problem = FAILED, f"its process ended with status {process.exitcode}"
    finally:
        _end(process)
    return Outcome(step.name, status, time.monotonic() - begin, problem, rows)


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """Lay out how the steps ended, and the table of each."""
    rows = [["step", "status", "s", "why"], *([o.step, o.status, f"{o.seconds:.0f}", o.problem] for o in outcomes)]
    tables = [f"\n## {o.step}\n\n{table(o.rows)}" for o in outcomes if o.rows]
    return "# On the GPU\n\n" + "".join([markdown_table(rows), *tables])


def _received(receiver: Any, end: float) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - its class depends on the system
    """Receive until the step says how it ended, or its time is over."""
    while receiver.poll(max(0, end - time.monotonic())):
        message = receiver.recv()
        yield message
        if message[0] != "row":
            return


def _end(process: BaseProcess) -> None:
    try:
        os.killpg(process.pid or 0, signal.SIGKILL)
    except ProcessLookupError:  # it has not come as far as having a group, or nothing of it is left
        process.kill()
    process.join()


def _work(step: Step, sender: Any, log: Path) -> None:  # noqa: ANN401
    """Do a step in a group of its own, which ends with the process that started it, and send what comes of it."""
    os.setsid()
    end_with(os.getppid(), group=True)
    with log.open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        file.write(f"\n=== {step.name}\n")
        ending = (DONE, "")
        try:
            for row in step.work():
                sender.send(("row", row))
        except BaseException as error:  # whatever it is, the next step has its turn
            traceback.print_exc()
            ending = (FAILED, f"{type(error).__name__}: {last_line(error)}"[:300])
        file.flush()  # before the other side hears of the end, as it then ends this process
        sender.send(ending)
