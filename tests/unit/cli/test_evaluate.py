import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.cli import main as cli
from nnunetv2_d2net.study.scores.tables import ONE_TRAINING
from tests.refusals import line_of


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """One case, predicted from T1 without the core, and from both modalities as it is."""
    monkeypatch.delenv("D2NET_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    reference = np.zeros((4, 8, 8), np.uint8)
    reference[1:3, 2:6, 2:6] = 1
    reference[1:3, 3:5, 3:5] = 2
    dataset = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "file_ending": ".nii.gz",
    }
    for folder, labels in (
        ("predictions/T1", np.minimum(reference, 1)),
        ("predictions/T1+T2", reference),
        ("labels", reference),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / folder / "case.nii.gz"))
    return tmp_path


def evaluate(*words):
    return cli.main(["evaluate", "-np", "1", *words])


def test_tables_are_printed_and_written(folders, capsys):
    assert evaluate("-i", "predictions", "-r", "labels") == 0
    printed = capsys.readouterr().out
    assert "| T1        | 1 | 1.000 ± -     | 0.000 ± -     |" in printed
    assert "| T1        | 0 / 0 | 0 / 1 |" in printed
    assert "surface Dice at 1 mm" in printed
    assert "predictions/evaluation" in printed
    assert "BraTS 2018" not in printed
    assert (folders / "predictions" / "evaluation" / "metrics.csv").is_file()
    assert (folders / "predictions" / "evaluation" / "table_dice.tex").is_file()
    assert evaluate("-i", "predictions", "-r", "labels", "-o", "elsewhere", "--tolerance", "2") == 0
    told = capsys.readouterr()
    assert "surface Dice at 2 mm" in told.out
    assert f"d2net: {ONE_TRAINING}\n" in told.err
    assert evaluate("-i", "predictions", "-r", "labels", "-q") == 0
    told = capsys.readouterr()
    assert "| T1        | 1 | 1.000 ± -" in told.out
    assert told.err == ""
    assert (folders / "elsewhere" / "tables.json").is_file()


def test_published_figures_are_marked(folders, capsys):
    assert evaluate("-i", "predictions", "-r", "labels", "--published") == 0
    printed = capsys.readouterr().out
    assert printed.index("0.000 ± -") < printed.index("of another data set") < printed.index("DeMoSeg")
    assert evaluate("--published") == 0
    assert "BraTS 2018" in capsys.readouterr().out


def test_a_case_that_cannot_be_scored(folders, capsys):
    (folders / "predictions" / "T1" / "case.nii.gz").write_text("no image", encoding="utf-8")
    assert evaluate("-i", "predictions", "-r", "labels") == 1
    told = capsys.readouterr()
    assert "1.000 ± -" in told.out
    assert "d2net: error: case 'case', T1: predictions/T1/case.nii.gz cannot be read" in told.err
    assert told.err.splitlines()[-1].startswith("d2net: error: 1 could not be scored")


def test_gaps_are_told(folders, capsys):
    (folders / "labels" / "other.nii.gz").write_bytes((folders / "labels" / "case.nii.gz").read_bytes())
    (folders / "predictions" / "T1" / "other.nii.gz").write_bytes((folders / "labels" / "case.nii.gz").read_bytes())
    (folders / "labels" / "third.nii.gz").touch()
    assert evaluate("-i", "predictions", "-r", "labels") == 0
    printed = capsys.readouterr().out
    assert "T1+T2: no prediction for 1 case, " in printed
    assert "no prediction for 1 reference, such as third" in printed


CHECKPOINT = "fold_0/checkpoint_final.pth"


@pytest.fixture
def model(folders):
    """A model, and notes that say it made all predictions."""
    (folders / "model" / "fold_0").mkdir(parents=True)
    (folders / "model" / CHECKPOINT).write_bytes(b"weights")
    write_note(folders / "predictions" / "T1", ["T1"])
    write_note(folders / "predictions" / "T1+T2", ["T1", "T2"])
    return folders / "model"


