"""Fingerprint, plans and data, each made by our commands or by nnU-Net's own, of cohorts of every kind."""

import itertools
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import (
    extract_fingerprint_entry,
    plan_experiment_entry,
    preprocess_entry,
)
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.run import run_training
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_d2net.plugin.preprocessing.cohort import availability_file
from tests.conftest import RawDataset, write_raw_dataset
from tests.integration.conftest import d2net, nnunet, tiny_nnunet

SPEC = RawDataset(
    811, "Steps", (12, 14, 12), (1.0, 1.0, 1.0), ("FLAIR", "T1", "T2"), {"background": 0, "lesion": 1}, None, 5, 1
)
CONFIGURATION = "3d_fullres"
OURS, STOCK = "D2NetSmallPlans", "nnUNetPlans"


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The raw data set, all images there."""
    folder = tmp_path_factory.mktemp("complete")
    write_raw_dataset(folder, SPEC)
    return folder / SPEC.folder_name


@pytest.fixture
def cohort(complete, tmp_path, monkeypatch):
    """A copy of it below nnU-Net's variables; trainings end before their first step."""
    with tiny_nnunet(tmp_path):
        monkeypatch.setattr(run_training, "run_training_entry", lambda: None)
        monkeypatch.setenv("nnUNet_n_proc_DA", "1")
        raw = tmp_path / "raw" / SPEC.folder_name
        shutil.copytree(complete, raw)
        yield SimpleNamespace(root=tmp_path, raw=raw, folder=tmp_path / "preprocessed" / SPEC.folder_name)


def remove_images(raw):
    for name in ("case_Tr0_0001", "case_Tr3_0000"):
        (raw / "imagesTr" / f"{name}.nii.gz").unlink()


def there_now(raw):
    """Which modalities each case has, by the files."""
    images = raw / "imagesTr"
    return {
        f"case_Tr{case}": [(images / f"case_Tr{case}_{m:04d}.nii.gz").is_file() for m in range(3)] for case in range(5)
    }


def step(by, name, *words):
    """Do one step with our command or nnU-Net's; return whether it worked, for ours with one line if not."""
    entry = {"extract_fingerprint": extract_fingerprint_entry, "plan": plan_experiment_entry}.get(
        name, preprocess_entry
    )
    words = ["-d", SPEC.dataset_id, *words, "-np", 1, *([] if name == "plan" else ["--no_pbar"])]
    if by == "ours":
        return d2net(name, *words) == 0
    try:
        nnunet(entry, *words)
    except Exception:  # what nnU-Net raises is its own
        return False
    return True


def train(plans, capsys):
    """Start a training, which ends before its first step; return the line in which it was refused."""
    capsys.readouterr()
    status = d2net("train", SPEC.dataset_id, CONFIGURATION, 0, "-p", plans, "-tr", "D2NetTrainer", "-device", "cpu")
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if status == 0:
        return ""
    (line,) = [line for line in error.splitlines() if line.startswith("d2net: error: ")]
    return line


def check_data(folder, flags):
    """Every case has all channels, and what it lacks is 0 and noted."""
    dataset, note = nnUNetDatasetBlosc2(str(folder)), availability_file(folder)
    assert sorted(dataset.identifiers) == sorted(flags)
    assert note.is_file() or all(map(all, flags.values()))
    if note.is_file():
        assert json.loads(note.read_text(encoding="utf-8"))["available"] == flags
    for case, of_case in flags.items():
        images = np.array(dataset.load_case(case)[0][:])
        assert len(images) == 3
        assert [bool(image.any()) for image in images] == of_case


KINDS = ("complete", "incomplete", "changed after the fingerprint", "changed after planning", "changed at last")


