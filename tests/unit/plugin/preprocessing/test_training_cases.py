import json
import logging
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities import utils

from nnunetv2_d2net.base.dataset import CaseFiles, Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.preprocessor import AVAILABLE, MissingModalityPreprocessor
from nnunetv2_d2net.plugin.preprocessing.training_cases import (
    check_training_cases,
    check_unchanged,
    read_label,
    read_training_case,
    reader_of,
    sizes_of,
    training_cases,
)
from tests.unit.plugin.preprocessing.conftest import brains, build_plans, write_image

LABELS = {"background": 0, "a": 1, "b": 2}
NAMES = ("FLAIR", "T1", "T1ce", "T2")


def write_raw(folder, files, channels=NAMES, *, listed=None, ending=".nii.gz"):
    """Write files of which each shows brains of its own, a label per case of the list, and dataset.json."""
    channels = channels if isinstance(channels, dict) else {str(i): name for i, name in enumerate(channels)}
    content = {"channel_names": channels, "labels": LABELS, "file_ending": ending}
    if listed is not None:
        content["dataset"] = {
            case: {"images": images, "label": f"labelsTr/{case}{ending}"} for case, images in listed.items()
        }
    (folder / "labelsTr").mkdir(parents=True)
    for number, file in enumerate(files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / file, brains(1, seed=number)[0])
    names = {Path(file).name.removesuffix(ending)[:-5] for file in files} if listed is None else listed
    for case in names:
        write_image(folder / "labelsTr" / f"{case}{ending}", brains(1)[0] > 15)
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return Dataset.read(folder / "dataset.json")


def refused(folder, dataset, case, *parts):
    with pytest.raises(UserError) as error:
        read_training_case(training_cases(folder, dataset)[case], SimpleITKIO, dataset)
    for part in parts:
        assert str(part) in str(error.value), str(error.value)


ODD = {
    "sorted numbers": (["imagesTr/a_0001.nii.gz", "imagesTr/a_0000.nii.gz"], ("X", "Y"), None),
    "numbers with gaps": (["imagesTr/a_0000.nii.gz", "imagesTr/a_0003.nii.gz"], {"0": "FLAIR", "3": "T2"}, None),
    "descending keys": (["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"], {"1": "T1", "0": "FLAIR"}, None),
    "numbers by other keys": (["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"], {"1": "T1", "2": "T2"}, None),
    "numbers from one": (["imagesTr/a_0001.nii.gz", "imagesTr/a_0002.nii.gz"], {"1": "T1", "2": "T2"}, None),
    "files from one": (["imagesTr/a_0001.nii.gz", "imagesTr/a_0002.nii.gz"], ("X", "Y"), None),
    "case within case": ([f"imagesTr/a_0000_{m:04d}.nii.gz" for m in range(2)], ("X", "Y"), None),
    "a folder per modality": (
        ["flair/a_0000.nii.gz", "t1/a_0000.nii.gz"],
        ("X", "Y"),
        {"a": ["flair/a_0000.nii.gz", "t1/a_0000.nii.gz"]},
    ),
    "years": (["a_2019.nii.gz", "a_2018.nii.gz"], ("X", "Y"), {"a": ["a_2019.nii.gz", "a_2018.nii.gz"]}),
    "listed the other way": (
        ["x/a_0000.nii.gz", "x/a_0001.nii.gz"],
        ("X", "Y"),
        {"a": ["x/a_0001.nii.gz", "x/a_0000.nii.gz"]},
    ),
    "other names": (["t1.nii.gz", "t2.nii.gz"], ("X", "Y"), {"a": ["t2.nii.gz", "t1.nii.gz"]}),
}


@pytest.mark.parametrize("name", ODD)
def test_channels_are_nnunets(tmp_path, name, monkeypatch):
    """Whatever keys, names, numbers and lists look like: channel by channel as nnU-Net's own preprocessor has it."""
    monkeypatch.setattr(utils, "Pool", ThreadPool)
    files, channels, listed = ODD[name]
    dataset = write_raw(tmp_path, files, channels, listed=listed)
    theirs = utils.get_filenames_of_train_images_and_targets(str(tmp_path), json.loads(json.dumps(dataset.content)))
    plans = build_plans(["ZScoreNormalization"] * 2)
    assert training_cases(tmp_path, dataset).keys() == theirs.keys()
    for case, found in theirs.items():
        words = (found["images"], found["label"], plans, plans.get_configuration("tiny"), dict(dataset.content))
        expected = DefaultPreprocessor(verbose=False).run_case(*words)
        ours = MissingModalityPreprocessor(verbose=False).run_case(*words)
        assert np.array_equal(ours[0], expected[0])
        assert ours[2][AVAILABLE] == [True, True]
        own = read_training_case(training_cases(tmp_path, dataset)[case], SimpleITKIO, dataset)
        assert np.array_equal(own.read.images, SimpleITKIO().read_images(found["images"])[0])


