"""What is kept between runs, several processes, other ways to lay out a data set, and the numbers of a case."""

import json
import os
from dataclasses import asdict

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.features import find_head
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.data.inspect import cohort
from nnunetv2_d2net.data.inspect.cohort import inspect_dataset
from nnunetv2_d2net.data.inspect.one_case import inspect_case
from nnunetv2_d2net.data.inspect.record import AVAILABLE, NOT_FINITE


@pytest.fixture
def looked_at(monkeypatch):
    """Names of the cases that are really read."""
    names = []

    def spy(job):
        names.append(job.case)
        return inspect_case(job)

    monkeypatch.setattr(cohort, "inspect_case", spy)
    return names


def kept(inspection):
    return [json.dumps(asdict(record)) for record in inspection.records]  # NaN equals no NaN, but as text


def test_only_changed_cases_are_read_again(dataset, tmp_path, looked_at):
    first = dataset.inspect(tmp_path / "out")
    assert len(looked_at) == 12
    looked_at.clear()
    again = dataset.inspect(tmp_path / "out")
    assert looked_at == []
    assert kept(again) == kept(first)
    dataset.edit(dataset.image(3, "T1"), lambda voxels: voxels * 2)
    dataset.image(4, "T1").unlink()
    os.utime(dataset.label(5), ns=(1, 1))  # of the same size
    dataset.inspect(tmp_path / "out")
    assert looked_at == ["case_03", "case_04", "case_05"]
    looked_at.clear()
    dataset.describe(labels={"background": 0, "tumor": 1, "edema": 2})
    dataset.inspect(tmp_path / "out")
    assert len(looked_at) == 12


def test_a_run_that_was_stopped_goes_on(dataset, tmp_path, looked_at, monkeypatch):
    def stop(job):
        if job.case == "case_07":
            raise KeyboardInterrupt
        return inspect_case(job)

    with monkeypatch.context() as patch:
        patch.setattr(cohort, "inspect_case", stop)
        with pytest.raises(KeyboardInterrupt):
            dataset.inspect(tmp_path / "out")
    cache = tmp_path / "out" / "cache.jsonl"
    cache.write_bytes(cache.read_bytes()[:-100])  # as if the line of case_06 had been torn
    inspection = dataset.inspect(tmp_path / "out")
    assert looked_at == [f"case_{case:02d}" for case in range(6, 12)]
    assert len(inspection.records) == 12
    assert inspection.findings == []
    looked_at.clear()
    dataset.inspect(tmp_path / "out")
    assert looked_at == []


@pytest.mark.parametrize("line", ["[1]", '{"case": "case_01"}', '{"key": "", "record": {"case": "case_01"}}'])
def test_a_cache_of_another_version(dataset, tmp_path, looked_at, line):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cache.jsonl").write_text(line, encoding="utf-8")
    dataset.inspect(tmp_path / "out")
    assert len(looked_at) == 12


def test_without_a_folder_nothing_is_written_or_said(dataset, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    inspection = inspect_dataset(str(dataset.folder))
    assert (inspection.folder, inspection.dataset.channels) == (dataset.folder, ("FLAIR", "T1", "T2"))
    assert sorted(tmp_path.rglob("*")) == before
    assert capfd.readouterr() == ("", "")


def test_one_inspection_at_a_time_in_a_folder(dataset, tmp_path):
    dataset.inspect(tmp_path / "out")
    with locked_folder(tmp_path / "out"), pytest.raises(UserError, match=r"another process holds .*out"):
        dataset.inspect(tmp_path / "out")


def test_an_unknown_split(dataset):
    with pytest.raises(UserError, match="there is no split 'train': choose Tr or Ts"):
        dataset.inspect(split="train")


@pytest.mark.slow
def test_processes_give_the_same_records(dataset):
    assert kept(dataset.inspect(processes=2)) == kept(dataset.inspect())


def test_numbers_of_a_case(dataset):
    case = next(record for record in dataset.inspect().records if record.case == "case_02")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.label(2))))
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.image(2, "T1"))))
    assert case.shape == [16, 20, 18]
    assert case.spacing == [3, 2, 2]
    assert case.volumes_ml == {"tumor": pytest.approx((labels == 1).sum() * 12 / 1000)}
    assert case.head_ml == pytest.approx((image != 0).sum() * 12 / 1000)
    assert case.percentiles[1] == pytest.approx(np.percentile(image[image != 0], (1, 25, 50, 75, 99)).tolist())


def test_an_explicit_list_of_files(dataset):
    images = [f"imagesTr/case_01_{m:04d}.nii.gz" for m in range(3)]
    label = "labelsTr/case_01.nii.gz"
    dataset.describe(
        dataset={"one": {"images": images[::2], "label": label}, "two": {"images": images, "label": label}}
    )
    states = {record.case: record.pattern for record in dataset.inspect().records}
    assert states == {"one": (True, False, True), "two": (True, True, True)}