def write_note(folder, available, weights=b"weights"):
    made_by = {CHECKPOINT: hashlib.sha256(weights).hexdigest()} if weights else {}
    note = {"available modalities": available, "checkpoints (sha256)": made_by}
    (folder / "case.modalities.json").write_text(json.dumps(note), encoding="utf-8")


def test_what_was_measured_is_kept_with_the_model(folders, model, capsys):
    assert evaluate("-i", "predictions", "-r", "labels", "--model", "model") == 0
    assert "written: model/dice_by_subset.json" in capsys.readouterr().out
    content = json.loads((model / "dice_by_subset.json").read_text(encoding="utf-8"))
    assert content["dice"] == {"T1": {"whole": 1.0, "core": 0.0}, "T1+T2": {"whole": 1.0, "core": 1.0}}
    assert content["sd"] == {"T1": {"whole": None, "core": None}, "T1+T2": {"whole": None, "core": None}}
    assert content["n"] == {"T1": {"whole": 1, "core": 1}, "T1+T2": {"whole": 1, "core": 1}}
    assert content["measured on"] == f"the cases of {folders.name}/labels"
    assert content["checkpoints"] == {CHECKPOINT: hashlib.sha256(b"weights").hexdigest()}


def test_the_note_of_a_plain_folder_says_what_was_given(folders, model):
    (folders / "predictions" / "T1+T2" / "dataset.json").rename(folders / "dataset.json")
    assert evaluate("-p", "predictions/T1+T2", "-r", "labels", "--model", "model") == 0
    content = json.loads((model / "dice_by_subset.json").read_text(encoding="utf-8"))
    assert content["dice"] == {"T1+T2": {"whole": 1.0, "core": 1.0}}


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda f: (f / "predictions" / "T1" / "case.modalities.json").unlink(), "case.modalities.json"),
        (lambda f: write_note(f / "predictions" / "T1", ["T1"], b"others"), "did not make this segmentation"),
        (lambda f: write_note(f / "predictions" / "T1", ["T1"], b""), "no checkpoint of model did"),
        (lambda f: (f / "model" / CHECKPOINT).write_bytes(b"trained on"), "did not make this segmentation"),
        (lambda f: (f / "model" / CHECKPOINT).unlink(), "did not make this segmentation"),
        (lambda f: (f / "model").rename(f / "elsewhere"), "model is no folder"),
        (lambda f: (f / "labels" / "case.nii.gz").write_text("none", encoding="utf-8"), "nothing was kept in model"),
    ],
)
def test_nothing_is_kept_with_a_model_that_was_not_measured(folders, model, spoil, part, capsys):
    spoil(folders)
    assert evaluate("-i", "predictions", "-r", "labels", "--model", "model") == 1
    printed = capsys.readouterr()
    assert part in printed.err.splitlines()[-1]
    assert ("T1+T2" in printed.out) == ("nothing was kept" not in part)
    assert not list(folders.rglob("dice_by_subset.json"))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-i", "predictions"], "missing -i or -r"),
        (["-i", "predictions", "-r", "labels", "--fast"], "unknown argument --fast"),
        (["-i", "nowhere", "-r", "labels"], "nowhere is no folder"),
        (["-i", "predictions", "-r", "nowhere"], "nowhere is no folder"),
        (["-i", "predictions", "-r", "labels", "-np", "0"], "at least 1 process"),
        (["-i", "predictions", "-r", "labels", "--tolerance", "-1"], "tolerance of -1"),
        (["-i", "predictions", "-r", "labels", "--tolerance", "nan"], "tolerance of nan"),
    ],
)
def test_bad_input(folders, words, part, capsys):
    assert evaluate(*words) in (1, 2)
    assert part in line_of(capsys.readouterr().err)
    assert not (folders / "predictions" / "evaluation").exists()


def test_torch_is_not_imported():
    names = ("cli.evaluate", *(f"study.scores.{name}" for name in ("evaluate", "tables", "comparison", "published")))
    code = f"import sys, {', '.join(f'nnunetv2_d2net.{name}' for name in names)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
