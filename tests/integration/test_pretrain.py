"""Pretraining at toy size: from nothing to a small model, and a second call that does nothing twice."""

import zipfile

import pytest
import SimpleITK as sitk
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.patient.segment import segment
from nnunetv2_d2net.plugin.protocols import SUBSETS
from nnunetv2_d2net.plugin.training.pretraining import nnUNetTrainerModalityDropoutPretraining
from nnunetv2_d2net.study import pretrain
from nnunetv2_d2net.study.pretrain import Pretraining, run_pretraining
from tests.integration.test_demo import VARIABLES
from tests.refusals import line_of

pytest.importorskip("nilearn")
MEBIBYTES = 2**20
LAST_BIAS = "decoder.seg_layers.3.bias"


@pytest.fixture
def toy_training(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # whatever the command sets is undone afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(nnUNetTrainerModalityDropoutPretraining, "n_iterations", 2)
    monkeypatch.setattr(pretrain, "N_CHOICE_CASES", 1)


@pytest.mark.slow
def test_from_nothing_to_a_model_and_again(toy_training, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["pretrain", "-o", str(out), "--cases", "2", "--epochs", "1", "-np", "1"]
    words += ["--subsets", "T1ce+FLAIR=3", "all"]
    assert main(words) == 0
    assert read_json(next(out.rglob(SUBSETS)), "")["subsets"] == {"FLAIR+T1ce": 3.0, "FLAIR+T1+T1ce+T2": 1.0}
    archive = out / "nnUNetTrainerModalityDropoutPretraining_1epoch.zip"
    assert f"written: {archive}" in capsys.readouterr().out
    assert archive.stat().st_size < 10 * MEBIBYTES
    before = archive.stat().st_mtime_ns, next(out.rglob("checkpoint_final.pth")).stat().st_mtime_ns
    assert main(words) == 0
    assert (archive.stat().st_mtime_ns, next(out.rglob("checkpoint_final.pth")).stat().st_mtime_ns) == before

    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "model")
    checkpoint = next((tmp_path / "model").rglob("checkpoint_final.pth"))
    weights = torch.load(checkpoint, weights_only=True)["network_weights"]
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    trained = next(out.rglob("checkpoint_final.pth"))
    chosen = read_json(trained.with_name("thresholds.json"), "")
    assert list(chosen) == ["whole tumor", "tumor core", "enhancing tumor"]
    biases = [torch.load(path, weights_only=False)["network_weights"][LAST_BIAS] for path in (trained, checkpoint)]
    shift = torch.tensor(list(chosen.values())).logit()
    torch.testing.assert_close(biases[1].float(), (biases[0] - shift).float(), atol=2e-3, rtol=0)
    plans = read_json(next((tmp_path / "model").rglob("plans.json")), "")
    planned = plans["configurations"]["3d_fullres"]
    assert planned["patch_size"] == [64, 80, 64]
    assert (planned["batch_size"], planned["use_mask_for_norm"]) == (1, [True] * 4)

    case = next(out.rglob("imagesTr")) / "glioma_0000_0000.nii.gz"
    result = segment({"FLAIR": case}, tmp_path / "model")
    assert sitk.GetArrayFromImage(result.segmentation).shape == sitk.GetArrayFromImage(sitk.ReadImage(str(case))).shape


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--epochs", "7"], "no training of 7 epochs: choose --epochs from 1, 5, 10, 20"),
        (["--cases", "0"], "choose --cases"),
        (["--seed", "-1"], "choose --seed"),
        (["-np", "0"], "-np"),
        (["--subsets", "FLAIR+T9"], "T9"),
        (["-device", "cuda"], "torch finds no CUDA device"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_simulated(tmp_path, monkeypatch, capsys, words, part):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["pretrain", "-o", str(tmp_path / "out"), *words]) in (1, 2)
    assert part in line_of(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_it_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="not empty and no pretraining"):
        run_pretraining(tmp_path, Pretraining(), torch.device("cpu"), processes=1)
