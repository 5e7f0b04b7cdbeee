"""The demo's whole path at toy size: every file it promises, and a second call that does nothing twice."""

import os
from dataclasses import replace

import pytest
from PIL import Image

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.training.demo import D2NetTrainerDemo
from nnunetv2_d2net.study import demo
from nnunetv2_d2net.study.scores.tables import ONE_TRAINING

pytest.importorskip("nilearn")
VARIABLES = (
    "nnUNet_raw",
    "nnUNet_preprocessed",
    "nnUNet_results",
    "nnUNet_extTrainer",
    "nnUNet_n_proc_DA",
    "nnUNet_compile",
)


@pytest.fixture
def toy_demo(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # whatever the demo sets is undone afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(demo, "DATASET", replace(demo.DATASET, n_train=3, n_test=1))
    monkeypatch.setattr(demo, "N_PROCESSES", 1)
    monkeypatch.setattr(D2NetTrainerDemo, "n_epochs", 1)
    monkeypatch.setattr(D2NetTrainerDemo, "n_iterations", 2)


@pytest.mark.slow
def test_demo_and_again(toy_demo, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["demo", "-o", str(out)]) == 0
    first, told = capsys.readouterr()
    assert ONE_TRAINING in told
    assert first.count("\n| ") == 17  # header, 15 subsets, mean
    assert "FLAIR+T1+T1ce+T2" in first
    assert all((out / name).stat().st_size for name in ("dice.csv", "dice.md", "dice_per_case.csv", "demo.png"))
    assert Image.open(out / "demo.png").width > 1000
    written = {path: path.stat().st_mtime_ns for path in (out / "predictions").rglob("*.nii.gz")}
    assert len(written) == 15
    checkpoint = next(out.rglob("checkpoint_final.pth"))
    trained = checkpoint.stat().st_mtime_ns

    assert main(["demo", "-o", str(out)]) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert checkpoint.stat().st_mtime_ns == trained


def test_demo_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.txt").touch()
    before = dict(os.environ)
    with pytest.raises(UserError, match="not empty and no demo"):
        demo.run_demo(tmp_path)
    assert dict(os.environ) == before
