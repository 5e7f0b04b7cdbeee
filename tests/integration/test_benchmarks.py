"""The scripts of benchmarks/ run; what they measure here means nothing."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REGIONS_3D

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(monkeypatch, script, *words):
    """Run a script in this process, and the processes that it starts of itself, too."""

    start_process = subprocess.run

    def start(command, *args, **kwargs):
        if command[:2] != [sys.executable, str(FOLDER / script)]:
            return start_process(command, *args, **kwargs)
        return run(monkeypatch, script, *command[2:])

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", start)
        patch.setattr(sys, "argv", [str(FOLDER / script), *map(str, words)])
        runpy.run_path(str(FOLDER / script), run_name="__main__")


def test_training_step(regions_data, tmp_path, monkeypatch, capsys):
    words = [REGIONS_3D.dataset_id, "--plans", "nnUNetPlans", "--steps", 1, "--json", tmp_path / "steps.json"]
    run(monkeypatch, "training_step.py", *words)
    assert "| D2NetTrainer " in capsys.readouterr().out
    seconds = json.loads((tmp_path / "steps.json").read_text())["seconds"]
    assert all(len(values) == 1 and values[0] > 0 for values in seconds.values())
    assert len(seconds) == 3


def test_phantom_comparison_and_again(regions_data, tmp_path, monkeypatch, capsys):
    arms = ["nnUNetTrainer_1epoch", "D2NetTrainer_1epoch"]
    words = [REGIONS_3D.dataset_id, "--plans", "nnUNetPlans", "--arms", *arms, "--out", tmp_path]
    run(monkeypatch, "phantom_comparison.py", *words)
    table = (tmp_path / "comparison.md").read_text()
    assert all(f"| {arm} " in table for arm in arms)
    assert table in capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert len(written) == len(arms) * 15 * REGIONS_3D.n_test
    run(monkeypatch, "phantom_comparison.py", *words)
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}


def test_all_subsets(regions_model, tmp_path, monkeypatch, capsys):
    images = regions_model.raw / "imagesTs"
    words = [regions_model.folder, images, "--fold", 0, "--runs", 1, "--nnunet_runs", 0, "--out", tmp_path / "all.json"]
    run(monkeypatch, "all_subsets.py", *words)
    (row,) = json.loads((tmp_path / "all.json").read_text())
    assert row["one pass / sum of parts"] > 0
    assert "| imagesTs |" in capsys.readouterr().out
