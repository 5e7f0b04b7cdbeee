"""Disturbing a command: signals, disks that are full or read-only, a second command; and what must hold then."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.base.text import listed
from tests.faults.commands import Command, d2net, environment, restore, seeded
from tests.faults.content import UNREADABLE, content_of

PATIENCE = 120.0
"""Seconds in which a command and all that it has started must end; workers that are just starting import torch."""

FAULTS = ("kill -9", "SIGINT", "SIGTERM", "full disk", "file size limit", "read-only", "two at once")
_SIGNALS = {"kill -9": signal.SIGKILL, "SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}
_HOUR = 3600
_BLOCK = 4096


class Undisturbed(NamedTuple):
    """A run without a fault.

    Attributes:
        begin: Seconds until the first file was written.
        end: Seconds until it ended.
        content: Digests by file.
        grown: By how many bytes the workplace has grown.
        largest: Bytes of the largest file that is new.
    """

    begin: float
    end: float
    content: dict[str, str]
    grown: int
    largest: int


class Ended(NamedTuple):
    """How a run ended.

    Attributes:
        status: Exit status, negative after a signal.
        said: What it printed.
        left: Command lines of processes that it left behind.
        in_time: Whether the fault hit it while it ran.
        seconds: From the fault to its end.
    """

    status: int
    said: str
    left: list[str]
    in_time: bool = True
    seconds: float = 0.0


class Outcome(NamedTuple):
    """What came of a fault.

    Attributes:
        status: Of the disturbed run.
        right_at_once: Whether the disturbed run itself was complete and right.
        right_again: Whether the same command ended with status 0 and the same content.
        told: Whether the disturbed run said in one line what was wrong, or had no chance to.
        silently_wrong: What counted as done and was not.
        problems: Whatever else is not as it should be.
        point: Where the fault was.
    """

    status: int
    right_at_once: bool
    right_again: bool
    told: bool
    silently_wrong: list[str]
    problems: list[str]
    point: str


class Run:
    """The command in a group of its own; what it prints goes through a pipe, which no limit of files concerns.

    Attributes:
        process: Its first process.
        mark: Stands in the environment of all its processes.
        said: What it has printed so far.
    """

    def __init__(self, place: Path, command: Command, *more: str, limit: int | None = None) -> None:
        self.mark, self.said = str(time.monotonic_ns()), bytearray()
        self.process = subprocess.Popen(
            [*(["prlimit", f"--fsize={limit}"] if limit else []), *d2net(*command.words, *more)],
            cwd=place,
            env=environment(place, command, self.mark),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        while chunk := self.process.stdout.read1():  # pyright: ignore
            self.said += chunk

    def finish(self, patience: float = _HOUR) -> Ended:
        """Wait for the command and for all that it has started; end what is left."""
        begin, left = time.monotonic(), []
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            left.append(f"the command itself after {patience:.0f} s")
            self.process.kill()
            self.process.wait()
        seconds = time.monotonic() - begin
        while (still := list(_processes_of(self.mark))) and time.monotonic() - begin < seconds + PATIENCE:
            time.sleep(0.2)
        for number, line in still:
            left.append(line)
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.reader.join(PATIENCE)
        return Ended(self.process.returncode, self.said.decode(errors="replace"), left, seconds=seconds)


def _processes_of(mark: str) -> Iterator[tuple[int, str]]:
    """Processes that have a run's mark in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"D2NET_FAULTS={mark}\0".encode() in (folder / "environ").read_bytes():
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]


def undisturbed(place: Path, command: Command, states: Path) -> Undisturbed:
    """Run the command as it is, once more: its content must not depend on chance."""
    restore(states / command.state, place)
    before, begin = _stamp(place), time.monotonic()
    run, first = Run(place, command), None
    while run.process.poll() is None:
        if first is None and _stamp(place) != before:
            first = time.monotonic() - begin
        time.sleep(0.05)
    end = time.monotonic() - begin
    ended = run.finish()
    contents = [_content(folder, command) for folder in (states / command.name, place)]
    differing = sorted(dict(set(contents[0].items()) ^ set(contents[1].items())))
    if ended.status or ended.left or differing:
        raise SystemExit(f"{command.name} fails or differs without a fault ({listed(differing)}): {ended}")
    before_sizes, sizes = _sizes(states / command.state), _sizes(place)
    largest = max(size for file, size in sizes.items() if file not in before_sizes)
    grown = sum(sizes.values()) - sum(before_sizes.values())
    return Undisturbed(first or 0.0, end, contents[0], grown, largest)


