import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net import segment
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.patient.result import FILES, RESEARCH_ONLY
from tests.one_patient import draw_patient, write_model


def voxels(image):
    return sitk.GetArrayFromImage(image)


@pytest.fixture(scope="module")
def whole(drawn, model):
    return segment(drawn, model)


def test_from_images_in_memory(whole, drawn):
    assert whole.segmentation.GetSize() == drawn["T1"].GetSize()
    assert whole.segmentation.GetOrigin() == drawn["T1"].GetOrigin()
    labels = voxels(whole.segmentation)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}
    assert labels.any()
    whole_tumor = next(v for v in whole.volumes if v.name == "whole tumor")
    assert whole_tumor.ml == pytest.approx((labels > 0).sum() * 0.216)
    assert whole.note["use"] == RESEARCH_ONLY
    assert whole.note["absent modalities"] == []
    assert whole.note["volumes (ml)"]["whole tumor"] == pytest.approx(whole_tumor.ml)
    assert whole.note["sequences"]["T2"] == {"source": "T2, an image in memory", "grid": "its own grid"}


def test_each_sequence_may_be_absent(whole, drawn, model):
    for name in drawn:
        rest = {other: image for other, image in drawn.items() if other != name}
        found = segment(rest, str(model))
        assert found.note["absent modalities"] == [name]
        assert f"absent: {name}; model: {model.name}" in found.captions
        assert not np.array_equal(voxels(found.segmentation), voxels(whole.segmentation))


def test_names_in_any_case_and_order(whole, drawn, model):
    names = {"t1CE": "T1ce", "flair": "FLAIR", "t2": "T2", "T1": "T1"}
    found = segment({name: drawn[channel] for name, channel in names.items()}, model)
    assert np.array_equal(voxels(found.segmentation), voxels(whole.segmentation))
    with pytest.raises(UserError, match="PD is no modality of this model"):
        segment({"PD": drawn["T1"]}, model)
    with pytest.raises(UserError, match="t1, T1: several images for one sequence"):
        segment({"t1": drawn["T1"], "T1": drawn["T1"]}, model)


def test_arrays_and_files_give_the_same(whole, drawn, model, tmp_path):
    import nibabel

    images = dict(drawn)
    sitk.WriteImage(drawn["T2"], str(tmp_path / "t2.nii.gz"))
    loaded = nibabel.nifti1.load(tmp_path / "t2.nii.gz")
    images["T2"] = np.asarray(loaded.dataobj), loaded.affine
    sitk.WriteImage(drawn["T1"], str(tmp_path / "t1.mha"))
    images["T1"] = tmp_path / "t1.mha"
    found = segment(images, model)
    assert np.array_equal(voxels(found.segmentation), voxels(whole.segmentation))


def test_the_reference_may_be_chosen(drawn, model):
    fine = draw_patient((40, 48, 44), (3.0, 3.0, 3.0))["T1"]
    images = {"FLAIR": drawn["FLAIR"], "T1": fine}
    assert segment(images, model).segmentation.GetSize() == fine.GetSize()
    found = segment(images, model, reference="flair")
    assert found.segmentation.GetSize() == drawn["FLAIR"].GetSize()
    assert found.note["sequences"]["T1"]["grid"].startswith("resampled onto FLAIR")


def test_remarks_are_told_and_noted(drawn, model, caplog):
    images = {"FLAIR": draw_patient(skull=True)["FLAIR"], "T1": drawn["T1"] * 0}
    found = segment(images, model)
    constant, skull = found.note["remarks on the images"]
    assert constant == "T1, an image in memory is constant: T1 counts as absent"
    assert skull.startswith("FLAIR seems to show the skull")
    assert {constant, skull} <= {record.getMessage() for record in caplog.records}


def test_a_part_of_the_head_and_what_was_resampled_are_told(drawn, model, caplog):
    with caplog.at_level("INFO", "nnunetv2_d2net"):
        found = segment({"FLAIR": drawn["FLAIR"][:, :, :10], "T1": drawn["T1"]}, model)
    assert found.segmentation.GetSize() == drawn["T1"].GetSize()
    (partial,) = found.note["remarks on the images"]
    assert partial.startswith("FLAIR shows nothing in 5")
    told = {record.getMessage() for record in caplog.records}
    assert {partial, f"FLAIR, an image in memory {found.note['sequences']['FLAIR']['grid']}"} <= told


def test_a_cut_that_was_filled_with_zeros_is_told(drawn, model):
    flair = drawn["FLAIR"]
    cut = sitk.Paste(flair * 0, flair, [*flair.GetSize()[:2], 10])
    (partial,) = segment({"FLAIR": cut, "T1": drawn["T1"]}, model).note["remarks on the images"]
    assert partial.startswith("FLAIR shows nothing in 5")


def test_stripping_is_asked_for_and_noted(drawn, model, monkeypatch):
    seen = []

    def strip_skull(images, reference, device):
        seen.append((list(images), reference, device))
        return {name: image * sitk.Cast(images["T1"] > 500, sitk.sitkFloat32) for name, image in images.items()}

    monkeypatch.setattr("nnunetv2_d2net.patient.segment.strip_skull", strip_skull)
    found = segment({"T1": drawn["T1"], "T2": drawn["T2"]}, model, strip=True, device="cpu")
    assert seen == [(["T1", "T2"], "T1", "cpu")]
    assert voxels(found.images["T1"])[voxels(found.images["T1"]) != 0].min() > 500
    assert found.note["remarks on the images"] == ["what hd-bet takes for no brain in T1 was set to 0"]


def test_mirroring_is_asked_for(whole, drawn, model):
    found = segment(drawn, model, mirror=True)
    assert not np.array_equal(voxels(found.segmentation), voxels(whole.segmentation))


def test_nothing_is_printed(drawn, model, capsys):
    segment(drawn, model)
    assert capsys.readouterr() == ("", "")


def test_a_model_of_its_own_channels_and_labels(drawn, tmp_path):
    model = write_model(tmp_path, ("T2", "ADC"), {"lesion": 1})
    found = segment({"ADC": drawn["FLAIR"]}, model)
    assert [(v.kind, v.name) for v in found.volumes] == [("label", "lesion"), ("region", "lesion")]
    assert found.note["absent modalities"] == ["T2"]


def test_no_device_and_no_fold(drawn, model, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="torch finds no CUDA device: pass -device cpu"):
        segment(drawn, model, device="cuda")
    other = write_model(tmp_path)
    (other / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(UserError, match="does not exist: finish the training"):
        segment(drawn, other)


def test_files(whole, tmp_path):
    out = tmp_path / "new" / "out"
    whole.save(out)
    assert {path.name for path in out.iterdir()} == set(FILES)
    written = sitk.ReadImage(str(out / "segmentation.nii.gz"))
    assert np.array_equal(voxels(written), voxels(whole.segmentation))
    assert json.loads((out / "segmentation.modalities.json").read_text(encoding="utf-8")) == whole.note
    assert "whole tumor" in json.loads((out / "volumes.json").read_text(encoding="utf-8"))["regions"]
    assert (out / "volumes.csv").read_text(encoding="utf-8").startswith("kind,name,values,ml\n")


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_overwritten_unasked(whole, tmp_path, name):
    (tmp_path / name).write_text("mine", encoding="utf-8")
    (tmp_path / "other").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=f"{name} exists: pass another -o, or --overwrite"):
        whole.save(tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
    assert len(list(tmp_path.iterdir())) == 2
    whole.save(tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "other"}
    assert (tmp_path / name).read_bytes() != b"mine"
    assert (tmp_path / "other").read_text(encoding="utf-8") == "mine"
