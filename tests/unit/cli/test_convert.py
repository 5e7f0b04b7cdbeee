"""d2net convert, convert_back and phantom --layout as they are typed: what is printed, exit status, bad arguments."""

import re
import shutil
import sys

import numpy as np
import pytest

from nnunetv2_d2net.cli.main import main
from tests.unit.data.convert.source_folders import NEW, label_with, voxels, write_case


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.delenv("D2NET_DEBUG", raising=False)
    (tmp_path / "raw").mkdir()


@pytest.fixture
def source(tmp_path):
    write_case(tmp_path / "my source", "a b", seed=1)
    write_case(tmp_path / "my source", "c", seed=2, only=("T1", "seg"))
    return tmp_path / "my source"


def convert(*words):
    return main(["convert", *map(str, words), "-np", "1"])


def error_of(capsys):
    """The one line of an error."""
    *_, last = capsys.readouterr().err.splitlines()  # below notes
    assert last.startswith("d2net: error: ")
    return last


def test_check_then_convert_then_back(source, tmp_path, capsys):
    assert convert(source, "--check") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{source}: recognized as BraTS 2017 to 2020 (--layout brats2018)\n")
    assert "  -     T1 -    -   training  c\n" in printed
    assert "files:\n  FLAIR: _flair.nii.gz (1)\n  T1: _t1.nii.gz (2)\n" in printed
    assert "MB needed" in printed
    assert printed.endswith("no problems found\n")
    assert not list((tmp_path / "raw").iterdir())

    assert convert(source, "-d", "18", "--name", "Two") == 0
    folder = tmp_path / "raw" / "Dataset018_Two"
    assert f"{folder}: 2 training cases and 0 test cases\n" in capsys.readouterr().out
    assert convert(source, "-d", "18", "--name", "Two") == 0
    assert "2 cases had been converted before" in capsys.readouterr().out

    shutil.move(source / "c", tmp_path / "taken away")
    assert convert(source, "-d", "18", "--name", "Two") == 0
    printed = capsys.readouterr().out
    assert "note: no longer in the source, but staying in the data set: 1 case (c): " in printed
    assert f"{folder}: 2 training cases and 0 test cases\n" in printed

    words = ["convert_back", "-i", str(folder / "labelsTr"), "-o", str(tmp_path / "back"), "-np", "1"]
    assert main([*words, "-d", "18"]) == 0
    assert "2 segmentations written, 0 were there (0 -> 0, 1 -> 1, 2 -> 2, 3 -> 4)" in capsys.readouterr().out
    assert main([*words, "--mapping", str(folder / "conversion.json")]) == 0
    np.testing.assert_array_equal(voxels(tmp_path / "back" / "a b.nii.gz"), label_with(1, 2, 4, 4))


@pytest.mark.parametrize("check", [True, False])
def test_problems_are_named_counted_and_exit_with_1(source, tmp_path, capsys, check):
    (source / "a b" / "a b_t1.nii").touch()
    write_case(source, "d", label=label_with(9))
    write_case(source, "e", label=label_with(8))
    assert convert(source, *(["--check"] if check else ["-d", "18", "--name", "Two"])) == 1
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not re.fullmatch(r"d2net: .*cases in \d\d:\d\d", line)]
    assert [line.split(":")[0] for line in lines[:3]] == ["duplicate file", "unknown labels", "unknown labels"]
    assert "e_seg.nii.gz holds unknown label values 8 (1 voxels)" in lines[2]
    assert lines[3].startswith("d2net: error: 3 cases ")
    assert "(2 unknown labels, 1 duplicate file)" in lines[3]
    assert "cases: 1 for training" in printed.out
    assert (tmp_path / "raw" / "Dataset018_Two" / "dataset.json").is_file() != check


def test_check_needs_no_variable_and_tells_too_little_space(source, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_raw")
    assert convert(source, "--check") == 0
    assert "MB needed" not in capsys.readouterr().out
    assert convert(source, "-d", "1", "--name", "A") == 1
    assert "nnUNet_raw is not set" in error_of(capsys)
    from nnunetv2_d2net.data.convert import convert as module

    monkeypatch.setenv("nnUNet_raw", str(source.parent / "raw"))
    usage = module.shutil.disk_usage(source)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=9))
    assert convert(source, "--check") == 1
    assert "the disk is too small" in error_of(capsys)