def _content(place: Path, command: Command) -> dict[str, str]:
    return content_of(place, command.outputs, only_names=not command.same_content)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes that files take, in whole blocks."""
    paths = (path for path in folder.rglob("*") if not path.is_symlink())
    return {str(path.relative_to(folder)): -(-path.stat().st_size // _BLOCK) * _BLOCK for path in paths}


def _stamp(place: Path) -> list[tuple[str, int]]:
    with contextlib.suppress(OSError):
        return sorted((str(path), path.lstat().st_mtime_ns) for path in place.rglob("*"))
    return []


def disturb(place: Path, command: Command, fault: str, index: int, known: Undisturbed, states: Path) -> Outcome:
    """Disturb the command once, call it again, and say what came of it."""
    draw = seeded(command.name, fault, index)
    with _disk(place, states / command.state, known, fault, draw.random()) as mend:
        ended, point = _disturbed(place, command, fault, known, draw)
        mend()
        between = _content(place, command)
        right_at_once = ended.status == 0 and between == known.content
        wrong = _wrong_but_done(place, command, known, between, ended)
        again = Run(place, command, *command.again).finish()
        after = _content(place, command)
        problems = _problems_of(fault, ended) + _problems_again(again)
        right_again = again.status == 0 and after == known.content
        if again.status == 0 and after != known.content:
            wrong += [f"again: {name}" for name in sorted(dict(set(after.items()) ^ set(known.content.items())))]
        if not right_again or problems or wrong:
            problems.append(f"said: {ended.said[-1500:]!r} again: {again.said[-1500:]!r}")
        return Outcome(ended.status, right_at_once, right_again, _is_told(ended), wrong, problems, point)


def _disturbed(place: Path, command: Command, fault: str, known: Undisturbed, draw) -> tuple[Ended, str]:
    if fault in _SIGNALS:
        wait = draw.uniform(0.9 * known.begin, known.end)
        run = Run(place, command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(wait)
        in_time = run.process.poll() is None
        if in_time:
            # a terminal's Ctrl-C reaches the whole group; kill and what runs out of memory, one process
            (os.killpg if fault == "SIGINT" else os.kill)(run.process.pid, _SIGNALS[fault])
        return run.finish(PATIENCE)._replace(in_time=in_time), f"{wait:.1f} of {known.end:.1f} s"
    if fault == "two at once":
        wait = draw.choice([0.0, draw.uniform(0, known.end)])
        first = Run(place, command)
        time.sleep(wait)
        ends = [Run(place, command).finish(), first.finish()]
        ends.sort(key=lambda end: end.status)  # at least one of them must have done it
        refused = [end for end in ends if end.status == 1]
        said = ends[0].said if len(refused) == 0 else refused[0].said
        left = [*ends[0].left, *ends[1].left]
        return Ended(ends[0].status if ends[1].status in (0, 1) else ends[1].status, said, left), f"{wait:.1f} s apart"
    if fault == "file size limit":
        limit = int(known.largest * draw.choice([0.01, 0.1, 1]) * draw.random()) + 1
        return Run(place, command, limit=limit).finish(), f"{limit} bytes"
    return Run(place, command).finish(), ""


@contextlib.contextmanager
def _disk(place: Path, state: Path, known: Undisturbed, fault: str, share: float) -> Iterator:
    """Put the workplace on a disk that is too small or read-only, until the yielded function is called."""
    if fault not in ("full disk", "read-only"):
        restore(state, place)
        yield lambda: None
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    size = 2**30
    _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", str(place))
    try:
        restore(state, place)
        if fault == "full disk":
            disk = shutil.disk_usage(place)
            size = disk.total - disk.free + int(share * known.grown)
        _mount("-o", f"remount,size={size}" if fault == "full disk" else "remount,ro", str(place))
        yield lambda: _mount("-o", "remount,rw,size=1g", str(place))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def can_mount(place: Path) -> bool:
    """Tell whether disks of their own can be had here, which takes root's rights."""
    place.mkdir(parents=True, exist_ok=True)
    try:
        _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place))
    except (OSError, subprocess.CalledProcessError):
        return False
    subprocess.run(["umount", str(place)], check=True)
    return True


def _wrong_but_done(
    place: Path, command: Command, known: Undisturbed, between: dict[str, str], ended: Ended
) -> list[str]:
    """Name what says that it is complete, or has ended with status 0, and is not what it should be."""
    if ended.status == 0 or (command.done and (place / command.done).is_file()):
        names = [command.done] if ended.status and command.done_alone else list(known.content)
        return [f"done: {name}" for name in names if between.get(name) != known.content.get(name)]
    final = {name: digest for name, digest in between.items() if name in known.content and name.endswith(".nii.gz")}
    wrong = [f"partial: {name}" for name, digest in final.items() if digest != known.content[name]]
    return wrong + [f"partial: {name}" for name, digest in between.items() if UNREADABLE in digest and "pth" in name]


def _is_told(ended: Ended) -> bool:
    if ended.status < 0 or ended.status == 0:
        return True
    # nnU-Net's own lines on stdout may come behind it
    lines = [line for line in ended.said.splitlines() if line.startswith(("d2net: error:", "d2net: stopped"))]
    return bool(lines) and "Traceback" not in ended.said


def _problems_of(fault: str, ended: Ended) -> list[str]:
    problems = [f"left alive: {line}" for line in ended.left]
    is_orphans = fault in ("kill -9", "SIGTERM") and "BrokenPipeError" in ended.said  # of nnU-Net's pools
    if "Traceback" in ended.said and not is_orphans:
        problems.append("a traceback")
    # -2, which a shell shows as 130, is Python's own in the last moments after the command has ended
    expected = {"SIGINT": {130, -2}, "SIGTERM": {-15, 130, 143}, "kill -9": {-9}}.get(fault, {0, 1})
    if ended.in_time and ended.status not in expected:
        problems.append(f"status {ended.status}")
    if fault == "SIGINT" and ended.in_time and not _is_told(ended):
        problems.append("Ctrl-C was not one line")
    if ended.status == 1 and not _is_told(ended):
        problems.append("status 1 without a line")
    return problems


def _problems_again(again: Ended) -> list[str]:
    problems = [f"again: left alive: {line}" for line in again.left]
    if again.status:
        problems.append(f"again: status {again.status}")
    if "Traceback" in again.said:
        problems.append("again: a traceback")
    return problems
