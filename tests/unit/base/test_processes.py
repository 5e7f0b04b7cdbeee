import contextlib
import errno
import functools
import importlib
import io
import logging
import multiprocessing
import operator
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_d2net.base import processes as module
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.processes import end_with, hearing_later, run_all, watch_forks

WORK = """
import errno, os, signal
import numpy as np
from nnunetv2_d2net.base.errors import UserError
def refuse(item): raise UserError(f"{item} is mine")
def die(item): os.kill(os.getpid(), signal.SIGKILL)
def make_array(item): return np.full(2**16, item)
def value(item): raise ValueError("of the work")
def descriptor(item): raise OSError(errno.EBADF, "of the work")
"""

SLEEPING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell keeps from what runs in the background
from nnunetv2_d2net.base.processes import run_all
try:
    for item, _ in run_all(time.sleep, [0.01, 60, 60, 60], 2, progress=False):
        print("one is done", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


AWAITED_FOR_EVER = pytest.mark.skipif(sys.version_info < (3, 11, 5), reason="Python itself hangs")
SIZES = [1, pytest.param(2**20, marks=AWAITED_FOR_EVER)]
"""Bytes of an item; what lies in a pipe and what does not fit."""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Functions that other processes can import."""
    (tmp_path / "work_of_tests.py").write_text(WORK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("work_of_tests")
    del sys.modules["work_of_tests"]


@pytest.fixture
def sleeping():
    """A program whose workers sleep, in a process group of its own."""
    command, pipe = [sys.executable, "-c", SLEEPING], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, encoding="utf-8", start_new_session=True) as process:
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def living(group):
    """Numbers of the processes of a group that still run."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,pgid=,stat="], capture_output=True, encoding="utf-8", check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(process) for process, of, state in rows if int(of) == group and not state.startswith("Z")]


def wait_until(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class TestResults:
    @pytest.mark.parametrize("processes", [1, 2, 5])
    def test_they_are_those_of_a_plain_map(self, processes):
        items = list(range(-20, 20))
        results = list(run_all(operator.neg, items, processes, progress=False))
        assert sorted(results) == [(item, -item) for item in items]
        if processes == 1:
            assert [item for item, _ in results] == items

    @pytest.mark.parametrize("processes", [1, 2])
    def test_items_may_be_alike_and_need_no_hash(self, processes):
        items = [[1], [1], [], {}, [1]]
        results = list(run_all(len, items, processes, progress=False))
        assert sorted(n for _, n in results) == [0, 0, 1, 1, 1]
        assert all(len(item) == n for item, n in results)

    def test_more_processes_than_items(self):
        assert sorted(run_all(operator.neg, [1, 2], 50, progress=False)) == [(1, -1), (2, -2)]

    @pytest.mark.parametrize("processes", [0, 1, 2])
    def test_nothing_to_do(self, processes, capsys):
        assert list(run_all(len, [], processes)) == []
        assert capsys.readouterr() == ("", "")

    def test_one_item_starts_no_process(self):
        assert list(run_all(lambda item: item, [1], 8, progress=False)) == [(1, 1)]  # no other process could run this

    @pytest.mark.parametrize("processes", [1, 2])
    def test_what_has_been_handed_out_is_not_kept(self, work, processes):
        """The results of a whole cohort may not fit into memory."""
        results, kept = run_all(work.make_array, list(range(12)), processes, progress=False), []
        for item, array in results:
            assert array[0] == item
            assert not [reference for reference in kept[:-1] if reference() is not None]
            kept.append(weakref.ref(array))
        assert len(kept) == 12


class TestFaults:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("processes", [1, 2])
    def test_what_the_work_raises_passes(self, work, processes, size, capfd):
        with pytest.raises(ValueError, match="invalid literal"):
            list(run_all(int, ["1", "x", "2"], processes, progress=False))
        with pytest.raises(UserError, match=r"is mine$"):
            list(run_all(work.refuse, [np.zeros(size, np.uint8)] * 8, processes, progress=False))
        assert multiprocessing.active_children() == []
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("size", SIZES)
    def test_a_killed_process_is_one_line(self, work, size, capfd):
        with pytest.raises(UserError, match=r"^a process was killed, perhaps for lack of memory: run again with a sm"):
            list(run_all(work.die, [np.zeros(size, np.uint8)] * 8, 2, progress=False))
        assert multiprocessing.active_children() == []
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        "error",  # all by the thread that has noticed it, and closes the pipes
        [
            OSError("handle is closed"),
            OSError(errno.EBADF, "Bad file descriptor"),
            ValueError("bad value(s) in fds_to_keep"),
        ],
    )
    def test_a_process_that_is_killed_while_others_start_is_the_same_line(self, monkeypatch, error):
        def submit(*_):
            raise error

        monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", submit)
        with pytest.raises(UserError, match=r"^a process was killed"):
            list(run_all(operator.neg, [1, 2], 2, progress=False))

    @pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), TypeError("no function")])
    def test_what_else_keeps_a_process_from_starting_passes_through(self, monkeypatch, error):
        def submit(*_):
            raise error

        monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", submit)
        with pytest.raises(type(error), match=str(error.args[-1])):
            list(run_all(operator.neg, [1, 2], 2, progress=False))

    @pytest.mark.parametrize("name", ["value", "descriptor"])
    def test_the_same_errors_of_the_work_itself_pass_through(self, work, name):
        with pytest.raises((ValueError, OSError), match="of the work"):
            list(run_all(getattr(work, name), [1, 2], 2, progress=False))

    def test_who_looks_at_the_first_result_only_ends_the_others(self):
        start = time.monotonic()
        for item, _ in run_all(time.sleep, [0.01, 60, 60, 60], 2, progress=False):
            assert item == 0.01
            break
        wait_until(lambda: not multiprocessing.active_children())
        assert time.monotonic() - start < 30

    def test_other_processes_of_the_program_go_on(self):
        other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        other.start()
        try:
            results = run_all(time.sleep, [0.01, 60, 60], 2, progress=False)
            next(results)
            del results
            assert multiprocessing.active_children() == [other]
        finally:
            other.kill()
            other.join()


