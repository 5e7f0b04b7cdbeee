"""Words of d2net segment, and what it refuses before torch is imported."""

from typing import NamedTuple

import pytest
import SimpleITK as sitk

from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.patient import model as model_module
from nnunetv2_d2net.patient import segment as segment_module
from nnunetv2_d2net.patient.volumes import Volume
from tests.one_patient import draw_patient, write_model
from tests.refusals import line_of


class Saved(NamedTuple):
    """Stands in for a result."""

    volumes: list

    def save(self, folder, *, overwrite):
        (folder / "segmentation.nii.gz").write_text("overwritten" if overwrite else "written", encoding="utf-8")


@pytest.fixture
def calls(monkeypatch):
    """Stand in for the segmentation; say what it gets."""
    calls = []

    def segment(images, model, **options):
        calls.append((images, model, options))
        return Saved([Volume("region", "whole tumor", (1,), 12.34)])

    monkeypatch.setattr(segment_module, "segment", segment)
    monkeypatch.delenv("D2NET_DEBUG", raising=False)
    return calls


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p").mkdir()
    for name, image in draw_patient((4, 4, 4)).items():
        sitk.WriteImage(image, str(tmp_path / "p" / f"{name}.nii.gz"))
    return tmp_path / "p"


def run(*words):
    return main(["segment", *map(str, words)])


def test_a_folder(calls, model, folder, tmp_path, capsys):
    (folder / "seg.nii.gz").touch()
    assert run(folder, "-m", model.parents[1], "-o", tmp_path / "out") == 0
    ((images, used, options),) = calls
    assert images == {name: folder / f"{name}.nii.gz" for name in ("FLAIR", "T1", "T1ce", "T2")}
    assert used == model
    assert options.pop("progress")
    assert set(options.values()) == {None, False}
    said = capsys.readouterr()
    assert f"d2net: T1ce = {folder}/T1ce.nii.gz\n" in said.err
    assert f"passed over: {folder}/seg.nii.gz" in said.err
    assert "region whole tumor: 12.3 ml\n" in said.out
    assert said.out.count("Research only, not for diagnosis") == 1
    assert "Research only" not in said.err


def test_files_by_name_in_any_place_and_case(calls, model, folder, tmp_path, capsys):
    flair, t2 = folder / "FLAIR.nii.gz", folder / "T2.nii.gz"
    words = ["--flair", flair, "-o", tmp_path / "out", f"--T2={t2}", "-m", model, "--register", "--reference", "T2"]
    assert run(*words, "--strip", "--mirror", "-device", "cpu") == 0
    ((images, _, options),) = calls
    assert images == {"FLAIR": flair, "T2": t2}
    assert options == {
        "reference": "T2",
        "register": True,
        "strip": True,
        "mirror": True,
        "device": "cpu",
        "progress": True,
    }
    assert "d2net: T1 is absent\n" in capsys.readouterr().err


def test_a_file_beside_a_folder_takes_the_place_of_what_is_there(calls, model, folder, tmp_path):
    other = tmp_path / "other.nii.gz"
    (folder / "again").mkdir()
    (folder / "again" / "t1.nii.gz").touch()
    assert run(folder, "-m", model, "-o", tmp_path / "out") == 1
    assert run(folder, "--T1", other, "-m", model, "-o", tmp_path / "out") == 0
    assert calls[0][0]["T1"] == other
    assert calls[0][0]["T2"] == folder / "T2.nii.gz"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "no patient is given: d2net segment FOLDER -o OUT, or name files, --FLAIR FILE"),
        ([""], "an empty word (a variable that is not set?): pass the folder of one patient"),
        (["a", "b"], "b beside a: pass the folder of one patient"),
        (["--ADC", "a.nii"], "unknown argument --ADC: the model's sequences are --FLAIR, --T1, --T1ce, --T2"),
        (["a", "-x"], "unknown argument -x"),
        (["--T1"], "--T1 takes one file, once"),
        (["--T1", "--T2", "a.nii"], "--T1 takes one file, once"),
        (["--T1", "a.nii", "--t1", "b.nii"], "--t1 takes one file, once"),
    ],
)
def test_words_without_meaning_are_one_line_and_status_2(calls, model, tmp_path, capsys, words, part):
    assert run(*words, "-m", model, "-o", tmp_path / "out") == 2
    assert part in line_of(capsys.readouterr().err)
    assert not calls
    assert not (tmp_path / "out").exists()


def test_no_output_is_status_2(model, capsys):
    with pytest.raises(SystemExit) as stop:
        run("a", "-m", model)
    assert stop.value.code == 2
    assert "-o" in capsys.readouterr().err


def test_what_is_there_is_kept_unless_it_may_be_overwritten(calls, model, folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "segmentation.nii.gz").write_text("mine", encoding="utf-8")
    assert run(folder, "-m", model, "-o", out) == 1
    assert f"{out}/segmentation.nii.gz exists: pass another -o, or --overwrite\n" in capsys.readouterr().err
    assert not calls
    assert run(folder, "-m", model, "-o", out, "--overwrite") == 0
    assert (out / "segmentation.nii.gz").read_text(encoding="utf-8") == "overwritten"


def test_no_model(calls, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(model_module, "WEIGHTS", tmp_path / "weights")
    assert run(folder, "-o", tmp_path / "out") == 1
    assert "weights holds no model: install a release of nnunetv2_d2net, or pass -m MODEL" in capsys.readouterr().err
    assert run(folder, "-m", folder, "-o", tmp_path / "out") == 1
    assert "is no model: pass the folder of a trained one" in capsys.readouterr().err
    assert not calls
