"""What is kept between runs, several processes, other ways to lay out a data set, and the numbers of a case."""

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli.checks import read_json
from nnunetv2_d2net.data.inspect import inspect_cohort as module
from nnunetv2_d2net.data.inspect.head import find_head
from nnunetv2_d2net.data.inspect.one_case import inspect_case
from nnunetv2_d2net.data.inspect.raw_dataset import open_cohort
from nnunetv2_d2net.data.inspect.record import AVAILABLE, CaseRecord


@pytest.fixture
def looked_at(monkeypatch):
    """Names of the cases that are really read."""
    names = []

    def spy(job):
        names.append(job.case)
        return inspect_case(job)

    monkeypatch.setattr(module, "inspect_case", spy)
    return names


def test_only_changed_cases_are_read_again(dataset, tmp_path, looked_at):
    first = dataset.inspect(tmp_path / "out")
    assert len(looked_at) == 12
    looked_at.clear()
    again = dataset.inspect(tmp_path / "out")
    assert looked_at == []
    assert [record.to_json() for record in again.records] == [record.to_json() for record in first.records]
    dataset.edit(dataset.image(3, "T1"), lambda voxels: voxels * 2)
    dataset.image(4, "T1").unlink()
    os.utime(dataset.label(5), ns=(1, 1))  # of the same size
    dataset.inspect(tmp_path / "out")
    assert looked_at == ["case_03", "case_04", "case_05"]
    looked_at.clear()
    description = read_json(dataset.folder / "dataset.json", "")
    description["labels"]["tumor"] = 2
    del description["labels"]["ignore"]
    (dataset.folder / "dataset.json").write_text(json.dumps(description))
    dataset.inspect(tmp_path / "out")
    assert len(looked_at) == 12


def test_a_run_that_was_stopped_goes_on(dataset, tmp_path, looked_at, monkeypatch):
    def stop(job):
        if job.case == "case_07":
            raise KeyboardInterrupt
        return inspect_case(job)

    with monkeypatch.context() as patch:
        patch.setattr(module, "inspect_case", stop)
        with pytest.raises(KeyboardInterrupt):
            dataset.inspect(tmp_path / "out")
    cache = tmp_path / "out" / "cache.jsonl"
    cache.write_bytes(cache.read_bytes()[:-100])  # as if the line of case_06 had been torn
    seen = dataset.inspect(tmp_path / "out")
    assert looked_at == [f"case_{case:02d}" for case in range(6, 12)]
    assert len(seen.records) == 12
    assert seen.findings == []
    looked_at.clear()
    dataset.inspect(tmp_path / "out")
    assert looked_at == []


@pytest.mark.slow
def test_processes_give_the_same_records(dataset, tmp_path):
    alone = dataset.inspect(tmp_path / "out")
    cohort = open_cohort(dataset.folder, read_json(dataset.folder / "dataset.json", ""), "Tr")
    several = module.inspect_cohort(cohort, tmp_path / "cache.jsonl", processes=2, progress=False)
    assert [record.to_json() for record in several.records] == [record.to_json() for record in alone.records]


def test_numbers_of_a_case(dataset, tmp_path):
    case = next(record for record in dataset.inspect(tmp_path / "out").records if record.case == "case_02")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.label(2))))
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.image(2, "T1"))))
    assert case.shape == [16, 20, 18]
    assert case.spacing == [3, 2, 2]
    assert case.volumes_ml == {"tumor": pytest.approx((labels == 1).sum() * 12 / 1000)}
    assert case.head_ml == pytest.approx((image != 0).sum() * 12 / 1000)
    assert case.percentiles[1] == pytest.approx(np.percentile(image[image != 0], (1, 25, 50, 75, 99)).tolist())


def test_an_explicit_list_of_files(dataset, tmp_path):
    description = read_json(dataset.folder / "dataset.json", "")
    description["dataset"] = {
        "one": {
            "images": [f"imagesTr/case_01_{m:04d}.nii.gz" for m in (0, 2)],
            "label": "labelsTr/case_01.nii.gz",
        },
        "two": {"images": [f"imagesTr/case_02_{m:04d}.nii.gz" for m in range(3)], "label": "labelsTr/case_02.nii.gz"},
    }
    (dataset.folder / "dataset.json").write_text(json.dumps(description))
    states = {record.case: record.pattern for record in dataset.inspect(tmp_path / "out").records}
    assert states == {"one": (True, False, True), "two": (True, True, True)}


def test_test_cases_need_no_label(dataset, tmp_path):
    (dataset.folder / "imagesTr").rename(dataset.folder / "imagesTs")
    seen = dataset.inspect(tmp_path / "out", "Ts")
    assert seen.findings == []
    assert not any(record.volumes_ml for record in seen.records)


def test_a_picture_that_holds_all_modalities(tmp_path):
    folder = tmp_path / "Dataset812_Photos"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for case in range(3):
        photo = sitk.GetImageFromArray(rng.integers(1, 255, (12, 14, 3), np.uint8), isVector=True)
        label = sitk.GetImageFromArray((rng.random((12, 14)) > 0.5).astype(np.uint8))
        sitk.WriteImage(photo, str(folder / f"imagesTr/x{case}_0000.png"))
        sitk.WriteImage(label, str(folder / f"labelsTr/x{case}.png"))
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "a": 1},
        "file_ending": ".png",
    }
    cohort = open_cohort(folder, description, "Tr")
    seen = module.inspect_cohort(cohort, tmp_path / "cache.jsonl", progress=False)
    assert seen.findings == []
    assert {tuple(record.states) for record in seen.records} == {(AVAILABLE,) * 3}
    assert seen.records[0].shape == [1, 12, 14]
    assert seen.records[0].volumes_ml["a"] < 1  # not 999 mm thick


@pytest.mark.parametrize("key", ["labels", "file_ending"])
def test_an_incomplete_description(dataset, key):
    description = read_json(dataset.folder / "dataset.json", "")
    del description[key]
    with pytest.raises(UserError, match=f"dataset.json lacks {key}: add it"):
        open_cohort(dataset.folder, description, "Tr")


def test_no_image_at_all(dataset):
    for path in dataset.folder.glob("imagesTr/*"):
        path.unlink()
    with pytest.raises(UserError, match="imagesTr holds no image"):
        open_cohort(dataset.folder, read_json(dataset.folder / "dataset.json", ""), "Tr")


def test_a_record_survives_json():
    record = CaseRecord("a", ["f"], None, [AVAILABLE], single=[[1.0, float("nan")]])
    record.add("constant", "f", "r", "m")
    assert CaseRecord.from_json(record.to_json()).to_json() == record.to_json()
    with pytest.raises((ValueError, TypeError)):
        CaseRecord.from_json('{"case": "a"}')


def test_the_head_is_what_is_not_background():
    image = np.full((8, 9, 10), -1000.0, np.float32)
    image[2:5, 3:6, 4:8] = 0
    head = find_head(image)
    assert head.exact
    assert np.array_equal(head.mask, image != -1000)
    noisy = image + np.random.default_rng(0).normal(0, 5, image.shape)
    head = find_head(noisy)
    assert not head.exact
    assert np.array_equal(head.mask, image != -1000)