@pytest.mark.parametrize(
    ("files", "channels", "listed"),
    [
        (["b_0001.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz"], ("T1", "T2"), None),
        (
            ["t1/b_0000.nii.gz", "flair/a_0000.nii.gz", "t1/a_0000.nii.gz"],
            ("FLAIR", "T1"),
            {"a": ["flair/a_0000.nii.gz", "t1/a_0000.nii.gz"], "b": ["t1/b_0000.nii.gz"]},
        ),
    ],
)
def test_an_incomplete_case_where_names_do_not_count(tmp_path, files, channels, listed):
    files = files if listed else [f"imagesTr/{file}" for file in files]
    dataset = write_raw(tmp_path, files, channels, listed=listed)
    refused(tmp_path, dataset, "b", "cannot be told apart", "those of 'a' are not numbered 0000, 0001 in their order")
    read_training_case(training_cases(tmp_path, dataset)["a"], SimpleITKIO, dataset)


@pytest.mark.parametrize(
    ("channels", "there"),
    [({"0": "T1", "1": "T2"}, (False, True)), ({"1": "T1", "2": "T2"}, (True, False)), ({"1": "T1", "7": "T2"}, None)],
)
def test_an_incomplete_case_where_names_count(tmp_path, channels, there):
    numbers = [int(number) for number in channels]
    names = [f"a_{number:04d}" for number in numbers] + ["b_0001"]
    dataset = write_raw(tmp_path, [f"imagesTr/{name}.nii.gz" for name in names], channels)
    read = read_training_case(training_cases(tmp_path, dataset)["b"], SimpleITKIO, dataset).read
    assert read.available == (there or (True, False))


def test_names_that_nnunet_does_not_see(tmp_path, caplog):
    dataset = write_raw(tmp_path, [f"imagesTr/{c}_{m:04d}.nii.gz" for c in "abe" for m in range(2)], ("X", "Y"))
    for m in range(2):
        path = tmp_path / "imagesTr" / f"a_{m:04d}.nii.gz"
        path.rename(path.with_name(f"a_{m:03d}.nii.gz"))
    (tmp_path / "labelsTr" / "b.nii.gz").rename(tmp_path / "labelsTr" / "c.nii.gz")
    (tmp_path / "imagesTr" / "e_0001.nii.gz").rename(tmp_path / "imagesTr" / "e_0001.NII.GZ")
    refused(tmp_path, dataset, "a", "a_000.nii.gz (and 1 file more like it)", "name it a_0000.nii.gz")
    refused(tmp_path, dataset, "b", "labelsTr/b.nii.gz is not there")
    refused(tmp_path, dataset, "e", "e_0001.NII.GZ", "does not see it: name it e_0001.nii.gz")
    assert "not trained on: c of labelsTr" in caplog.text


def test_there_is_no_case(tmp_path):
    dataset = write_raw(tmp_path, ["imagesTr/a_0000.nii.gz"], ("X", "Y"))
    (tmp_path / "imagesTr" / "a_0000.nii.gz").unlink()
    with pytest.raises(UserError, match="has no training case"):
        training_cases(tmp_path, dataset)
    (tmp_path / "imagesTr").rmdir()
    with pytest.raises(UserError, match="imagesTr cannot be read"):
        training_cases(tmp_path, dataset)


def labeled(folder, voxels, ending=".nii.gz"):
    return write_image(folder / f"label{ending}", voxels), Dataset.of(
        {"channel_names": {"0": "X", "1": "Y"}, "labels": LABELS, "file_ending": ending}
    )


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
        (1.5, "no whole numbers, such as 1.5"),
        (4, "dataset.json does not know (4): it knows 0, 1, 2"),
        (-1, "does not know (-1)"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, value, words, ending, reader):
    voxels = np.ones((3, 4, 5))
    voxels[1, 2, 3] = value
    path, dataset = labeled(tmp_path, voxels, ending)
    with pytest.raises(UserError) as error:
        read_label(path, reader(), dataset)
    assert words in str(error.value)
    assert path in str(error.value)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_label_that_was_cut_short(tmp_path, ending):
    path, dataset = labeled(tmp_path, np.ones((30, 40, 50)), ending)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: int(0.6 * len(whole))])
    with pytest.raises(UserError, match="cut short"):
        read_label(path, SimpleITKIO(), dataset)


def test_a_label_that_is_nearly_whole_is_whole(tmp_path):
    """nnU-Net would cut 0.9999 down to 0."""
    path, dataset = labeled(tmp_path, np.full((3, 4, 5), 0.9999))
    assert np.array_equal(read_label(path, SimpleITKIO(), dataset).voxels, np.ones((1, 3, 4, 5)))