BY = ("ours", "nnU-Net's")
WAYS = [
    *itertools.product(["incomplete"], BY, BY, BY),
    *itertools.product(["complete"], BY, ["ours"], BY),
    *itertools.product(KINDS[2:3], BY, ["ours"], ["ours"]),
    *itertools.product(KINDS[3:4], ["ours"], BY, ["ours"]),
    *itertools.product(KINDS[4:5], ["ours"], ["ours"], BY),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fingerprint", "planner", "preprocessing"), WAYS)
def test_each_way_is_right_or_one_line(cohort, kind, fingerprint, planner, preprocessing, capsys):
    if kind == "incomplete":
        remove_images(cohort.raw)
    plans = OURS if planner == "ours" else STOCK
    steps = [
        (fingerprint, "extract_fingerprint"),
        (planner, "plan", *(["-pl", "D2NetSmallPlanner"] if planner == "ours" else [])),
        (preprocessing, "preprocess", "-plans_name", plans, "-c", CONFIGURATION),
    ]
    worked = []
    for done, words in zip(KINDS[2:], steps, strict=True):
        worked.append(step(*words))
        if kind == done:
            remove_images(cohort.raw)
    refusal = train(plans, capsys)
    if kind == "complete" or ({fingerprint, planner, preprocessing} == {"ours"} and kind == "incomplete"):
        assert worked == [True] * 3
        assert not refusal
    if refusal:
        assert re.search(r"run d2net (plan_and_preprocess|preprocess) -d 811", refusal), refusal
    elif kind != "changed at last":
        check_data(cohort.folder / f"{plans}_{CONFIGURATION}", there_now(cohort.raw))
    else:  # nnU-Net's data do not say what they were made from
        assert preprocessing != "ours"


def advised(line):
    """Words of the command that a message advises."""
    return re.search(r"run d2net ([^:,;]+)$", line)[1].split()


def test_the_remedy_for_plans_that_are_there_plans_nothing_anew(cohort, capsys):
    remove_images(cohort.raw)
    assert step("ours", "plan", "-pl", "D2NetSmallPlanner")
    path = cohort.folder / f"{OURS}.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"]["mine"] = {"inherits_from": CONFIGURATION, "data_identifier": "mine", "spacing": [2, 1, 1]}
    plans["configurations"][CONFIGURATION]["batch_size"] = 3
    path.write_text(json.dumps(plans), encoding="utf-8")
    for configuration in (CONFIGURATION, "mine"):
        words = ["train", 811, configuration, 0, "-p", OURS, "-device", "cpu"]
        capsys.readouterr()
        assert d2net(*words) == 1
        assert d2net(*advised(capsys.readouterr().err.splitlines()[-1]), "-np", 1) == 0
        assert d2net(*words) == 0
    check_data(cohort.folder / f"{OURS}_{CONFIGURATION}", there_now(cohort.raw))
    check_data(cohort.folder / "mine", there_now(cohort.raw))
    assert json.loads(path.read_text(encoding="utf-8")) == plans


def test_the_remedy_for_plans_that_are_not_there(cohort, capsys):
    remove_images(cohort.raw)
    words = ["preprocess", "-d", 811, "-c", CONFIGURATION, "-np", 1]
    assert d2net(*words) == 1
    plan = re.search(r"run d2net (.*?),", capsys.readouterr().err.splitlines()[-1])[1].split()
    assert d2net(*plan, "-np", 1) == 0
    assert d2net(*words) == 0
    check_data(cohort.folder / f"D2NetPlans_{CONFIGURATION}", there_now(cohort.raw))


def test_the_remedy_before_any_planning(cohort, capsys):
    words = ["train", 811, CONFIGURATION, 0, "-device", "cpu"]
    assert d2net(*words) == 1
    plan = advised(capsys.readouterr().err.splitlines()[-1])
    assert d2net(*plan, "-c", CONFIGURATION, "-np", 1, "-npfp", 1, "--no_pbar") == 0
    assert d2net(*words) == 0


def test_plans_that_were_moved(cohort, capsys):
    assert step("ours", "plan", "-pl", "D2NetSmallPlanner")
    other = RawDataset(812, "Moved", SPEC.shape, SPEC.spacing, SPEC.channels, SPEC.labels, None, 5, 1)
    raw = write_raw_dataset(cohort.root / "raw", other)
    remove_images(raw)
    (cohort.root / "preprocessed" / other.folder_name).mkdir()
    move_plans_between_datasets(811, 812, OURS)
    capsys.readouterr()
    assert d2net("train", 812, CONFIGURATION, 0, "-p", OURS, "-device", "cpu") == 1
    assert d2net(*advised(capsys.readouterr().err.splitlines()[-1]), "-np", 1) == 0
    assert d2net("train", 812, CONFIGURATION, 0, "-p", OURS, "-device", "cpu") == 0
    check_data(cohort.root / "preprocessed" / other.folder_name / f"{OURS}_{CONFIGURATION}", there_now(raw))


def test_nothing_is_preprocessed_where_a_case_is_bad(cohort, capsys):
    assert d2net("plan_and_preprocess", "-d", 811, "-pl", "D2NetSmallPlanner", "--no_pp", "-npfp", 1) == 0
    label = cohort.raw / "labelsTr" / "case_Tr2.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(label)) * 4, str(label))
    for words in (
        ["preprocess", "-plans_name", OURS, "-c", CONFIGURATION, "-np", 1],
        ["extract_fingerprint", "-np", 1],
        ["plan", "-np", 1],
        ["plan_and_preprocess", "-c", CONFIGURATION, "-np", 1, "-npfp", 1, "--verify_dataset_integrity"],
    ):
        capsys.readouterr()
        assert d2net(*words, "-d", 811) == 1
        error = capsys.readouterr().err
        assert f"training case 'case_Tr2': {label} holds label values that dataset.json does not know (4)" in error
        assert "Traceback" not in error
    assert not (cohort.folder / f"{OURS}_{CONFIGURATION}").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("numTraining", 6, '"numTraining" is 6, and there are 5'),
        ("labels", {"background": 0, "lesion": 1, "far": 3}, "not numbered from 0 without gaps"),
    ],
)
def test_what_nnunets_check_says_of_dataset_json_is_one_line(cohort, key, value, said, capsys):
    path = cohort.raw / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: value}), encoding="utf-8")
    capsys.readouterr()
    assert d2net("plan_and_preprocess", "-d", 811, "--no_pp", "--verify_dataset_integrity", "-npfp", 1) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def change_dataset_json(cohort, **changes):
    path = cohort.raw / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")


