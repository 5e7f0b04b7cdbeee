import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.cli.main import main
from tests.conftest import ANISOTROPIC_3D, write_raw_dataset

NAME = ANISOTROPIC_3D.folder_name


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Five cases of two modalities; one lacks T2."""
    monkeypatch.delenv("D2NET_DEBUG", raising=False)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.chdir(tmp_path)
    folder = write_raw_dataset(tmp_path / "raw", ANISOTROPIC_3D)
    (folder / "imagesTr" / "case_Tr3_0000.nii.gz").unlink()
    return folder


def inspect(*words):
    return main(["inspect", "-d", NAME, "-np", "1", *words])


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_tables_and_pictures(raw, tmp_path, capsys):
    before = files_of(raw)
    assert inspect() == 0
    assert files_of(raw) == before
    out = tmp_path / "d2net_inspect_Dataset803"
    assert {path.name for path in out.iterdir()} == {
        "cache.jsonl",
        "cache_imagesTs.jsonl",
        "cases.csv",
        "cohort.png",
        "intensities.png",
        "summary.md",
        "suspicions.csv",
        "volumes.png",
    }
    printed = capsys.readouterr().out
    assert "5 cases, of which 0 look suspicious\n  T2: 4 of 5\n  ADC: 5 of 5\n" in printed
    with (out / "cases.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["T2"] for row in rows] == ["available"] * 3 + ["absent", "available"]
    assert rows[0]["shape (z y x)"] == "8 40 40"
    assert rows[0]["spacing (z y x) mm"] == "5 1 1"
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / "case_Tr0.nii.gz")))
    assert float(rows[0]["lesion ml"]) == pytest.approx((label == 1).sum() * 5 / 1000)
    assert rows[3]["T2 p50"] == ""
    assert rows[3]["ADC p50"] != ""
    summary = (out / "summary.md").read_text(encoding="utf-8")
    assert "| all           | 4     | 80%   |" in summary
    assert "| ADC           | 1     | 20%   |" in summary
    for name in ("cohort", "intensities", "volumes"):
        picture = sitk.GetArrayFromImage(sitk.ReadImage(str(out / f"{name}.png")))
        assert min(picture.shape[:2]) > 200
        assert len(np.unique(picture)) > 10


def test_suspicions_are_no_error(raw, capsys):
    shutil.copy(raw / "imagesTr" / "case_Tr0_0001.nii.gz", raw / "imagesTr" / "case_Tr1_0001.nii.gz")
    assert inspect("-o", "elsewhere") == 0
    assert "duplicate: 2, such as case_Tr0: ADC of case_Tr0 and ADC of case_Tr1" in capsys.readouterr().out
    with open("elsewhere/suspicions.csv", encoding="utf-8") as file:  # noqa: PTH123
        assert [row["case"] for row in csv.DictReader(file)] == ["case_Tr0", "case_Tr1"]
    with open("elsewhere/summary.md", encoding="utf-8") as file:  # noqa: PTH123
        assert "- case_Tr0: imagesTr/case_Tr0_0001.nii.gz, imagesTr/case_Tr1_0001.nii.gz: ADC" in file.read()


def test_what_cannot_be_read_is_an_error_after_all_is_written(raw, tmp_path, capsys):
    path = raw / "imagesTr" / "case_Tr2_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:-50])
    assert inspect("-o", "out") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        f"d2net: error: 1 cases or files cannot be read, all are in out/suspicions.csv; the first: {path}"
    )
    assert (tmp_path / "out" / "cohort.png").is_file()
    assert "unreadable" in (tmp_path / "out" / "cases.csv").read_text(encoding="utf-8")


def test_test_cases_go_elsewhere(raw, tmp_path, capsys):
    assert inspect("--split", "Ts") == 0
    assert "2 cases" in capsys.readouterr().out
    assert (tmp_path / "d2net_inspect_Dataset803_Ts" / "cases.csv").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-np", "0"], "-np 0: choose at least 1 process"),
        (["--fast"], "unknown argument --fast"),
        (["-o", f"raw/{NAME}/look"], "is inside the data set, where nothing is written"),
        (["-o", "file/look"], "file/look cannot be written (Not a directory): pass another folder"),
    ],
)
def test_bad_arguments(raw, tmp_path, capsys, words, told):
    (tmp_path / "file").touch()
    assert inspect(*words) in (1, 2)
    assert told in capsys.readouterr().err


def test_no_data_set(raw, tmp_path, capsys):
    assert main(["inspect", "-d", "Dataset999_None"]) == 1
    assert "Dataset999_None does not exist" in capsys.readouterr().err
    description = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    del description["channel_names"]
    (raw / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    assert inspect() == 1
    assert 'lacks "channel_names"' in capsys.readouterr().err
    (raw / "dataset.json").unlink()
    assert inspect() == 1
    assert "dataset.json cannot be read" in capsys.readouterr().err
    assert not list(tmp_path.glob("d2net_inspect*"))


@pytest.mark.parametrize(("split", "other"), [("Tr", "Ts"), ("Ts", "Tr")])
def test_a_case_in_both_splits_is_told(raw, tmp_path, capsys, split, other):
    shutil.copy(raw / "imagesTr" / "case_Tr1_0001.nii.gz", raw / "imagesTs" / "case_Ts0_0001.nii.gz")
    assert inspect("--split", split, "-o", "look") == 0
    with Path("look/suspicions.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    cases = {"Tr": "case_Tr1", "Ts": "case_Ts0"}
    assert (row["case"], row["kind"]) == (cases[split], "duplicate")
    told = f"ADC of {cases[split]} and ADC of {cases[other]} in the other split are voxel by voxel alike"
    assert row["reason"] == told
    assert f"duplicate: 1, such as {cases[split]}: {told}" in capsys.readouterr().out


def test_test_images_that_cannot_be_compared_are_told(raw, capsys, caplog):
    for path in (raw / "imagesTs").iterdir():
        path.rename(path.with_name(f"unnumbered_{path.name.replace('_00', '-')}"))
    assert inspect() == 0
    assert "5 cases, of which 0 look suspicious" in capsys.readouterr().out
    assert caplog.text.count("imagesTs is not searched for duplicates: ") == 1
    caplog.clear()
    shutil.rmtree(raw / "imagesTs")
    assert inspect() == 0
    assert "not searched" not in caplog.text


def test_a_damaged_test_image_does_not_keep_from_looking_at_training_cases(raw, capsys):
    for path in (raw / "imagesTs").iterdir():
        path.write_bytes(b"no image")
    assert inspect() == 0
    assert "5 cases, of which 0 look suspicious" in capsys.readouterr().out