@pytest.mark.parametrize("place", [{"origin": (0, 0, 5)}, {"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}])
def test_a_label_that_lies_elsewhere_is_told(tmp_path, place, caplog):
    dataset = write_raw(tmp_path, [f"imagesTr/{case}_{m:04d}.nii.gz" for case in "ab" for m in range(2)], ("X", "Y"))
    label = tmp_path / "labelsTr" / "a.nii.gz"
    image = sitk.ReadImage(str(label))
    image.SetOrigin(place.get("origin", (0, 0, 0.005)))
    image.SetDirection(place.get("direction", image.GetDirection()))
    sitk.WriteImage(image, str(label))
    rounded = tmp_path / "labelsTr" / "b.nii.gz"
    image = sitk.ReadImage(str(rounded))
    image.SetOrigin((0, 0, 0.005))
    sitk.WriteImage(image, str(rounded))
    for case in "ab":
        read_training_case(training_cases(tmp_path, dataset)[case], SimpleITKIO, dataset)
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{label} lies elsewhere than {tmp_path / 'imagesTr' / 'a_0000.nii.gz'} by its header" in line
    assert next(iter(place)) in line


def test_a_damaged_first_image_chooses_no_reader(tmp_path):
    dataset = write_raw(tmp_path, [f"imagesTr/a_{m:04d}.nii.gz" for m in range(2)], ("X", "Y"))
    files = training_cases(tmp_path, dataset)["a"].images
    Path(files[0]).write_bytes(b"no image")
    assert reader_of(dataset, files) is SimpleITKIO
    assert reader_of(dataset, files[:1]) is SimpleITKIO


@pytest.mark.parametrize(("named", "found"), [("None", SimpleITKIO), ("NibabelIO", NibabelIO)])
def test_the_reader_is_the_one_that_the_data_set_names(named, found, tmp_path):
    dataset = write_raw(tmp_path, ["imagesTr/a_0000.nii.gz"], ("X",))
    asks = Dataset.of(dict(dataset.content) | {"overwrite_image_reader_writer": named}, dataset.source)
    assert reader_of(asks, []) is found


@pytest.mark.parametrize("named", ["SimpleITKWithReorient", None, ["SimpleITKIO"]])
def test_a_reader_that_nnunet_does_not_have_is_refused_not_replaced_by_another(named, tmp_path):
    dataset = write_raw(tmp_path, ["imagesTr/a_0000.nii.gz"], ("X",))
    asks = Dataset.of(dict(dataset.content) | {"overwrite_image_reader_writer": named}, dataset.source)
    with pytest.raises(UserError, match=r'dataset.json: "overwrite_image_reader_writer" is .* no reader of nnU-Net'):
        reader_of(asks, training_cases(tmp_path, dataset)["a"].images)


def test_all_bad_cases_are_told_and_good_ones_are_not_read_again(tmp_path, caplog, monkeypatch):
    files = [f"imagesTr/{case}_{m:04d}.nii.gz" for case in "abc" for m in range(2)]
    dataset, note = write_raw(tmp_path, files, ("X", "Y")), tmp_path / "note.json"
    labels = [tmp_path / "labelsTr" / f"{case}.nii.gz" for case in "ab"]
    before = [label.read_bytes() for label in labels]
    for label in labels:
        write_image(label, np.full((10, 12, 11), 7))
    with pytest.raises(UserError, match=r"2 of 3 training cases cannot be used \(a, b\)"):
        check_training_cases(tmp_path, dataset, SimpleITKIO, note, 1)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.partition(":")[0] for line in lines] == ["training case 'a'", "training case 'b'"]
    assert not note.exists()
    for label, content in zip(labels, before, strict=True):
        label.write_bytes(content)
    check_training_cases(tmp_path, dataset, SimpleITKIO, note, 1)
    monkeypatch.setattr(SimpleITKIO, "read_seg", lambda *_: pytest.fail("the case was read again"))
    check_training_cases(tmp_path, dataset, SimpleITKIO, note, 1)
    write_image(labels[0], brains(1)[0] > 10)
    with pytest.raises(pytest.fail.Exception):
        check_training_cases(tmp_path, dataset, SimpleITKIO, note, 1)


def test_raw_files_that_have_changed_since_preprocessing(tmp_path):
    raw, data = tmp_path / "raw", tmp_path / "data"
    dataset = write_raw(raw, [f"imagesTr/{n}.nii.gz" for n in ("a_0000", "a_0001", "b_0001")], ("T1", "T2"))
    note = {"modalities": ["T1", "T2"], "available": {"a": [True, True], "b": [False, True]}}
    note["raw_sizes"] = sizes_of(raw, training_cases(raw, dataset))
    (tmp_path / "data.available_modalities.json").write_text(json.dumps(note), encoding="utf-8")
    check_unchanged(data, raw, "go")
    check_unchanged(data, tmp_path / "elsewhere", "go")
    write_image(raw / "imagesTr" / "b_0000.nii.gz", brains(1, seed=9)[0])
    with pytest.raises(UserError, match=r"has changed since .*\(b\): go"):
        check_unchanged(data, raw, "go")
    del note["raw_sizes"]  # written before there was this
    (tmp_path / "data.available_modalities.json").write_text(json.dumps(note), encoding="utf-8")
    check_unchanged(data, raw, "go")


def test_the_file_of_a_case_may_be_one_for_all(tmp_path):
    cases = {"a": CaseFiles(("x",), "y")}
    assert sizes_of(tmp_path, cases) == {"a": {}}
