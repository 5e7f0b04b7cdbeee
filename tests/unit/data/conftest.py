"""What the tests of converters and phantom share."""

import multiprocessing
import os
import signal
import threading
import time

import pytest


@pytest.fixture
def kill_a_worker():
    """Return a function that starts to wait for a process of the pool, in order to kill it."""
    stop = threading.Event()

    def kill():
        others = set(multiprocessing.active_children())
        while not stop.is_set():
            for process in set(multiprocessing.active_children()) - others:
                os.kill(process.pid, signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    yield thread.start
    stop.set()
    thread.join()
