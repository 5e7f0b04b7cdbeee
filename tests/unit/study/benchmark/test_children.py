import logging
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_d2net.study.benchmark import children
from nnunetv2_d2net.study.benchmark.children import child_environment, run_children

# Starts a process of its own, as trainings do, and tells both numbers.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def scripts(monkeypatch):
    """Let jobs be small scripts, by name."""
    known = {}

    def command(_, name):
        return [sys.executable, "-c", known[name]]

    monkeypatch.setattr(children, "job_command", command)
    monkeypatch.setattr(children, "_POLL_SECONDS", 0.02)
    return known


@pytest.fixture
def interruptible():
    """Whatever started the tests may ignore SIGINT, as a shell does for what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_failure_leaves_the_others_alone_and_says_why(setup, scripts, caplog):
    caplog.set_level(logging.INFO)
    scripts["A/0"] = "print('Epoch 0'); raise SystemExit('OSError: [Errno 28] No space left on device')"
    scripts["B/0"] = "print('fine')"
    scripts["B/1"] = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    scripts["C/0"] = "import sys; sys.stderr.write('d2net: error: mend it\\n\\n'); sys.exit(1)"
    scripts["C/1"] = "raise SystemExit(3)"
    failed = run_children(setup, list(scripts), 2, "test")
    assert {child.name: child.problem for child in failed} == {
        "A/0": "OSError: [Errno 28] No space left on device",
        "B/1": "killed by signal 9 (SIGKILL), perhaps for lack of memory",
        "C/0": "mend it",
        "C/1": "exit status 3",
    }
    assert all(child.log.is_file() for child in failed)
    assert (setup.out / "B" / "training_fold_0.txt").read_text(encoding="utf-8") == "fine\n"
    assert "B/0 done" in caplog.text
    assert f"log: {setup.out / 'A' / 'training_fold_0.txt'}" in caplog.text


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_jobs_and_what_they_started(setup, scripts, monkeypatch, number):
    scripts["A/0"] = FAMILY
    log = setup.out / "A" / "training_fold_0.txt"
    sleep, sent = time.sleep, []

    def stop_once_it_runs(seconds):
        sleep(seconds)
        if log.is_file() and log.read_text(encoding="utf-8") and not sent:  # waiting for the jobs' end sleeps, too
            sent.append(number)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(children.time, "sleep", stop_once_it_runs)
    with pytest.raises(KeyboardInterrupt):
        run_children(setup, ["A/0"], 1, "test")
    monkeypatch.undo()
    pids = [int(pid) for pid in log.read_text(encoding="utf-8").splitlines()[0].split()]
    assert len(pids) == 2
    wait_for(lambda: not any(map(is_alive, pids)))


def test_progress_is_the_last_thing_said_in_this_run(setup, scripts):
    scripts["A/0"] = "print('2026: Epoch 41 ')\nprint('x')\nimport sys; sys.stderr.write('predict:  37%|#| 3/8\\r')"
    log = setup.out / "A" / "training_fold_0.txt"
    log.parent.mkdir(parents=True)
    log.write_text("Epoch 7\n", encoding="utf-8")
    child = children.Child(setup, "A/0", child_environment("cpu", 1))
    assert child.progress() in ("A/0 starts", "A/0 epoch 42", "A/0 predict 37 %")
    child.process.wait()
    assert child.progress() == "A/0 predict 37 %"
    log.write_text("Epoch 7\n2026: Epoch 41 \n", encoding="utf-8")
    assert child.progress() == "A/0 epoch 42"


def test_jobs_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    shared = child_environment("cpu", 3)
    assert (shared["OMP_NUM_THREADS"], shared["nnUNet_n_proc_DA"], shared["OMP_WAIT_POLICY"]) == ("2", "2", "PASSIVE")
    assert "OMP_NUM_THREADS" not in child_environment("cpu", 1)


def test_a_job_waits_for_what_it_starts_from(setup, scripts, tmp_path):
    setup = replace(setup, arms=("nnUNetTrainer", "D2NetTrainerCompanion", "Other"))
    log = tmp_path / "order"
    note = "from pathlib import Path; import time; file = Path({!r}).open('a'); {}file.write({!r} + chr(10))"
    for name, wait in (("nnUNetTrainer/all", "time.sleep(1); "), ("D2NetTrainerCompanion/all", ""), ("Other/all", "")):
        scripts[name] = note.format(str(log), wait, name)
    assert run_children(setup, [*scripts], 2, "train") == []
    assert log.read_text(encoding="utf-8").split() == ["Other/all", "nnUNetTrainer/all", "D2NetTrainerCompanion/all"]