class TestEnd:
    """How a program ends whose workers have hours to go."""

    @pytest.mark.parametrize("seconds", [0, 0.05, 0.1, 0.15, 0.2, 0.3])
    def test_ctrl_c_while_the_workers_start(self, sleeping, seconds):
        wait_until(lambda: len(living(sleeping.pid)) >= 3)  # the program, Python's tracker of resources, and a worker
        time.sleep(seconds)
        self.interrupt(sleeping)

    def test_ctrl_c_while_they_work(self, sleeping):
        sleeping.stdout.readline()
        self.interrupt(sleeping)

    def interrupt(self, process):
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, "")
        wait_until(lambda: not living(process.pid))

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_no_worker_outlives_the_program(self, sleeping, number):
        sleeping.stdout.readline()
        assert len(living(sleeping.pid)) > 1
        os.kill(sleeping.pid, number)
        wait_until(lambda: not living(sleeping.pid))


class TestBar:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_it_says_how_far_it_is(self, processes, capsys, caplog):
        caplog.set_level(logging.INFO, "nnunetv2_d2net")
        list(run_all(operator.neg, [1, 2, 3], processes, title="turning", unit="number", n_done=7))
        assert capsys.readouterr() == ("", "")  # no terminal: a line is logged
        assert re.fullmatch(r"turning: 3 numbers in \d\d:\d\d", caplog.messages[-1])

    def test_a_terminal_sees_it(self, monkeypatch, caplog):
        caplog.set_level(logging.INFO, "nnunetv2_d2net")
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        list(run_all(lambda item: item, [1, 2, 3], n_done=2))  # which no other process could do
        assert sys.stderr.getvalue().startswith("\rcase 2 of 5 |")
        assert "\rcase 5 of 5 |" in sys.stderr.getvalue()
        list(run_all(operator.neg, [1], title="turning", unit="number"))
        assert "\rturning: number 1 of 1 |" in sys.stderr.getvalue()
        before = sys.stderr.getvalue()
        list(run_all(operator.neg, []))
        list(run_all(operator.neg, [1], progress=False))
        assert sys.stderr.getvalue() == before

    @pytest.mark.parametrize("processes", [1, 2])
    def test_only_where_it_is_asked_for(self, processes, capfd):
        list(run_all(operator.neg, [1, 2, 3], processes, title="turning", progress=False))
        assert capfd.readouterr() == ("", "")


