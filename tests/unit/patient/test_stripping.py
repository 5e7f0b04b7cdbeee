import os
import stat

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.appearance import Appearance, CohortAppearance
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.patient.reading import read_sequences
from nnunetv2_d2net.patient.stripping import skull_warnings, strip_skull
from tests.one_patient import draw_patient

NOTHING = np.full((1, 1, 8), np.nan)
BRAINS = CohortAppearance.of([Appearance(NOTHING, 1400, plain=True)])
HEADS = CohortAppearance.of([Appearance(NOTHING, 4000, plain=True)])
NOISY = CohortAppearance.of([Appearance(NOTHING, 1400, plain=False)])


@pytest.fixture
def sequences(patient):
    with_skull = draw_patient(skull=True)
    return read_sequences({"FLAIR": patient["FLAIR"], "T1": with_skull["T1"], "T2": with_skull["T2"]})[0]


def test_a_skull_is_told_where_the_model_knows_brains_or_says_nothing(sequences):
    for cohort in (BRAINS, None):
        (line,) = skull_warnings(sequences, cohort)
        assert line.startswith("T1 and T2 seem to show the skull")
        assert "HD-BET" in line
        assert "--strip" in line
    assert skull_warnings(sequences, HEADS) == []
    assert skull_warnings(sequences, NOISY) == []
    assert skull_warnings({"FLAIR": sequences["FLAIR"]}, BRAINS) == []


def test_a_head_too_large_for_a_brain_is_told_without_any_noise(sequences):
    image = sequences["FLAIR"].image
    image.SetSpacing((10.0, 10.0, 10.0))
    assert len(skull_warnings({"FLAIR": sequences["FLAIR"]}, BRAINS)) == 1


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Write a program that is called as HD-BET, and let it be the only one."""

    def write(script):
        path = tmp_path / "bin" / "hd-bet"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")

    return write


def test_stripping_masks_every_sequence(tool, patient, tmp_path):
    brain = sitk.GetArrayFromImage(patient["FLAIR"]) > 600
    mask = sitk.GetImageFromArray(np.where(brain, 5, 0).astype(np.float32))
    sitk.WriteImage(mask, str(tmp_path / "stripped.nii.gz"))
    tool(f'echo "$@" > {tmp_path}/words; cp {tmp_path}/stripped.nii.gz "$4"')
    found = strip_skull(patient, "FLAIR", "cuda")
    assert (tmp_path / "words").read_text(encoding="utf-8").split()[-2:] == ["-device", "cuda"]
    for name, image in patient.items():
        before, after = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(found[name])
        assert np.array_equal(after, np.where(brain, before, 0))
        assert found[name].GetOrigin() == image.GetOrigin()


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo out of luck >&2; exit 3", r"hd-bet failed on FLAIR \(out of luck\)"), ("true", "it wrote no image")],
)
def test_a_tool_that_fails(tool, patient, script, said):
    tool(script)
    with pytest.raises(UserError, match=said):
        strip_skull(patient, "FLAIR")


def test_no_brain_and_no_tool(tool, patient, tmp_path, monkeypatch):
    sitk.WriteImage(patient["FLAIR"] * 0, str(tmp_path / "empty.nii.gz"))
    tool(f'cp {tmp_path}/empty.nii.gz "$4"')
    with pytest.raises(UserError, match="found no brain in FLAIR"):
        strip_skull(patient, "FLAIR")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"hd-bet is not installed, which --strip needs: pip install hd-bet"):
        strip_skull(patient, "FLAIR")
