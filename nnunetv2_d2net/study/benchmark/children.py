"""Runs jobs as processes, several at a time, and tells how they get on."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from tqdm import tqdm

from nnunetv2_d2net.base.files import explaining_disk_errors
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.study.benchmark.jobs import first_of, job_command, log_file
from nnunetv2_d2net.study.benchmark.setup import Setup

_LOG = logging.getLogger("nnunetv2_d2net")
_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 15.0
_TAIL = 4000
_PROGRESS = re.compile(r"Epoch (?P<epoch>\d+) *$|predict: +(?P<share>\d+)%", re.MULTILINE)


class Child:
    """A job that runs or has run.

    Attributes:
        name: Of the job.
        log: What it prints.
        process: Its process, which leads a group of its own.
    """

    def __init__(self, setup: Setup, name: str, environment: Mapping[str, str]) -> None:
        self.name, self.log, self.begin = name, log_file(setup, name), time.monotonic()
        with explaining_disk_errors(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            file = self.log.open("ab")
        with file:
            self.offset = file.tell()
            # a group of its own: its end ends all that it has started; it watches whether this process lives
            self.process = subprocess.Popen(
                [*job_command(setup, name), "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        """Send a signal to the job and to all that it has started, if they are still there."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def progress(self) -> str:
        """Say in a few words how far it is."""
        *_, last = [None, *_PROGRESS.finditer(self._said())]
        if last is None:
            return f"{self.name} starts"
        return f"{self.name} " + (f"predict {last['share']} %" if last["share"] else f"epoch {int(last['epoch']) + 1}")

    @property
    def problem(self) -> str:
        """Why it has failed, by its last line; empty if it has not."""
        status, lines = self.process.returncode, [line.strip() for line in self._said().splitlines() if line.strip()]
        if status < 0:
            return f"killed by signal {-status} ({signal.Signals(-status).name}), perhaps for lack of memory"
        said = lines[-1].removeprefix("d2net: error: ") if lines else f"exit status {status}"
        return said if status else ""

    def _said(self) -> str:
        """Return the end of what it has printed."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(self.offset, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode("utf-8", errors="replace").replace("\r", "\n")
        return ""


def run_children(setup: Setup, names: Sequence[str], n_jobs: int, title: str, *, progress: bool = False) -> list[Child]:
    """Run jobs, ``n_jobs`` at a time; a failure leaves the others alone.

    Returns:
        Those that have failed.

    Raises:
        KeyboardInterrupt: This process was interrupted or terminated; the jobs were ended first.
    """
    waiting, running, failed = list(names), [], []
    environment = child_environment(setup.device, n_jobs)
    with _termination_as_interrupt(), Bar(title=title, total=len(names), unit="job", shown=progress) as bar:
        try:
            while waiting or running:
                while len(running) < n_jobs and (ready := _ready(setup, waiting, running)):
                    waiting.remove(ready)
                    running.append(Child(setup, ready, environment))
                    _say(f"{running[-1].name} starts, log: {running[-1].log}")
                time.sleep(_POLL_SECONDS)
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    child.signal(signal.SIGKILL)  # what a job that was killed has left behind
                    failed += [child] if child.problem else []
                    how = f"failed: {child.problem} (log: {child.log})" if child.problem else "done"
                    _say(f"{child.name} {how} in {time.monotonic() - child.begin:.0f} s")
                    bar.update()
                bar.set_postfix_str(", ".join(child.progress() for child in running))
        finally:
            stop(running)
    return failed


def _ready(setup: Setup, waiting: Sequence[str], running: Sequence[Child]) -> str | None:
    """Name the next job that need not wait for another one."""
    unfinished = {*waiting, *(child.name for child in running)}
    return next((name for name in waiting if first_of(setup, name) not in unfinished), None)


def stop(children: Sequence[Child]) -> None:
    """Interrupt jobs, and kill those that do not end."""
    for child in children:
        child.signal(signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
        child.signal(signal.SIGKILL)
        child.process.wait()


def child_environment(device: str, n_jobs: int) -> dict[str, str]:
    """Share the cores among jobs that run at the same time.

    Example:
        >>> child_environment("cuda", 1)
        {'PYTHONUNBUFFERED': '1'}
    """
    settings = {"PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        settings["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin while they wait take the others' time
    if n_jobs > 1:
        share = max(1, (os.cpu_count() or 1) // n_jobs)
        if device == "cpu":
            settings["OMP_NUM_THREADS"] = str(share)
        settings["nnUNet_n_proc_DA"] = os.environ.get("nnUNet_n_proc_DA", str(share))
    return settings


def _say(line: str) -> None:
    with tqdm.external_write_mode(file=sys.stderr):  # above the bar
        _LOG.info(line)


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, with which clusters announce the end of their patience, end the jobs as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