class TestPrograms:
    """Worker processes are new ones of Python, which must not run the user's program again."""

    script = (
        "import operator\nfrom nnunetv2_d2net.base.processes import run_all\nprint('begin')\n"
        "print(sorted(run_all(operator.neg, [1, 2, 3], 2, progress=False)))\n"
    )

    @pytest.mark.parametrize("arguments", [["-c", script], ["-"], ["program.py"], ["-m", "program"]])
    def test_a_program_without_a_main_guard(self, tmp_path, arguments):
        (tmp_path / "program.py").write_text(self.script, encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, *arguments],
            input=self.script,
            check=False,
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            timeout=60,
        )
        assert (ended.stdout, ended.stderr) == ("begin\n[(1, -1), (2, -2), (3, -3)]\n", "")

    def test_the_program_hears_signals_as_before(self):
        def state():
            return (
                signal.getsignal(signal.SIGINT),
                signal.pthread_sigmask(signal.SIG_BLOCK, set()),
                sys.modules["__main__"],
            )

        before = state()
        list(run_all(operator.neg, [1, 2], 2, progress=False))
        with pytest.raises((pickle.PicklingError, AttributeError)):  # as the version of Python has it
            list(run_all(lambda item: item, [1, 2], 2, progress=False))
        assert state() == before

    def test_a_thread_may_ask(self):
        results = []
        thread = threading.Thread(target=lambda: results.extend(run_all(operator.neg, [1, 2], 2, progress=False)))
        thread.start()
        thread.join()
        assert sorted(results) == [(1, -1), (2, -2)]

    def test_work_that_the_program_itself_defines(self, tmp_path):
        (tmp_path / "program.py").write_text(
            "from functools import partial\nfrom nnunetv2_d2net.base.processes import run_all\n"
            "def add(a, b): return a + b\n"
            "if __name__ == '__main__':\n"
            "    print(sorted(run_all(partial(add, 1), [1, 2], 2, progress=False)))\n",
            encoding="utf-8",
        )
        ended = subprocess.run(
            [sys.executable, tmp_path / "program.py"], check=False, capture_output=True, encoding="utf-8", timeout=60
        )
        assert (ended.stdout, ended.stderr) == ("[(1, 2), (2, 3)]\n", "")


class Pool:
    """A pool that does at once what it is given, in this process, and keeps what a worker would inherit."""

    def __init__(self, *given):
        self.made.append(given)

    def submit(self, work, item):
        hears = signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
        self.seen.append((sys.modules["__main__"], hears))
        done = Future()
        done.set_result(work(item))
        return done

    def shutdown(self, **_):
        pass


class TestWorkers:
    @pytest.fixture(autouse=True)
    def pool(self, monkeypatch):
        monkeypatch.setattr(Pool, "made", [], raising=False)
        monkeypatch.setattr(Pool, "seen", [], raising=False)
        monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)

    @pytest.mark.parametrize(("processes", "n"), [(2, 2), (3, 3), (9, 3)])
    def test_they_are_new_processes_that_end_with_the_program(self, processes, n):
        list(run_all(str.upper, ["a", "b", "c"], processes, progress=False))
        ((n_workers, context, begin, numbers),) = Pool.made
        assert (n_workers, context.get_start_method()) == (n, "spawn")
        assert (begin, numbers) == (module._begin_worker, (os.getpid(),))

    @pytest.mark.parametrize(
        ("work", "items"),
        [
            (str.upper, ["a", "b"]),
            (str.upper, ["__main__", "a"]),
            (functools.partial(operator.add, "__main__"), ["a", "b"]),
        ],
    )
    def test_they_see_the_program_only_where_the_work_is_of_it(self, work, items):
        program = sys.modules["__main__"]
        names = set(sys.modules)
        assert len(list(run_all(work, items, 2, progress=False))) == 2
        is_needed = "__main__" in (items[0], *getattr(work, "args", ()))
        for main, hears in Pool.seen:
            assert (main is program) == is_needed
            assert is_needed or (main.__name__, hasattr(main, "__file__")) == ("__main__", False)
            assert not hears
        assert len(Pool.seen) == 2
        assert sys.modules["__main__"] is program
        assert set(sys.modules) == names


class TestHearingLater:
    @pytest.fixture(params=["blocked", "Windows"])
    def way(self, request, monkeypatch):
        """Windows can block no signal, and has no tracker of resources."""
        started = []
        monkeypatch.setattr(module.resource_tracker, "ensure_running", lambda: started.append("tracker"))
        if request.param == "Windows":
            monkeypatch.delattr(signal, "pthread_sigmask")
            monkeypatch.setattr(sys, "platform", "win32")
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield request.param
        signal.signal(signal.SIGINT, before)
        assert started == ["tracker"] * (request.param == "blocked")

    def test_ctrl_c_is_put_off(self, way):
        done = []

        def press():
            with hearing_later():
                press_ctrl_c()
                done.append("what was begun")

        assert is_heard(press)
        assert done == ["what was begun"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert is_heard(press_ctrl_c)

    def test_where_none_was_pressed_none_is_heard(self, way):
        with hearing_later():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert not is_heard(lambda: None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_what_fails_leaves_signals_as_they_were(self, way):
        with pytest.raises(OSError, match="no process"), hearing_later():
            raise OSError("no process")
        assert is_heard(press_ctrl_c)

    def test_a_thread_leaves_the_program_its_ctrl_c(self, way):
        def hear():
            with hearing_later():
                return signal.getsignal(signal.SIGINT)

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(hear).result() is signal.default_int_handler
        assert is_heard(press_ctrl_c)


def test_what_was_blocked_before_stays_so():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGINT})
    try:
        with hearing_later():
            assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) >= {signal.SIGUSR1, signal.SIGINT}
        assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before | {signal.SIGUSR1, signal.SIGINT}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


