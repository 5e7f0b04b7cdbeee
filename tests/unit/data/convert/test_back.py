"""Predictions get the source's label values, and no others."""

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder, write_json
from nnunetv2_d2net.data.convert.back import convert_back, read_back_values
from nnunetv2_d2net.data.convert.layouts import BRATS2018
from tests.unit.data.convert.source_folders import label_with, voxels, write_nifti

VALUES = {0: 0, 1: 1, 2: 2, 3: 4}


@pytest.fixture
def predictions(tmp_path):
    folder = tmp_path / "predictions"
    write_nifti(folder / "a b.nii.gz", label_with(1, 2, 3, 3), spacing=(1, 2, 3), origin=(4, 5, 6))
    write_nifti(folder / "c.nii.gz", label_with())
    (folder / "dataset.json").write_text("{}", encoding="utf-8")
    (folder / "a b.modalities.json").write_text("{}", encoding="utf-8")
    return folder


def test_values_names_and_geometry(predictions, tmp_path):
    out = tmp_path / "out"
    result = convert_back(predictions, out, VALUES, 1)
    assert result == (2, 0, [])
    assert sorted(path.name for path in out.iterdir()) == ["a b.nii.gz", "c.nii.gz", "convert_back.json"]
    np.testing.assert_array_equal(voxels(out / "a b.nii.gz"), label_with(1, 2, 4, 4))
    image = sitk.ReadImage(str(out / "a b.nii.gz"))
    assert (image.GetSpacing(), image.GetOrigin()) == ((1, 2, 3), (4, 5, 6))
    assert image.GetPixelID() == sitk.sitkUInt8


@pytest.mark.slow
def test_a_folder_of_subset_folders_in_processes(predictions, tmp_path):
    for subset in ("T1", "FLAIR+T1"):
        (tmp_path / "all" / subset).mkdir(parents=True)
        for path in predictions.iterdir():
            (tmp_path / "all" / subset / path.name).write_bytes(path.read_bytes())
    assert convert_back(tmp_path / "all", tmp_path / "out", VALUES, 2) == (4, 0, [])
    for subset in ("T1", "FLAIR+T1"):
        np.testing.assert_array_equal(voxels(tmp_path / "out" / subset / "a b.nii.gz"), label_with(1, 2, 4, 4))
        assert sorted(path.name for path in (tmp_path / "out" / subset).iterdir()) == ["a b.nii.gz", "c.nii.gz"]


def test_going_on_and_newer_predictions(predictions, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write, written = sitk.WriteImage, []

    def interrupted(image, path, **kwargs):
        write(image, path, **kwargs)
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sitk, "WriteImage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_back(predictions, out, VALUES, 1)
    assert sorted(path.name for path in out.iterdir()) == ["a b.nii.gz", "convert_back.json"]
    assert convert_back(predictions, out, VALUES, 1) == (1, 1, [])
    assert convert_back(predictions, out, VALUES, 1) == (0, 2, [])
    write_nifti(predictions / "c.nii.gz", label_with(3))
    os.utime(predictions / "c.nii.gz", ns=(1, 1))
    assert convert_back(predictions, out, VALUES, 1) == (1, 1, [])
    np.testing.assert_array_equal(voxels(out / "c.nii.gz"), label_with(4))


def test_unknown_values_and_damaged_files_are_refused_and_the_rest_is_converted(predictions, tmp_path):
    write_nifti(predictions / "d.nii.gz", label_with(4))
    write_nifti(predictions / "e.nii.gz", label_with(0.5, dtype=np.float32))
    (predictions / "f.nii.gz").write_bytes(b"")
    result = convert_back(predictions, tmp_path / "out", VALUES, 1)
    assert (result.n_written, result.n_done) == (2, 0)
    assert [(problem.case, problem.kind) for problem in result.problems] == [
        ("d.nii.gz", "unknown labels"),
        ("e.nii.gz", "unknown labels"),
        ("f.nii.gz", "unreadable"),
    ]
    assert "holds unknown label values 4 (1 voxels), known are 0, 1, 2, 3: is it another" in result.problems[0].line
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["a b.nii.gz", "c.nii.gz"]


def test_large_values_do_not_wrap(predictions, tmp_path):
    convert_back(predictions, tmp_path / "out", {0: 0, 1: -1, 2: 2, 3: 300}, 1)
    np.testing.assert_array_equal(voxels(tmp_path / "out" / "a b.nii.gz"), label_with(-1, 2, 300, 300, dtype=np.int32))


def test_folders_that_are_refused(predictions, tmp_path):
    out = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in predictions.iterdir()}
    for bad in (predictions, predictions / "below"):
        with pytest.raises(UserError, match="lies in the predictions"):
            convert_back(predictions, bad, VALUES, 1)
    assert {path.name: path.read_bytes() for path in predictions.iterdir()} == before
    convert_back(predictions, out, VALUES, 1)
    with pytest.raises(UserError, match="other label values"):
        convert_back(predictions, out, VALUES | {3: 3}, 1)
    write_nifti(tmp_path / "mine" / "x.nii.gz", label_with())
    with pytest.raises(UserError, match="holds other images"):
        convert_back(predictions, tmp_path / "mine", VALUES, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="pass what d2net predict"):
        convert_back(tmp_path / "empty", tmp_path / "new", VALUES, 1)
    with pytest.raises(UserError, match="pass a folder of predictions"):
        convert_back(tmp_path / "no", tmp_path / "new", VALUES, 1)
    assert not (tmp_path / "new").exists()


def test_values_from_a_record_or_a_mapping_file(tmp_path):
    record, mapping = tmp_path / "conversion.json", tmp_path / "mapping.yaml"
    values = {str(value): target for value, target in BRATS2018.scheme.values.items()}
    write_json(record, {"format": 1, "cases": {}, "label_values": values | {"9": 3}})
    assert read_back_values(record) == VALUES
    mapping.write_text("modalities: {T1: '{case}.nii'}\nlabels: {1: a, 5: b, 6: b, 7: background}\n", encoding="utf-8")
    assert read_back_values(mapping) == {0: 0, 1: 1, 2: 5}
    for content, message in (
        ({"format": 1, "cases": {}, "label_values": {"a": 1}}, "damaged"),
        ({}, 'lacks "format"'),
        ({"format": 2, "cases": {}}, "this version"),
    ):
        record.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            read_back_values(record)
    with pytest.raises(UserError, match="cannot be read"):
        read_back_values(tmp_path / "no.json")


def test_two_at_a_time_are_refused(predictions, tmp_path):
    output = tmp_path / "back"
    with locked_folder(output), pytest.raises(UserError, match="another process holds"):
        convert_back(predictions, output, VALUES)