def test_resample_is_told(source, capsys):
    write_case(source, "c", seed=5, only=("T2",), origin=(0.5, 0, 0))
    assert convert(source, "--check") == 1
    assert "1 geometry" in error_of(capsys)
    assert convert(source, "--check", "--resample") == 0
    assert "note: " in (printed := capsys.readouterr().out)
    assert "c_t2.nii.gz was resampled onto" in printed


@pytest.mark.parametrize("check", [True, False])
def test_labels_of_another_year_are_asked_about_before_anything_is_written(tmp_path, capsys, check):
    for name in ("a", "b"):
        write_case(tmp_path / "new names", name, NEW, label=label_with(1, 2, 4))
    words = [tmp_path / "new names", *(["--check"] if check else ["-d", "18", "--name", "Old"])]
    assert convert(*words) == 1
    assert "--labels brats2023 or --labels brats2021" in error_of(capsys)
    assert not list((tmp_path / "raw").iterdir())
    assert convert(*words, "--labels", "brats2021") == 0
    assert "4 -> 3  enhancing tumor: 2 voxels in 2 cases" in capsys.readouterr().out


def test_no_training_case_is_an_error(tmp_path, capsys):
    write_case(tmp_path / "validation", "a", only=("T1",))
    assert convert(tmp_path / "validation", "-d", "1", "--name", "A") == 1
    assert "nothing to train on" in error_of(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--check", "--chek"], "unknown argument --chek"),
        (["-d", "1"], "missing -d or --name"),
        (["-d", "1", "--name", "a b"], "choose --name of letters"),
        (["-d", "1000", "--name", "a"], "choose -d between"),
        (["--check", "--layout", "brats2031"], "pass a known layout or a mapping file"),
        (["--check", "--layout", "brats2023"], "holds nothing like CASE-t2f"),
        (["--check", "--test", "/nowhere"], "/nowhere is no folder"),
    ],
)
def test_bad_arguments(source, capsys, words, message):
    assert convert(source, *words) in (1, 2)
    assert message in error_of(capsys)


def test_bad_processes_and_unknown_data_set(source, tmp_path, capsys):
    assert main(["convert", str(source), "--check", "-np", "0"]) == 2
    assert "-np 0" in error_of(capsys)
    words = ["convert_back", "-i", str(source), "-o", str(tmp_path / "o")]
    assert main([*words, "-d", "5"]) == 1
    assert "no folder Dataset005_*" in error_of(capsys)
    (tmp_path / "raw" / "Dataset005_Other").mkdir()
    assert main([*words, "-d", "5"]) == 1
    assert "conversion.json cannot be read" in error_of(capsys)
    assert main([*words, "-d", "5", "-np", "0"]) == 2
    assert "-np 0" in error_of(capsys)


def test_predictions_of_another_model_are_told(source, tmp_path, capsys):
    assert convert(source, "-d", "18", "--name", "Two") == 0
    predictions = tmp_path / "predictions"
    write_case(predictions.parent, predictions.name, only=("seg",), label=label_with(7))
    assert main(["convert_back", "-i", str(predictions), "-o", str(tmp_path / "o"), "-d", "18", "-np", "1"]) == 1
    assert "1 segmentations not converted (1 unknown labels)" in error_of(capsys)


def test_help_of_the_converters_imports_neither_numpy_nor_torch():
    import subprocess

    script = (
        "import sys\nfrom nnunetv2_d2net.cli.main import main\n"
        "for name in ('convert', 'convert_back', 'phantom'):\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numpy', 'nnunetv2', 'SimpleITK'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "pass -d ID for a data set"),
        (["-o", "x", "-d", "7"], "pass -d ID for a data set"),
        (["--layout", "brats2018"], "--layout needs -o FOLDER"),
        (["-d", "0"], "-d between 1 and 999"),
        (["--layout", "brats2018", "-o", "x", "-d", "7"], "--layout needs -o FOLDER"),
        (["-d", "7", "--missing", "0.9"], "--missing from 0 to 0.75"),
    ],
)
def test_phantom_arguments_that_do_not_go_together(words, message, capsys):
    pytest.importorskip("nilearn")
    assert main(["phantom", *words]) in (1, 2)
    assert message in error_of(capsys)