def test_test_cases_need_no_label(dataset):
    (dataset.folder / "imagesTr").rename(dataset.folder / "imagesTs")
    inspection = dataset.inspect(split="Ts")
    assert inspection.findings == []
    assert not any(record.volumes_ml for record in inspection.records)


def test_images_of_two_dimensions_count_as_a_millimeter_thick(tmp_path):
    folder = tmp_path / "Dataset813_Slices"
    rng = np.random.default_rng(0)
    for kind, name, values in (("imagesTr", "x_0000", 255), ("labelsTr", "x", 2)):
        (folder / kind).mkdir(parents=True)
        image = sitk.GetImageFromArray(rng.integers(1, values, (12, 14), np.uint8))
        image.SetSpacing((0.5, 0.25))
        sitk.WriteImage(image, str(folder / kind / f"{name}.nii.gz"))
    description = {"channel_names": {"0": "R"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    (record,) = inspect_dataset(folder).records
    assert record.spacing == [499.5, 0.25, 0.5]
    assert record.volumes_ml["a"] == pytest.approx(12 * 14 * 0.5 * 0.25 / 1000)


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
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    inspection = inspect_dataset(folder)
    assert inspection.findings == []
    assert {tuple(record.states) for record in inspection.records} == {(AVAILABLE,) * 3}
    assert inspection.records[0].shape == [1, 12, 14]
    assert inspection.records[0].volumes_ml["a"] < 1  # not 999 mm thick


@pytest.mark.parametrize(("value", "state"), [(1.0, AVAILABLE), (np.nan, NOT_FINITE)])
def test_a_file_that_holds_all_modalities_is_as_bad_in_each_of_them(dataset, value, state):
    parts = [nibabel.load(dataset.image(3, name)) for name in ("FLAIR", "T1", "T2")]
    voxels = np.stack([part.get_fdata(dtype=np.float32) for part in parts], -1)
    voxels[9, 9, 9, 1] = value
    nibabel.save(nibabel.Nifti1Image(voxels, parts[0].affine), dataset.image(3, "FLAIR"))
    dataset.image(3, "T1").unlink()
    dataset.image(3, "T2").unlink()
    record = next(record for record in dataset.inspect().records if record.case == "case_03")
    assert record.states == [state] * 3


@pytest.mark.parametrize("key", ["labels", "file_ending"])
def test_an_incomplete_description(dataset, key):
    dataset.describe(**{key: None})
    with pytest.raises(UserError, match=f'dataset.json lacks "{key}"'):
        dataset.inspect()


def test_no_image_at_all(dataset):
    for path in dataset.folder.glob("imagesTr/*"):
        path.unlink()
    with pytest.raises(UserError, match="imagesTr holds no image"):
        dataset.inspect()


def test_a_format_that_nnunet_cannot_read(dataset):
    (dataset.folder / "imagesTr" / "a_0000.xyz").touch()
    dataset.describe(file_ending=".xyz")
    with pytest.raises(UserError, match=r"nnU-Net has no reader for .*: mend file_ending"):
        dataset.inspect()


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_the_first_image_may_be_damaged(dataset, ending, capfd):
    """nnU-Net chooses its reader by an image that it can read."""
    for path in [*dataset.folder.glob("*Tr/*.nii.gz")]:
        renamed = path.with_name(path.name.replace(".nii.gz", ending))
        sitk.WriteImage(sitk.ReadImage(str(path)), str(renamed))
        if renamed.name.startswith("case_00"):
            renamed.write_bytes(renamed.read_bytes()[:-2000])
        if renamed != path:
            path.unlink()
    dataset.describe(file_ending=ending)
    unusable = dataset.inspect().unusable
    assert {(finding.case, finding.kind) for finding in unusable} == {("case_00", "unreadable")}
    assert len(unusable) == 4
    assert capfd.readouterr().err == ""


def test_the_head_is_what_is_not_background():
    image = np.full((8, 9, 10), -1000.0, np.float32)
    image[2:5, 3:6, 4:8] = 0
    head = find_head(image)
    assert head.exact
    assert np.array_equal(head.voxels, image != -1000)
    noisy = image + np.random.default_rng(0).normal(0, 5, image.shape)
    head = find_head(noisy)
    assert not head.exact
    assert np.array_equal(head.voxels, image != -1000)


def test_cases_that_lie_in_several_ways_are_one_line(dataset, tmp_path):
    for name in ("FLAIR", "T1", "T2"):
        turn_file(dataset.image(3, name))
    turn_file(dataset.label(3))
    inspection = dataset.inspect(tmp_path / "out")
    assert inspection.orientations == {"LPS": 11, "RAS": 1}
    (line,) = [
        line
        for line in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8").splitlines()
        if "several ways" in line
    ]
    assert line.startswith("cases lie in several ways (LPS 11, RAS 1): ")


def turn_file(path):
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS"), str(path))