def test_normalizations_follow_the_numbers_of_the_channels_not_the_order_of_the_keys(cohort, capsys):
    change_dataset_json(cohort, channel_names={"2": "T2", "1": "T1", "0": "CT"})
    assert step("ours", "plan", "-pl", "D2NetSmallPlanner")
    plans = json.loads((cohort.folder / f"{OURS}.json").read_text(encoding="utf-8"))
    schemes = plans["configurations"][CONFIGURATION]["normalization_schemes"]
    assert schemes == ["CTNormalization", "ZScoreNormalization", "ZScoreNormalization"]
    capsys.readouterr()
    assert not step("ours", "plan", "-pl", "ExperimentPlanner")
    assert "in the order of their numbers" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("planner", ["D2NetSmallPlanner", "ExperimentPlanner"])
def test_planning_needs_the_number_of_cases(cohort, planner, capsys):
    change_dataset_json(cohort, numTraining=None)
    assert not step("ours", "plan", "-pl", planner)
    assert 'lacks "numTraining"' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": {"lesion": 1}}, 'no "background" that is 0'),
        ({"labels": {"background": 0, "all": [1, 2], "core": 2}}, '"regions_class_order"'),
        ({"labels": {"background": 0, "lesion": [1, None]}}, "label 'lesion' is [1, None]"),
        ({"labels": {"background": 0, "lesion": 1, "ignore": 5}}, "label 'ignore'"),
    ],
)
def test_labels_that_nnunet_cannot_use_are_one_line(cohort, changes, said, tmp_path, capsys):
    assert step("ours", "plan", "-pl", "D2NetSmallPlanner")
    assert step("ours", "preprocess", "-plans_name", OURS, "-c", CONFIGURATION)
    change_dataset_json(cohort, **changes)
    shutil.copy(cohort.raw / "dataset.json", cohort.folder)
    for words in (
        ["plan_and_preprocess", "-d", 811],
        ["inspect", "-d", 811, "-o", tmp_path / "look"],
        ["train", 811, CONFIGURATION, 0, "-p", OURS, "-device", "cpu"],
    ):
        capsys.readouterr()
        assert d2net(*words) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("d2net: error")]
        assert said in line


def test_a_fingerprint_of_other_data_is_refused_and_stays(cohort, capsys):
    assert step("nnU-Net's", "extract_fingerprint")
    path = cohort.folder / "dataset_fingerprint.json"
    before = path.read_bytes()
    assert step("ours", "extract_fingerprint")
    assert path.read_bytes() == before
    for image in (cohort.raw / "imagesTr").glob("case_Tr1_*"):
        sitk.WriteImage(sitk.ReadImage(str(image))[1:], str(image))
    label = cohort.raw / "labelsTr" / "case_Tr1.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(label))[1:], str(label))
    capsys.readouterr()
    assert not step("ours", "plan", "-pl", "D2NetSmallPlanner")
    line = capsys.readouterr().err.splitlines()[-1]
    assert "is of other data" in line
    assert path.read_bytes() == before
    assert d2net(*re.search(r"run d2net (.*?),", line)[1].split(), "-np", 1) == 0
    assert path.read_bytes() != before
    assert step("ours", "plan", "-pl", "D2NetSmallPlanner")


def test_dataset_json_has_changed_since_planning(cohort, capsys):
    assert step("ours", "plan", "-pl", "D2NetSmallPlanner")
    path = cohort.raw / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"labels": {"background": 0, "tumor": 1}}), encoding="utf-8")
    capsys.readouterr()
    assert not step("ours", "preprocess", "-plans_name", OURS, "-c", CONFIGURATION)
    assert "dataset.json has changed since planning (labels)" in capsys.readouterr().err.splitlines()[-1]


def test_nnunets_planner_is_told_of_incomplete_cases(cohort, capsys):
    remove_images(cohort.raw)
    capsys.readouterr()
    assert d2net("plan_and_preprocess", "-d", 811, "-pl", "ExperimentPlanner", "--no_pp") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "case_Tr0, case_Tr3" in line
    assert "-pl D2NetPlanner" in line


def test_what_blosc2_says_of_a_full_disk_is_one_line(cohort, monkeypatch, capfd):
    assert d2net("plan_and_preprocess", "-d", SPEC.dataset_id, "-pl", "D2NetSmallPlanner", "--no_pp", "-npfp", 1) == 0

    def run(*_, **__):
        raise RuntimeError("Error while creating the NDArray")

    monkeypatch.setattr(DefaultPreprocessor, "run", run)
    assert d2net("preprocess", "-d", SPEC.dataset_id, "-plans_name", OURS, "-c", CONFIGURATION, "-np", 1) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("d2net: error")]
    assert f"{cohort.folder / OURS}_{CONFIGURATION} cannot be written" in line
    assert "free space" in line
