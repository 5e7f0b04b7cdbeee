"""The scripts of benchmarks/ run; what they measure here means nothing."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from nnunetv2_d2net.base.appearance import APPEARANCE, CohortAppearance, appearance_of
from nnunetv2_d2net.data.phantom import varied
from nnunetv2_d2net.data.phantom.dataset import PhantomSpec, write_phantom
from tests.conftest import REGIONS_3D
from tests.unit.base.test_appearance import head
from tests.unit.plugin.preprocessing.conftest import build_dataset_json, write_image

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


@pytest.fixture
def measure(monkeypatch, tmp_path, capsys):
    """Run a script at toy size; return the rows of its table, which it also prints, and the other figures."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()

    def run_toy(script, *words):
        run(monkeypatch, script, *words, "--toy", "--device", "cpu", "--threads", 1, "--json", tmp_path / "toy.json")
        written = json.loads((tmp_path / "toy.json").read_text(encoding="utf-8"))
        assert capsys.readouterr().out.count("\n|") == len(written["rows"]) + 2
        return written["rows"], written

    yield run_toy
    torch.set_num_threads(threads)


def test_training_step_of_a_data_set(regions_data, measure):
    rows, written = measure("training_step.py", REGIONS_3D.dataset_id, "--plans", "nnUNetPlans")
    assert [row["trainer"] for row in rows] == ["nnUNetTrainer", "nnUNetTrainerModalityDropout", "D2NetTrainer"]
    assert all(len(values) == 1 and values[0] > 0 for values in written["seconds"]["nnUNetPlans"].values())


def test_training_step_without_data(measure):
    rows, _ = measure("training_step.py")
    assert [row["trainer"] for row in rows[:2]] == ["nnUNetTrainerModalityDropout", "D2NetTrainer"]
    assert rows[0]["ratio to nnUNetTrainerModalityDropout"] == 1
    assert rows[1]["parameters"] == rows[2]["parameters"] > rows[0]["parameters"]


def test_inference_forward(measure):
    rows, _ = measure("inference_forward.py", "--clock", "processor")
    assert len(rows) == 2
    assert all(row["ratio"] > 0 for row in rows)


def test_operations(measure):
    ((row,), _) = measure("operations.py")
    shares = {name: value for name, value in row.items() if name.endswith("share")}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)  # the projection of the codes is next to nothing
    unet = row["encoder, share"] + row["decoder, share"]
    assert row["D2-Net / U-Net"] == pytest.approx(1 / unet)
    assert all(0 < share < 1 for share in shares.values())


def test_paper_size(measure):
    ((row,), _) = measure("paper_size.py")
    assert row["parameters, 10^6"] == pytest.approx(5.1, rel=0.1)
    assert row["multiply-adds of a training pass, 10^10"] == pytest.approx(4.2, rel=0.1)
    assert row["of a prediction, 10^10"] < row["multiply-adds of a training pass, 10^10"]
    assert row["parameters with separable convolutions, 10^6"] < 1


def test_training_memory(measure):
    (dropout, d2net, recomputing, imputed, conditioned, repeated), _ = measure("training_memory.py")
    assert dropout["ratio"] == 1 < imputed["ratio"] < conditioned["ratio"] < repeated["ratio"]  # in one pass
    assert 1 < recomputing["ratio"] < d2net["ratio"]


def test_step_profile(measure):
    rows, _ = measure("step_profile.py")
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    trained = {"encoder", "decoder (student)", "teacher", "image_decoder", "adt_kd_losses"}
    assert {row["part"] for row in rows if row["backward, ms"] > 0 and row["forward, ms"] > 0} >= trained


def test_losses(measure):
    (sfmc, distillation), _ = measure("losses.py")
    assert sfmc["figure"] > 10
    assert 0 < distillation["figure"] < 1


def test_growth(measure):
    rows, _ = measure("growth.py")
    assert [row["axis"] for row in rows] == ["M = 2", "M = 3", "C = 1", "C = 2", "G = 16", "G = 32"]
    assert 1.5 < rows[-1]["memory, times the first"] < 2.5


def test_planner_memory(measure):
    ((row,), _) = measure("planner_memory.py")
    assert row["kept / counted"] == pytest.approx(row["U-Net: kept / counted"], rel=0.25)
    assert row["peak, GB"] == "needs --device cuda"


def test_startup(measure):
    (python, d2net), _ = measure("startup.py")
    assert python["s"] > 0
    assert not d2net["imports torch"]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "growth.py", "--device", "cuda", "--toy")
    assert "torch sees no GPU here" in capsys.readouterr().err


