"""d2net segment as a user calls it: no variable set, files of any format, sequences absent, turned, on other grids."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.patient.model import WEIGHTS
from nnunetv2_d2net.patient.result import FILES
from tests.dicom_series import write_series
from tests.one_patient import CHANNELS, draw_patient, write_model
from tests.pages import DOCS, blocks_of, run_blocks

REAL = os.environ.get("D2NET_REAL_PATIENTS")
PAGE = DOCS / "segment.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def drawn():
    return draw_patient()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("nnUNet_", "D2NET_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path, drawn):
    """One patient, each sequence in another format."""
    patient = tmp_path / "patient"
    write_series(drawn["T1ce"], patient / "DICOM", "1.2.3", "t1_mprage KM")
    write_series(drawn["T1"][:, :, :3], patient / "DICOM", "1.2.4", "localizer")
    for name, file in (("FLAIR", "a_flair.nii.gz"), ("T1", "a_t1.mha"), ("T2", "a_t2w.nrrd")):
        sitk.WriteImage(drawn[name], str(patient / file))
    return patient


def run(*words):
    return main(["segment", *map(str, words)])


def labels(out):
    return sitk.ReadImage(str(out / "segmentation.nii.gz"))


def voxels(image):
    return sitk.GetArrayFromImage(image)


def note(out):
    return json.loads((out / "segmentation.modalities.json").read_text(encoding="utf-8"))


def same_grid(one, other):
    return all(
        np.allclose(getattr(one, what)(), getattr(other, what)(), atol=1e-4)
        for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection")
    )


def alone(*words, cwd):
    """Call the command where nothing is set but what a shell needs."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd)}
    command = [sys.executable, "-m", "nnunetv2_d2net.cli", "segment", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_with_no_variable_set(folder, model, drawn, tmp_path):
    done = alone(folder, "-m", model, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nnUNet_" not in done.stdout + done.stderr
    assert done.stdout.count("Research only, not for diagnosis") == 1
    assert "T1ce = " in done.stderr
    assert "d2net: case 'the patient': " in done.stderr
    assert "it/s" not in done.stderr  # no bars into a file
    assert "s/it" not in done.stderr
    assert "(t1_mprage KM, 20 files)" in done.stderr
    assert "passed over: " in done.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == set(FILES)
    assert same_grid(labels(out), drawn["FLAIR"])
    assert voxels(labels(out)).any()


@pytest.mark.slow
def test_each_sequence_absent_in_turn(folder, model, drawn, tmp_path):
    files = dict(zip(CHANNELS, ("a_flair.nii.gz", "a_t1.mha", "DICOM", "a_t2w.nrrd"), strict=True))
    assert run(folder, "-m", model, "-o", tmp_path / "all") == 0
    for name, file in files.items():
        (folder / file).rename(tmp_path / "away")
        assert run(folder, "-m", model, "-o", tmp_path / name) == 0
        assert note(tmp_path / name)["absent modalities"] == [name]
        assert same_grid(labels(tmp_path / name), drawn["FLAIR"])
        assert not np.array_equal(voxels(labels(tmp_path / name)), voxels(labels(tmp_path / "all")))
        (tmp_path / "away").rename(folder / file)


@pytest.mark.slow
def test_a_patient_who_is_turned(model, drawn, tmp_path):
    for name, image in drawn.items():
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        sitk.WriteImage(sitk.DICOMOrient(image, "RAI"), str(tmp_path / f"turned_{name}.nii.gz"))
    for prefix, out in (("", "straight"), ("turned_", "turned")):
        words = [word for name in CHANNELS for word in (f"--{name}", tmp_path / f"{prefix}{name}.nii.gz")]
        assert run(*words, "-m", model, "-o", tmp_path / out) == 0
    turned = labels(tmp_path / "turned")
    assert same_grid(turned, sitk.DICOMOrient(drawn["T1"], "RAI"))
    back = voxels(sitk.DICOMOrient(turned, "LPS"))
    assert np.mean(back == voxels(labels(tmp_path / "straight"))) > 0.999


@pytest.mark.slow
def test_other_grids(model, drawn, tmp_path, capsys):
    fine = draw_patient((40, 48, 44), (3.0, 3.0, 3.0), ("T1",))["T1"]
    for name, image in (("flair", drawn["FLAIR"]), ("t1", fine), ("t2", drawn["T2"])):
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    assert run(tmp_path, "-m", model, "-o", tmp_path / "out") == 0
    assert same_grid(labels(tmp_path / "out"), fine)
    assert "resampled onto" in note(tmp_path / "out")["sequences"]["T2"]["grid"]
    assert run(tmp_path, "-m", model, "-o", tmp_path / "coarse", "--reference", "t2") == 0
    assert same_grid(labels(tmp_path / "coarse"), drawn["T2"])
    shifted = sitk.Image(drawn["T2"])
    shifted.SetOrigin((-20.0, -50.0, -40.0))
    sitk.WriteImage(shifted, str(tmp_path / "t2.nii.gz"))
    capsys.readouterr()
    assert run(tmp_path, "-m", model, "-o", tmp_path / "none") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("d2net: error: ")
    assert "shows another head" in error
    assert "pass --register" in error
    assert not (tmp_path / "none").exists()


def test_a_skull_is_told_and_noted(model, tmp_path, capsys):
    sitk.WriteImage(draw_patient(skull=True)["FLAIR"], str(tmp_path / "flair.nii.gz"))
    assert run(tmp_path, "-m", model, "-o", tmp_path / "out") == 0
    assert "d2net: FLAIR seems to show the skull" in capsys.readouterr().err
    assert any("HD-BET" in line for line in note(tmp_path / "out")["remarks on the images"])


def test_what_is_there_is_refused(folder, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(folder, "-m", model, "-o", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    assert run(folder, "-m", model, "-o", out) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run(folder, "-m", model, "-o", out, "--overwrite", "--T1", folder / "a_t2w.nrrd") == 0
    assert (out / "segmentation.nii.gz").read_bytes() != before["segmentation.nii.gz"]


@pytest.mark.slow
def test_the_page(model, drawn, tmp_path, monkeypatch):
    """Its command and its Python run as they stand, one after the other."""
    (tmp_path / "patient").mkdir()
    for name, file in (("FLAIR", "flair"), ("T1ce", "t1ce")):
        sitk.WriteImage(drawn[name], str(tmp_path / f"{file}.nii.gz"))
        shutil.copy(tmp_path / f"{file}.nii.gz", tmp_path / "patient")
    (tmp_path / "model").symlink_to(model)
    (commands,) = (block.text for block in blocks_of(PAGE) if block.language == "sh")
    first, second = (shlex.split(line, comments=True)[2:] for line in commands.splitlines())
    monkeypatch.chdir(tmp_path)
    assert run(*first, "-m", "model") == 0  # the model that is shipped may not be there
    assert run(*second) == 0
    printed = run_blocks(tmp_path, ("segment.md", "## From Python"))
    assert "region whole tumor" in printed
    assert "['T1', 'T2'] (22, 24, 20)" in printed
    assert "missing.nii.gz is not there" in printed
    assert set(FILES) <= {path.name for path in (tmp_path / "out_python").iterdir()}


def patients(root):
    """Folders below that hold images."""
    return sorted({path.parent for path in Path(root).rglob("*.nii.gz")}) if root else []


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="D2NET_REAL_PATIENTS names no folder of real patients")
@pytest.mark.parametrize("patient", patients(REAL), ids=lambda path: path.name)
def test_real_patients(patient, model, tmp_path):
    used = [] if any(WEIGHTS.glob("**/plans.json")) else ["-m", model]
    assert run(patient, *used, "-o", tmp_path / "all") == 0
    sources = {name: one["source"] for name, one in note(tmp_path / "all")["sequences"].items()}
    assert len(sources) >= 2
    for name, file in sources.items():
        rest = tmp_path / f"without {name}"
        shutil.copytree(patient, rest)
        (rest / Path(file).name).unlink()
        assert run(rest, *used, "-o", tmp_path / name) == 0
        assert name in note(tmp_path / name)["absent modalities"]
        assert same_grid(labels(tmp_path / name), labels(tmp_path / "all"))
