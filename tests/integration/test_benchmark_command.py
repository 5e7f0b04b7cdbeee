"""d2net benchmark as a shell starts it: killed in the middle, started again, and once more with nothing left to do."""

import contextlib
import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.images import read_sitk
from nnunetv2_d2net.plugin.registration import trainers_folder
from tests.conftest import RawDataset, nnunet_environment, write_raw_dataset
from tests.integration.conftest import file_states

pytestmark = pytest.mark.slow

SPEC = RawDataset(
    811, "Bench", (20, 20, 20), (1.0, 1.0, 1.0), ("T1", "T2"), {"background": 0, "lesion": 1}, n_train=5, n_test=2
)
ARMS = ("QuickStock", "QuickDropout")
# the second epoch of the second arm waits for a file, so that the test can kill it there
TRAINERS = """
import os, time
from pathlib import Path
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropout


class Quick:
    def on_train_start(self):
        self.num_epochs = 2
        super().on_train_start()
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch, self.save_every = 2, 1, 1

    def on_epoch_end(self):
        super().on_epoch_end()
        gate = Path(os.environ["GATE"])
        while type(self).__name__ == "QuickDropout" and not gate.exists():
            time.sleep(0.05)


class QuickStock(Quick, nnUNetTrainer):
    pass


class QuickDropout(Quick, nnUNetTrainerModalityDropout):
    pass


class QuickCompanion(Quick, CompanionTrainer, nnUNetTrainerModalityDropout):
    pass
"""


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Environment of a shell in which everything is set up; returns the words of the command."""
    with nnunet_environment(tmp_path):
        write_raw_dataset(tmp_path / "raw", SPEC)
        (tmp_path / "trainers").mkdir()
        (tmp_path / "trainers" / "quick.py").write_text(TRAINERS, encoding="utf-8")
        monkeypatch.setenv("nnUNet_extTrainer", f"{trainers_folder()}{os.pathsep}{tmp_path / 'trainers'}")
        monkeypatch.setenv("GATE", str(tmp_path / "gate"))
        monkeypatch.setenv("nnUNet_n_proc_DA", "1")
        words = [
            sys.executable,
            "-m",
            "nnunetv2_d2net.cli.main",
            "benchmark",
            "-d",
            SPEC.dataset_id,
            "-c",
            "3d_fullres",
        ]
        words += ["--arms", *ARMS, "-o", tmp_path / "bench", "-p", "D2NetSmallPlans", "--disable_tta", "--no_cost"]
        yield [str(word) for word in words]


def wait_until(condition, process, seconds=900):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes_of(folder):
    """Numbers of the processes whose command names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may vanish
            if str(folder).encode() in (process / "cmdline").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def test_killed_then_resumed_then_nothing_to_do(shell, tmp_path):
    out = tmp_path / "bench"
    checkpoint = (
        tmp_path / "results" / SPEC.folder_name / "QuickDropout__D2NetSmallPlans__3d_fullres" / "fold_all"
    ) / "checkpoint_latest.pth"
    first = subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    try:
        wait_until(checkpoint.is_file, first)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    deadline = time.monotonic() + 120
    while processes_of(out) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(out)  # its jobs have ended with it

    kept = file_states(out / "QuickStock" / "predictions")
    assert len(kept) >= 3 * SPEC.n_test
    (tmp_path / "gate").touch()
    second = subprocess.run(shell, capture_output=True, encoding="utf-8", check=False)
    assert second.returncode == 0, second.stderr
    assert file_states(out / "QuickStock" / "predictions") == kept
    log = (out / "QuickDropout" / "training_fold_all.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"Epoch 0 *\n", log)) == 1  # the first epoch was not trained again
    assert len(re.findall(r"Epoch 1 *\n", log)) == 1
    description = json.loads((out / "setup.json").read_text(encoding="utf-8"))
    assert [arm["epochs"] for arm in description["arms"]] == [2, 2]
    assert description["differences"] == []
    with (out / "comparison.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["arm"], row["rival"]) for row in rows} == {("QuickDropout", "QuickStock")}
    assert {row["subset"] for row in rows} == {"T1", "T2", "T1+T2", "mean of 3"}
    assert all(f"| {arm} " in (out / "report.md").read_text(encoding="utf-8") for arm in ARMS)
    assert (out / "report.html").is_file()

    before = file_states(out)
    third = subprocess.run(shell, capture_output=True, encoding="utf-8", check=False)
    assert third.returncode == 0, third.stderr
    assert "nothing to do" in third.stdout
    assert file_states(out) == before


def test_the_job_list_is_commands_that_a_cluster_can_run(shell, tmp_path):
    listed = subprocess.run([*shell, "--print_jobs"], capture_output=True, encoding="utf-8", check=True).stdout
    jobs = [line for line in listed.splitlines() if not line.startswith("#")]
    assert [line.rpartition("--job ")[2] for line in jobs[:3]] == ["prepare", "QuickStock/all", "QuickDropout/all"]
    assert all(line.startswith("d2net benchmark ") for line in jobs)
    assert str(tmp_path / "bench") in jobs[-1]


def test_a_companion_starts_from_the_stock_arm_that_is_trained_before_it(shell, tmp_path):
    """And both see the subsets that are named, and no others."""
    at = shell.index("--arms")
    words = [*shell[:at], "--arms", "QuickCompanion", "QuickStock", *shell[at + 3 :], "--start_from", "QuickStock"]
    words = [word for word in words if word != "--no_cost"] + ["-f", "0", "--jobs", "2", "--subsets", "T1", "all=2"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    out, model = tmp_path / "bench", tmp_path / "results" / SPEC.folder_name / "QuickStock__D2NetSmallPlans__3d_fullres"
    arms = {arm["name"]: arm for arm in json.loads((out / "setup.json").read_text(encoding="utf-8"))["arms"]}
    digest = hashlib.sha256((model / "fold_0" / "checkpoint_final.pth").read_bytes()).hexdigest()
    assert arms["QuickCompanion"]["start"] == {"from": "QuickStock", "epochs": 2, "sha256": digest}
    complete = [out / arm / "predictions" / "T1+T2" / "case_Ts0.nii.gz" for arm in arms]
    assert np.array_equal(*(sitk.GetArrayFromImage(read_sitk(path)) for path in complete))
    cost = {arm: json.loads((out / arm / "cost.json").read_text(encoding="utf-8")) for arm in arms}
    n_stock = cost["QuickStock"]["stored_parameters"]
    assert n_stock == cost["QuickStock"]["parameters"] == cost["QuickCompanion"]["inference_parameters"]
    assert cost["QuickCompanion"]["stored_parameters"] == 2 * n_stock
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "2 + 2, from QuickStock" in report
    assert "With all modalities the segmentation of QuickCompanion is that of QuickStock" in report
    fold = model.with_name(model.name.replace("Stock", "Companion")) / "fold_0"
    assert json.loads((fold / "subsets.json").read_text(encoding="utf-8")) == {"subsets": {"T1": 1.0, "T1+T2": 2.0}}
    assert not (model / "fold_0" / "subsets.json").exists()
    choice = json.loads((out / "QuickCompanion" / "choice_fold_0.json").read_text(encoding="utf-8"))
    assert choice["subsets"].keys() == {"T1", "T1+T2"}
    for arm in arms:
        assert {path.name for path in (out / arm / "predictions").iterdir() if path.is_dir()} == {"T1", "T1+T2"}
        assert json.loads((out / arm / "tables.json").read_text(encoding="utf-8"))["inversions"]["lesion"]["pairs"] == 1


def test_the_default_arms_of_a_start_are_companions_and_controls(shell, tmp_path):
    at = shell.index("--arms")
    words = [*shell[:at], *shell[at + 3 :], "--print_jobs", "--start_from"]
    done = subprocess.run([*words, "nnUNetTrainer_5epochs"], capture_output=True, encoding="utf-8", check=True)
    lines = [line.rpartition("--job ")[2] for line in done.stdout.splitlines()]
    students = [
        f"{student}Companion_5epochs/all" for student in ("nnUNetTrainerModalityDropoutImputed", "D2NetTrainer")
    ]
    controls = [f"{control}_10epochs/all" for control in ("nnUNetTrainerModalityDropoutAdamW", "nnUNetTrainer")]
    assert lines[3:9] == [
        "nnUNetTrainer_5epochs/all",
        *controls,
        "# once nnUNetTrainer_5epochs/all is done:",
        *students,
    ]
    assert "no trainers" not in done.stderr
    done = subprocess.run([*words, "nnUNetTrainer_20epochs"], capture_output=True, encoding="utf-8", check=True)
    assert "nnU-Net has no trainers of 40 epochs" in done.stderr
    done = subprocess.run([*words, str(tmp_path / "none")], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"d2net: error: no model of {tmp_path / 'none'} for 3d_fullres")