def test_alarms(tmp_path, monkeypatch, capsys):
    cohort = CohortAppearance.of([appearance_of(head(seed), (True,) * 3, (5, 5, 5)) for seed in range(8)])
    fingerprint = {"spacings": [[5, 5, 5]], "shapes_after_crop": [[17, 17, 17]], APPEARANCE: cohort.as_json()}
    (tmp_path / "dataset_fingerprint.json").write_text(json.dumps(fingerprint), encoding="utf-8")
    (tmp_path / "dataset.json").write_text(json.dumps(build_dataset_json(3)), encoding="utf-8")
    (tmp_path / "images").mkdir()
    for m, image in enumerate(head(20)):
        write_image(tmp_path / "images" / f"a_{m:04d}.nii.gz", image, (5, 5, 5))
    run(monkeypatch, "alarms.py", tmp_path, tmp_path / "images")
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")]
    assert row[1:5] == ["images", "0 of 1", "0 of 6", "3 of 3"]
    assert row[5].endswith(" of 6")


def test_all_subsets(regions_model, tmp_path, monkeypatch, capsys):
    images = regions_model.raw / "imagesTs"
    words = [regions_model.folder, images, "--fold", 0, "--runs", 1, "--nnunet_runs", 0, "--out", tmp_path / "all.json"]
    run(monkeypatch, "all_subsets.py", *words)
    (row,) = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert row["one pass / sum of parts"] > 0
    assert "| imagesTs |" in capsys.readouterr().out


def test_reality_holds_simulated_cases_against_others(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nilearn")
    from nnunetv2_d2net.data.phantom.dataset import PhantomSpec
    from nnunetv2_d2net.data.phantom.source_layout import write_source

    for name, kind in (("plain", "plain"), ("varied", "varied")):
        write_source(tmp_path / name, "brats2018", PhantomSpec(1, 2, 0, kind=kind))
    folders = ("--simulated", tmp_path / "varied", "--real", tmp_path / "plain", "--spacing", 3, "--cases")
    run(monkeypatch, "reality.py", *folders)
    printed = capsys.readouterr().out
    assert printed.startswith("2 simulated and 2 real cases")
    table, cases = printed.split("\n\n")[1:]
    assert "T1ce: enhancing, level" in table
    assert "**0 of 2**" in table
    row = next(line for line in cases.splitlines() if line.startswith("| T1ce: gray matter, level"))
    assert all(0.75 < float(cell) < 0.95 for cell in row.strip("|").split("|")[1:])
    with pytest.raises(SystemExit):
        run(monkeypatch, "reality.py", "--simulated", tmp_path / "none", "--real", tmp_path / "plain")
    thick = next((tmp_path / "plain").rglob("*flair.nii*"))
    image = sitk.ReadImage(thick)
    image.SetSpacing((3, 3, 6))
    sitk.WriteImage(image, thick)
    with pytest.raises(SystemExit, match=f"{thick} has voxels of 3 x 3 x 6 mm"):
        run(monkeypatch, "reality.py", *folders)


def test_no_tumor_measures_what_is_found_in_heads_without_one(monkeypatch, capsys):
    pytest.importorskip("nilearn")
    monkeypatch.setattr(varied, "WITHOUT_TUMOR", 1.0)
    simulate, seeds = varied.simulate_varied_case, []

    def first_with_tumor(size, seed):
        seeds.append(seed)
        case = simulate(size, seed)
        return case._replace(labels=case.labels + 1) if len(seeds) == 1 else case

    monkeypatch.setattr(varied, "simulate_varied_case", first_with_tumor)
    run(monkeypatch, "no_tumor.py", "--heads", 2, "--size", "small", "--given", "FLAIR", "T1+T2")
    header, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [word.strip() for word in header] == ["given", "region", "heads", "mean ml", "median", "largest"]
    cells = [[word.strip() for word in row] for row in rows]
    assert [row[:3] for row in cells] == [
        [given, region, "2"]
        for given in ("FLAIR", "T1+T2")
        for region in ("whole tumor", "tumor core", "enhancing tumor")
    ]
    assert len(seeds) == 3
    for *_, mean, median, largest in cells:
        assert 0 <= float(mean) == pytest.approx(float(median), abs=0.11)
        assert float(mean) <= float(largest) + 0.05


def test_zero_shot_scores_every_subset_of_what_a_patient_has(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nilearn")
    write_phantom(tmp_path, PhantomSpec(1, n_train=1, n_test=0, size="small", seed=0, name="Real"), processes=1)
    for channel in (1, 3):
        (tmp_path / f"Dataset001_Real/imagesTr/glioma_0000_{channel:04d}.nii.gz").unlink()
    run(monkeypatch, "zero_shot.py", tmp_path / "Dataset001_Real", "-o", tmp_path / "out")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = [[word.strip() for word in line.strip("|").split("|")] for line in lines]
    rows, means = ([row for row in cells if len(row) == n and row[-1][-1].isdigit()] for n in (9, 4))
    given = ["FLAIR", "FLAIR, components", "T1ce", "FLAIR+T1ce", "FLAIR+T1ce, components"]
    assert sorted({row[1] for row in rows}) == sorted([*given, "threshold on FLAIR"])
    assert [row[2] for row in rows if row[1] == "T1ce"] == ["whole tumor", "tumor core", "enhancing tumor"]
    dice = {(row[1], row[2]): float(row[3]) for row in rows}
    assert dice["FLAIR+T1ce", "whole tumor"] > 0.3
    assert {(row[0], row[1]): float(row[3]) for row in means} == dice  # of one patient
