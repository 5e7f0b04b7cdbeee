"""One function on many items, in processes that end with the one that started them."""

import contextlib
import errno
import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from types import FrameType, ModuleType
from typing import TypeVar

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.progress import Bar

Item = TypeVar("Item")
Result = TypeVar("Result")

_KILLED = "a process was killed, perhaps for lack of memory: run again with a smaller -np; what is done is kept"


def run_all(  # noqa: PLR0913 - the bar's settings have defaults
    work: Callable[[Item], Result],
    items: Sequence[Item],
    processes: int = 1,
    *,
    title: str = "",
    unit: str = "case",
    n_done: int = 0,
    progress: bool = True,
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with its result, in the order in which they are ready, and show how far it is.

    Args:
        work: A function that can be pickled; what it raises passes through.
        items: Its arguments, small ones: files rather than arrays.
        processes: How many at a time; with 1 no process is started.
        title: Of the progress bar.
        unit: What an item is.
        n_done: How many items are done already, for the bar.
        progress: Show a bar, on stderr, unless there is nothing to do.

    Raises:
        UserError: A process was killed.
    """
    results = _one_by_one(work, items) if processes <= 1 or len(items) <= 1 else _in_processes(work, items, processes)
    shown = progress and bool(items)
    yield from Bar(results, title=title, total=n_done + len(items), unit=unit, n_done=n_done, shown=shown)


def _one_by_one(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    yield from ((item, work(item)) for item in items)


def _in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[tuple[Item, Result]]:
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # forking a process that has threads can hang
    pool = ProcessPoolExecutor(min(processes, len(items)), context, _begin_worker, (os.getpid(),))
    futures = None
    try:
        with hearing_later(), _program_hidden(work, items[0]):
            futures = {pool.submit(work, item): item for item in items}
        for future in as_completed(futures):
            yield futures.pop(future), future.result()  # and keep it no longer: the next ones need the memory
    except BaseException as error:  # also Ctrl-C, or the caller has given up: nobody waits for what is being done
        ours = set(multiprocessing.active_children()) - others
        for process in ours:
            process.terminate()
        for process in ours:
            process.join()
        if isinstance(error, BrokenProcessPool) or (futures is None and _is_of_closed_pipes(error)):
            raise UserError(_KILLED) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _is_of_closed_pipes(error: BaseException) -> bool:
    """Tell whether a process could not be started because the pool was closing the pipes that it should have.

    It does so when another process was killed meanwhile. The pipes are then closed for multiprocessing, unknown to the
    system, or, where one has got the number of another, named twice, which Python refuses to hand on.
    """
    if isinstance(error, OSError):
        return error.errno == errno.EBADF or str(error) == "handle is closed"
    return isinstance(error, ValueError)


@contextlib.contextmanager
def hearing_later() -> Iterator[None]:
    """Put off Ctrl-C, and let processes that start here never hear it; their parent does, and ends them.

    A terminal's Ctrl-C reaches all processes, also those that still import Python's modules, which would say so in many
    lines. A signal that is blocked stays blocked in a new process. Another thread may hear it all the same.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # the first process would start it, which ends with unblocking the signal
    heard: list[int] = []
    in_main, can_block = threading.current_thread() is threading.main_thread(), hasattr(signal, "pthread_sigmask")
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number)) if in_main else None
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_block else set()
    try:
        yield
    finally:
        if can_block:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    if heard:
        signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _program_hidden(work: Callable[[Item], Result], item: Item) -> Iterator[None]:
    """Let processes that start here not run the user's program, which may lack a main guard, unless it has the work."""
    program, is_needed = sys.modules["__main__"], b"__main__" in pickle.dumps((work, item))
    if not is_needed:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be blocked
    end_with(parent)


@functools.cache
def watch_forks() -> None:
    """See to the processes that others fork from here on, such as nnU-Net's loaders and pools.

    They end when this one is gone: they would live on after ``kill -9``, and hold what this process has locked. And a
    Ctrl-C waits until a fork is over: raised while Python holds the locks of its modules for it, logging's among
    them, it would leave them held, and what forks next would wait for ever.
    """
    forks = _Forks()
    os.register_at_fork(before=forks.begin, after_in_parent=forks.end, after_in_child=forks.begin_child)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, forks.interrupt)


class _Forks:
    """Who forks, whether the main thread does, and whether Ctrl-C was pressed meanwhile."""

    forking = interrupted = False
    parent = 0

    def begin(self) -> None:
        self.parent = os.getpid()  # the child may ask for its parent when that is gone already
        if threading.current_thread() is threading.main_thread():
            self.forking = True

    def end(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if self.interrupted:  # not raised here: what a hook raises is not heard
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        self.forking = self.interrupted = False

    def begin_child(self) -> None:
        self.forking = self.interrupted = False
        end_with(self.parent)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.forking:
            self.interrupted = True
        else:
            signal.default_int_handler(number, frame)


def end_with(parent: int, *, group: bool = False) -> None:
    """End this process when its parent is gone, however that ended.

    Args:
        parent: Number of the process that started this one.
        group: End everything in this process's group, too.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if group:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="d2net-end-with-parent").start()