FORKING = """
import os, sys, time
from nnunetv2_d2net.base.processes import watch_forks
watch_forks()
watch_forks()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


def test_a_forked_process_ends_with_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-c", FORKING], stdout=subprocess.PIPE, encoding="utf-8")
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


INTERRUPTED_FORK = """
import logging, os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
os.register_at_fork(before=lambda: signal.raise_signal(signal.SIGINT))  # runs after what is registered later
from nnunetv2_d2net.base.processes import watch_forks
watch_forks()
try:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(20)
except KeyboardInterrupt:
    print("heard", logging._lock.acquire(blocking=False))
"""


def test_ctrl_c_during_a_fork_is_heard_after_it():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_FORK], capture_output=True, encoding="utf-8", check=False)
    assert (done.stdout, done.stderr) == ("heard True\n", "")


class TestForks:
    """What is registered for forks, called as a fork would; the programs above fork."""

    @pytest.fixture
    def hooks(self, monkeypatch):
        """By when they are called; Ctrl-C is heard as Python has it, until they are registered."""
        found, before = {}, signal.signal(signal.SIGINT, signal.default_int_handler)
        monkeypatch.setattr(os, "register_at_fork", lambda **given: found.update(given))
        yield found
        signal.signal(signal.SIGINT, before)

    def test_ctrl_c_waits_until_a_fork_is_over(self, hooks):
        watch_forks.__wrapped__()
        hooks["before"]()
        assert not is_heard(press_ctrl_c)
        assert is_heard(hooks["after_in_parent"], 20)
        hooks["before"]()
        assert not is_heard(hooks["after_in_parent"], 0.2), "it was heard twice"
        assert is_heard(press_ctrl_c)

    def test_a_fork_of_another_thread_keeps_nothing_from_the_program(self, hooks):
        watch_forks.__wrapped__()
        in_thread(hooks["before"])
        assert is_heard(press_ctrl_c)
        hooks["before"]()
        in_thread(hooks["after_in_parent"])
        assert not is_heard(press_ctrl_c), "the main thread still forks"
        assert is_heard(hooks["after_in_parent"], 20)

    def test_a_child_hears_at_once_and_ends_with_its_parent(self, hooks, monkeypatch):
        parents = []
        monkeypatch.setattr(module, "end_with", parents.append)
        watch_forks.__wrapped__()
        hooks["before"]()
        assert not is_heard(press_ctrl_c)
        hooks["after_in_child"]()
        assert parents == [os.getpid()]
        assert is_heard(press_ctrl_c)
        hooks["before"]()
        assert not is_heard(hooks["after_in_parent"], 0.2), "what its parent had heard is its parent's"

    def test_a_program_that_hears_ctrl_c_itself_goes_on_to(self, hooks):
        in_thread(watch_forks.__wrapped__)  # in which no signal can be set
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        watch_forks.__wrapped__()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


def is_heard(act, seconds=0.0):
    """Tell whether Ctrl-C is heard while it is done, or in some seconds after it."""
    try:
        act()
        time.sleep(seconds)
    except KeyboardInterrupt:
        return True
    return False


def in_thread(act):
    """Call it in another thread, whose errors are this one's."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()


@pytest.mark.parametrize("group", [False, True])
def test_a_process_ends_within_a_second_when_it_has_another_parent(monkeypatch, group):
    parents, done, threads = [1, 7, 7], [], []

    def start(thread):
        threads.append(thread)

    monkeypatch.setattr(os, "getppid", parents.pop)
    monkeypatch.setattr(time, "sleep", lambda seconds: done.append(f"wait {seconds <= 1}"))
    monkeypatch.setattr(os, "killpg", lambda *given: done.append(given))
    monkeypatch.setattr(os, "_exit", done.append)
    monkeypatch.setattr(threading.Thread, "start", start)
    end_with(7, **({"group": True} if group else {}))
    (thread,) = threads
    assert thread.daemon, "a program that has nothing else to do waits for others"
    thread.run()
    assert done == ["wait True", "wait True", *([(os.getpgrp(), signal.SIGKILL)] if group else []), 1]


def test_a_worker_hears_no_ctrl_c_and_ends_with_the_program(monkeypatch):
    parents, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(module, "end_with", parents.append)
    try:
        module._begin_worker(7)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert parents == [7]


DEAF = """
import multiprocessing, signal
from nnunetv2_d2net.base.processes import hearing_later
if __name__ == "__main__":
    with hearing_later():
        pool = multiprocessing.get_context("spawn").Pool(1)
    of_pool = pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ()))
    own = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    print(signal.SIGINT in of_pool, signal.SIGINT in own)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not blocked there")
def test_the_first_processes_of_a_program_are_as_deaf_to_ctrl_c_as_later_ones():
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split() == ["True", "False"]
