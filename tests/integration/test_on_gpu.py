"""What is run on a GPU runs in rehearsal; steps that fail, hang or die leave what they know, and the next ones run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
STEPS = [
    "machine",
    "tests for a GPU",
    "training step",
    "forward pass",
    "memory of a step",
    "memory of the plans",
    "200 steps",
    "NCCL",
    "prediction",
    "phantoms",
    "D2NetTrainer",
    "nnUNetTrainerModalityDropout",
    "nnUNetTrainer",
    "forward pass, compiled",
    "training step, compiled",
]


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import step_by_step

    return step_by_step


def two_rows():
    yield {"a": 1, "b": 0.5}
    yield {"a": 2, "b": 0.25}


def failing():
    yield {"a": 1}
    raise ValueError("many\nlines")


def hanging(path):
    yield {"a": 1}
    child = subprocess.Popen(["sleep", "60"])
    path.write_text(str(child.pid), encoding="utf-8")
    child.wait()


def dying():
    yield {"a": 1}
    os.kill(os.getpid(), signal.SIGKILL)


def saying():
    sys.stdout.write("what it says\n")
    return []


def is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(is_so, seconds):
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.1)
    return is_so()


def test_a_step_that_fails_hangs_or_dies_keeps_its_rows_and_the_next_one_runs(steps, tmp_path, capfd):
    child = tmp_path / "child"
    works = {"fine": two_rows, "fails": failing, "hangs": lambda: hanging(child), "dies": dying, "says": saying}
    todo = [steps.Step(name, work, 2 if name == "hangs" else 20, 0) for name, work in works.items()]
    outcomes = steps.run_steps(todo, 60, tmp_path / "table", tmp_path / "log")
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "out of time", "failed", "done"]
    problems = ["", "ValueError: lines", "more than 2 s", "its process ended with status -9", ""]
    assert [outcome.problem for outcome in outcomes] == problems
    assert [len(outcome.rows) for outcome in outcomes] == [2, 1, 1, 1, 0]
    assert not is_running(int(child.read_text(encoding="utf-8")))
    written = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [tuple(one.values()) for one in written] == [tuple(outcome) for outcome in outcomes]
    markdown = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "## fine\n\n| a | b    |\n|---|------|\n| 1 | 0.5  |\n| 2 | 0.25 |\n" in markdown
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "what it says" in log
    assert "many\nlines" in log
    assert capfd.readouterr().out.startswith("fine: done, ")


def test_steps_for_which_no_time_is_left_are_skipped_and_each_is_written_at_once(steps, tmp_path):
    seen = tmp_path / "seen"

    def looking():
        time.sleep(0.5)
        seen.write_text((tmp_path / "table.json").read_text(encoding="utf-8"), encoding="utf-8")
        return []

    todo = [
        steps.Step("first", two_rows, 9, 0),
        steps.Step("second", looking, 9, 0),
        steps.Step("third", two_rows, 9, 8),
    ]
    outcomes = steps.run_steps(todo, 8, tmp_path / "table", tmp_path / "log")
    assert [outcome.status for outcome in outcomes] == ["done", "done", "skipped"]
    assert outcomes[2].problem == "7 s left, needs 8"
    assert [one["step"] for one in json.loads(seen.read_text(encoding="utf-8"))] == ["first"]


@pytest.mark.slow
def test_a_step_ends_with_the_process_that_started_it(steps, tmp_path):
    child, todo = tmp_path / "child", "step_by_step.Step('', lambda: test.hanging(child), 60, 0)"
    code = f"""
import importlib.util, pathlib, step_by_step
spec = importlib.util.spec_from_file_location("test", {__file__!r})
test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test)
child = pathlib.Path({str(child)!r})
step_by_step.run_steps([{todo}], 60, child.with_name("table"), child.with_name("log"))
"""
    started = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(FOLDER)})
    assert wait_until(lambda: child.is_file() and child.read_text(encoding="utf-8"), 60)
    started.kill()
    started.wait()
    assert wait_until(lambda: not is_running(int(child.read_text(encoding="utf-8"))), 10)


@pytest.mark.slow
def test_rehearsal(tmp_path):
    pytest.importorskip("nilearn")
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", FOLDER / "on_gpu.sh", "--device", "cpu", "--tiny", "--out", tmp_path, "--seconds", "900"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    log = (tmp_path / "on_gpu.log").read_text(encoding="utf-8") if (tmp_path / "on_gpu.log").is_file() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log[-4000:]
    rows = {one["step"]: one["rows"] for one in json.loads((tmp_path / "on_gpu.json").read_text(encoding="utf-8"))}
    assert list(rows) == STEPS
    assert all(rows.values())
    assert [f"\n## {step}\n" in (tmp_path / "on_gpu.md").read_text(encoding="utf-8") for step in STEPS] == [True] * 15
    halves = {(row["precision"], row["trainer"]) for row in rows["training step"]}
    assert len(halves) == 12
    for trainer in STEPS[10:13]:
        assert [row["available"] for row in rows[trainer]] == ["FLAIR", "FLAIR+T1+T1ce+T2", "mean of 2"]
        assert {row["steps"] for row in rows[trainer]} == {2}
        assert all(0 <= row["tumor core"] <= 1 for row in rows[trainer])
    ours, stock = rows["prediction"]
    assert ours["a subset over stock"] == pytest.approx(ours["s"] / 15 / stock["s"])


def test_a_step_that_is_not_there_is_refused(steps, tmp_path, monkeypatch, capsys):
    import on_gpu

    monkeypatch.setattr(sys, "argv", ["on_gpu", "--steps", "nothing", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        on_gpu.main()
    assert "no step is called 'nothing': choose from machine, " in capsys.readouterr().err
