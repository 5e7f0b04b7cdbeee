"""Whole sources: what is written, going on, and what is left after an accident."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import LOCK, locked
from nnunetv2_d2net.data.convert import convert as module
from nnunetv2_d2net.data.convert import one_case
from nnunetv2_d2net.data.convert.cases import CaseReport
from nnunetv2_d2net.data.convert.convert import Checked, check_folder, convert_folder
from nnunetv2_d2net.data.convert.layouts import find_cases, layout_of
from nnunetv2_d2net.data.convert.one_case import convert_case
from nnunetv2_d2net.data.convert.summary import describe_check
from tests.unit.data.convert.source_folders import NEW, OLD, label_with, random_image, voxels, write_case, write_nifti


def run(source, folder, **how):
    return convert_folder(source, 18, "Brats", raw=folder.parent, **how)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def snapshot(folder):
    """Contents of all files but the record, which holds times."""
    return {name: (folder / name).read_bytes() for name in names(folder) if name != "conversion.json"}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "raw" / "Dataset018_Brats"


@pytest.fixture
def cohort(source):
    """Three training cases, of which one lacks two modalities and one is not compressed, and a test case."""
    write_case(source / "HGG", "a b", seed=1)
    write_case(source / "LGG", "c", seed=2, only=("T1", "T2", "seg"))
    write_case(source / "LGG", "d", seed=3, ending=".nii")
    write_case(source / "Validation", "v", seed=4, only=("FLAIR", "T1ce"))
    return source


EXPECTED = [
    "conversion.json",
    "dataset.json",
    *(f"imagesTr/a b_{c:04d}.nii.gz" for c in range(4)),
    *(f"imagesTr/c_{c:04d}.nii.gz" for c in (1, 3)),
    *(f"imagesTr/d_{c:04d}.nii.gz" for c in range(4)),
    *(f"imagesTs/v_{c:04d}.nii.gz" for c in (0, 2)),
    *(f"labelsTr/{name}.nii.gz" for name in ("a b", "c", "d")),
]


def test_what_is_written(cohort, target):
    done = run(cohort, target)
    assert names(target) == EXPECTED
    assert not done.problems
    # copied bit by bit, plain files packed bit by bit
    packed = (cohort / "HGG/a b/a b_t1ce.nii.gz").read_bytes()
    assert (target / "imagesTr/a b_0002.nii.gz").read_bytes() == packed
    plain = (cohort / "LGG/d/d_t2.nii").read_bytes()
    assert gzip.decompress((target / "imagesTr/d_0003.nii.gz").read_bytes()) == plain
    label = sitk.ReadImage(str(target / "labelsTr/c.nii.gz"))
    assert label.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), label_with(1, 2, 3, 3))
    description = read(target / "dataset.json")
    assert description["channel_names"] == {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"}
    assert list(description["labels"].items()) == [
        ("background", 0),
        ("whole tumor", [1, 2, 3]),
        ("tumor core", [1, 3]),
        ("enhancing tumor", 3),
    ]
    assert description["regions_class_order"] == [2, 1, 3]
    assert (description["numTraining"], description["file_ending"]) == (3, ".nii.gz")


def test_the_record_says_where_everything_comes_from(cohort, target):
    run(cohort, target)
    record = read(target / "conversion.json")
    assert record["layout"] == "brats2018"
    assert record["sources"] == {"Tr": str(cohort)}
    assert record["label_values"] == {"0": 0, "1": 1, "2": 2, "4": 3}
    assert set(record["versions"]) == {"nnunetv2_d2net", "nnunetv2", "SimpleITK"}
    case = record["cases"]["c"]
    assert case["images"] == {name: f"{cohort}/LGG/c/c{OLD[name]}.nii.gz" for name in ("T1", "T2")}
    assert case["label"] == f"{cohort}/LGG/c/c_seg.nii.gz"
    assert case["voxels"] == {"0": 332, "1": 1, "2": 1, "4": 2}


@pytest.mark.slow
def test_processes_and_a_relative_path_change_nothing(cohort, target, tmp_path, monkeypatch):
    run(cohort, target)
    monkeypatch.chdir(cohort.parent)
    other = tmp_path / "parallel" / target.name
    run(Path("source"), other, processes=2)
    assert snapshot(other) == snapshot(target)
    assert read(other / "conversion.json") == read(target / "conversion.json")


def test_links_only_to_what_needs_no_change(cohort, target):
    write_case(cohort / "LGG", "e", seed=5, label=label_with(1, 2))  # has no value that changes
    run(cohort, target, link=True)
    links = {name for name in names(target) if (target / name).is_symlink()}
    assert {name for name in names(target) if "/" in name} - links == {
        *(f"imagesTr/d_{c:04d}.nii.gz" for c in range(4)),
        *(f"labelsTr/{name}.nii.gz" for name in ("a b", "c", "d")),
    }
    assert "labelsTr/e.nii.gz" in links
    assert (target / "imagesTr/c_0001.nii.gz").resolve() == cohort / "LGG/c/c_t1.nii.gz"


def test_brats2023_with_and_without_cavity(source, target):
    write_case(source, "a", NEW, seed=1)
    run(source, target)
    assert "resection cavity" not in read(target / "dataset.json")["labels"]
    write_case(source, "b", NEW, seed=2, label=label_with(1, 4))
    run(source, target)
    description = read(target / "dataset.json")
    assert description["labels"]["resection cavity"] == 4
    assert description["regions_class_order"] == [2, 1, 3, 4]


def test_decathlon(source, target):
    every = np.stack([random_image(seed) for seed in range(4)])
    write_nifti(source / "imagesTr" / "BRATS_001.nii.gz", every, spacing=(1, 1, 2, 1))
    write_nifti(source / "labelsTr" / "BRATS_001.nii.gz", label_with(1, 2, 3), spacing=(1, 1, 2))
    write_nifti(source / "imagesTs" / "BRATS_485.nii.gz", every[::-1].copy())
    (source / "imagesTr" / "._BRATS_001.nii.gz").write_bytes(b"\0\5\x16\7")
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    (source / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    assert not run(source, target).problems
    for channel in range(4):
        path = target / "imagesTr" / f"BRATS_001_{channel:04d}.nii.gz"
        np.testing.assert_array_equal(voxels(path), every[channel])
        assert sitk.ReadImage(str(path)).GetSpacing() == (1, 1, 2)
        np.testing.assert_array_equal(voxels(target / f"imagesTs/BRATS_485_{channel:04d}.nii.gz"), every[3 - channel])
    np.testing.assert_array_equal(voxels(target / "labelsTr/BRATS_001.nii.gz"), label_with(2, 1, 3))
    write_nifti(source / "imagesTs" / "BRATS_486.nii.gz", every[:3].copy())
    (problem,) = run(source, target).problems
    assert (problem.case, problem.kind) == ("BRATS_486", "shape")


def test_a_test_folder_with_segmentations(cohort, target, tmp_path):
    write_case(tmp_path / "held out", "t", seed=9)
    run(cohort, target, test=tmp_path / "held out")
    assert [name for name in names(target) if "Ts/" in name and "t" in name.split("/")[1][0]] == [
        *(f"imagesTs/t_{c:04d}.nii.gz" for c in range(4)),
        "labelsTs/t.nii.gz",
    ]
    assert read(target / "dataset.json")["numTraining"] == 3


# Going on


@pytest.fixture
def processed(monkeypatch):
    """Names of the cases that are processed."""
    calls = []

    def spy(case, **how):
        calls.append(case.name)
        return convert_case(case, **how)

    monkeypatch.setattr(module, "convert_case", spy)
    return calls


def test_a_second_run_repeats_nothing(cohort, target, processed):
    run(cohort, target)
    before = snapshot(target) | {"conversion.json": (target / "conversion.json").read_bytes()}
    processed.clear()
    assert run(cohort, target).n_done == 4
    assert not processed
    assert snapshot(target) | {"conversion.json": (target / "conversion.json").read_bytes()} == before


def test_killed_between_cases_and_within_one(cohort, target, processed, monkeypatch, tmp_path):
    whole = tmp_path / "whole" / target.name
    run(cohort, whole)
    processed.clear()
    writes = []
    write = one_case._write_case

    def interrupted(volumes, folder, *args, **kwargs):
        writes.append(volumes.report.case)
        if len(writes) == 3:
            (folder / "imagesTr" / f"{volumes.report.case}_0000.nii.gz").write_bytes(b"half")
            (folder / "imagesTs" / f"{volumes.report.case}_0000.nii.gz").write_bytes(b"before it got a segmentation")
            raise KeyboardInterrupt
        write(volumes, folder, *args, **kwargs)

    monkeypatch.setattr(one_case, "_write_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(cohort, target)
    assert not (target / "dataset.json").exists()
    with (target / "conversion.unfinished.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"settings": {"lay')  # cut short
    processed.clear()
    assert run(cohort, target).n_done == 2
    assert processed == ["d", "v"]
    assert snapshot(target) == snapshot(whole)


def test_changed_files_and_lost_ones_are_converted_again(cohort, target, processed):
    run(cohort, target)
    processed.clear()
    write_nifti(cohort / "LGG/c/c_t1.nii.gz", random_image(77))
    (target / "labelsTr" / "a b.nii.gz").unlink()
    (cohort / "LGG/d/d_t1.nii").unlink()
    run(cohort, target)
    assert processed == ["a b", "c", "d"]
    np.testing.assert_array_equal(voxels(target / "imagesTr/c_0001.nii.gz"), random_image(77))
    assert not (target / "imagesTr/d_0001.nii.gz").exists()  # of the first run


def test_a_corrected_mapping_file_counts(source, target, tmp_path, processed):
    """The files of the case are the same, and what each of them is has changed."""
    parts = label_with(1, 2)
    for number, name in enumerate(("x", "y")):
        write_nifti(source / f"a_{name}.nii.gz", random_image(number))
    for number, name in enumerate(("m", "n")):
        write_nifti(source / f"a_{name}.nii.gz", np.roll(parts, number))
    mapping = tmp_path / "mapping.yaml"

    def run_with(t1, t2, other, label):
        files = f"T1: '{{case}}_{t1}.nii.gz', T2: '{{case}}_{t2}.nii.gz', ADC: '{{case}}_{other}.nii.gz'"
        text = f"modalities: {{{files}}}\nlabel: '{{case}}_{label}.nii.gz'\nlabels: {{1: core, 2: edema}}\n"
        mapping.write_text(text, encoding="utf-8")
        processed.clear()
        run(source, target, layout=str(mapping))

    run_with("x", "y", "m", "n")
    run_with("x", "y", "m", "n")
    assert processed == []
    run_with("y", "x", "m", "n")
    assert processed == ["a"]
    np.testing.assert_array_equal(voxels(target / "imagesTr/a_0000.nii.gz"), random_image(1))
    run_with("y", "x", "n", "m")
    assert processed == ["a"]
    np.testing.assert_array_equal(voxels(target / "labelsTr/a.nii.gz"), parts)


def test_an_old_description_never_stands_beside_new_cases(cohort, target, monkeypatch):
    run(cohort, target)
    write_case(cohort / "LGG", "e", seed=6)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(one_case, "_write_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(cohort, target)
    assert not (target / "dataset.json").exists()


def test_a_case_that_gets_its_segmentation_moves(cohort, target):
    run(cohort, target)
    write_nifti(cohort / "Validation/v/v_seg.nii.gz", label_with(4))
    run(cohort, target)
    assert not (target / "imagesTs").exists()
    assert (target / "imagesTr/v_0000.nii.gz").is_file()
    assert read(target / "dataset.json")["numTraining"] == 4


def test_bad_cases_are_left_out_and_come_in_once_mended(cohort, target, processed):
    bad = cohort / "HGG" / "a b" / "a b_t1.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(good[:50])
    (cohort / "LGG" / "c" / "c_t1.nii").touch()
    done = run(cohort, target)
    assert [(problem.case, problem.kind) for problem in done.problems] == [
        ("a b", "unreadable"),
        ("c", "duplicate file"),
    ]
    assert [name for name in EXPECTED if "a b" not in name and "/c" not in name] == names(target)
    assert read(target / "dataset.json")["numTraining"] == 1
    assert set(read(target / "conversion.json")["problems"]) == {"a b", "c"}
    bad.write_bytes(good)
    (cohort / "LGG" / "c" / "c_t1.nii").unlink()
    processed.clear()
    assert not run(cohort, target).problems
    assert processed == ["a b", "c"]
    assert names(target) == EXPECTED


def test_a_case_that_has_become_bad_is_taken_out(cohort, target):
    run(cohort, target)
    (cohort / "LGG" / "c" / "c_t1.nii").touch()
    run(cohort, target)
    assert not [name for name in names(target) if "/c" in name]
    assert read(target / "dataset.json")["numTraining"] == 2


def test_no_training_case_no_description(source, target):
    write_case(source, "a", only=("T1",))
    assert not run(source, target).problems
    assert names(target) == ["conversion.json", "imagesTs/a_0001.nii.gz"]


# Accidents


def test_a_full_disk_leaves_nothing_that_looks_complete(cohort, target, monkeypatch):
    def full(source, destination):
        destination.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(one_case.shutil, "copyfile", full)
        with pytest.raises(UserError, match=r"No space left on device.*run again") as caught:
            run(cohort, target)
    assert "\n" not in str(caught.value)
    assert names(target) == ["conversion.unfinished.jsonl"]
    run(cohort, target)
    assert names(target) == EXPECTED


def test_itk_writing_half_a_file_is_noticed(cohort, target, monkeypatch):
    write = sitk.WriteImage

    def cut(image, path, **kwargs):
        write(image, path, **kwargs)
        os.truncate(path, Path(path).stat().st_size // 2)

    monkeypatch.setattr(one_case.sitk, "WriteImage", cut)
    with pytest.raises(UserError, match="is the disk full"):
        run(cohort, target)
    assert not list(target.rglob("labelsTr/*"))


def test_too_little_space_is_refused_before_anything_is_written(cohort, target, monkeypatch):
    needed = check_folder(cohort, raw=target.parent).space.needed
    sizes = {path: path.stat().st_size for path in cohort.rglob("*.nii*")}
    assert needed == int(sum(size / 2 if path.suffix == ".nii" else size for path, size in sizes.items()))
    usage = module.shutil.disk_usage(cohort)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=r"the disk is too small.*--link"):
        run(cohort, target)
    assert not target.exists()
    run(cohort, target, link=True)


@pytest.mark.slow
def test_a_killed_process_is_one_line_and_the_next_run_goes_on(cohort, target, kill_a_worker):
    kill_a_worker()
    with pytest.raises(UserError, match="a process was killed") as caught:
        run(cohort, target, processes=2)
    assert "\n" not in str(caught.value)
    litter = target / "imagesTs" / ".unfinished" / "elsewhere-7-0" / "half.nii.gz"  # of a process of another machine
    litter.parent.mkdir(parents=True)
    litter.touch()
    run(cohort, target)
    assert names(target) == EXPECTED
    assert not list(target.rglob(".*"))


def test_two_at_a_time_are_refused(cohort, target):
    run(cohort, target)
    before = snapshot(target)
    write_case(cohort / "LGG", "e", seed=6)
    with locked(target / LOCK), pytest.raises(UserError, match="another process holds"):
        run(cohort, target)
    assert {name: data for name, data in snapshot(target).items() if name != LOCK} == before
    run(cohort, target)
    assert read(target / "dataset.json")["numTraining"] == 4


def test_two_names_of_one_number_at_a_time_are_refused(cohort, target, monkeypatch):
    def begin_another(_known, source, test):
        (target.parent / "Dataset018_Other").mkdir(parents=True)
        return find_cases(_known, source, test)

    monkeypatch.setattr("nnunetv2_d2net.data.convert.convert.find_cases", begin_another)
    with pytest.raises(UserError, match=r"Dataset018_Other has the number 18 already"):
        run(cohort, target)
    assert not target.exists()


def test_a_foreign_folder_or_another_source_is_refused(cohort, target, tmp_path):
    (target / "imagesTr").mkdir(parents=True)
    with pytest.raises(UserError, match="was not written by d2net convert"):
        run(cohort, target)
    assert names(target) == []
    (target / "imagesTr").rmdir()
    run(cohort, target)
    before = snapshot(target)
    write_case(tmp_path / "other", "a b", seed=5)
    with pytest.raises(UserError, match=r"was converted with sources .*source.*not .*other"):
        run(tmp_path / "other", target)
    (target / "conversion.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"conversion\.json is no JSON"):
        run(cohort, target)
    assert snapshot(target) == before


def test_numbers_and_names_of_data_sets(cohort, tmp_path, monkeypatch):
    (tmp_path / "results" / "Dataset007_Other").mkdir(parents=True)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    for number, name, message in ((7, "New", "has the number 7"), (0, "a", "-d between"), (1, "a/b", "--name of")):
        with pytest.raises(UserError, match=message):
            convert_folder(cohort, number, name, raw=tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    assert convert_folder(cohort, 7, "Other", raw=tmp_path / "raw").folder == tmp_path / "raw" / "Dataset007_Other"


def test_python_needs_no_path_objects_and_nothing_is_printed(cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert check_folder(str(cohort)).space is None
    with pytest.raises(UserError, match="nnUNet_raw is not set"):
        convert_folder(str(cohort), 8, "A")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    converted = convert_folder(str(cohort), 8, "A")
    assert (converted.folder, converted.n_train, converted.n_done) == (tmp_path / "raw" / "Dataset008_A", 3, 0)
    assert capsys.readouterr() == ("", "")


# What is told


def test_a_check_describes_and_writes_nothing(cohort, tmp_path):
    write_nifti(cohort / "LGG/c/c_t2.nii.gz", random_image(100 + 1))  # T1 of "a b"
    write_case(cohort / "LGG", "e", seed=6, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    write_nifti(cohort / "HGG/a b/a b_t2.nii.gz", np.zeros((2, 2, 2), np.int16))
    write_nifti(cohort / "atlas.nii.gz", np.zeros((2, 2, 2), np.int16))
    before = names(tmp_path)
    checked = check_folder(cohort)
    assert names(tmp_path) == before
    text = describe_check(checked)
    assert "cases: 3 for training, 1 for testing (0 of these with a segmentation)" in text
    assert "modalities: FLAIR 3, T1 3, T1ce 3, T2 3" in text
    assert "  FLAIR+T1+T1ce+T2  2\n" in text
    assert "  FLAIR+T1ce        1\n" in text
    assert "  4 -> 3  enhancing tumor: 6 voxels in 3 cases" in text
    assert "orientation: LPS (3), RAS (1)" in text
    assert "1 NIfTI files belong to no case:\n" in text
    assert "  -     T1 -    T2  training  c\n" in text
    assert "  FLAIR -  T1ce -   test      v\n" in text
    assert [problem.kind for problem in checked.problems] == ["geometry"]
    assert "note: cases differ in orientation (LPS 3, RAS 1)" in text
    assert "hold the same voxels" not in text  # "a b" could not be read
    write_nifti(cohort / "HGG/a b/a b_t2.nii.gz", random_image(9))
    assert "note: T1 of 'a b' and T2 of 'c' hold the same voxels\n" in describe_check(check_folder(cohort))


def test_long_lists_are_cut(source):
    layout = layout_of(write_case(source, "a").parent)
    geometry = {"size": "1", "spacing": "1", "orientation": "LPS"}
    reports = [CaseReport(f"case {i}", "Tr", {}, None, {}, ["T1"], {0: 1}, geometry) for i in range(99)]
    text = describe_check(Checked(layout, reports, [], [], None))
    assert text.endswith("  ... and 69 more\n")
    assert text.count("\n  -     T1") == 30


def test_odd_headers_of_many_cases_are_one_line_and_absent_classes_are_told(source):
    layout = layout_of(write_case(source, "a", NEW).parent)
    geometry = {"size": "1", "spacing": "1", "orientation": "LPS"}
    reports = [
        CaseReport(f"c{i}", "Tr", {}, None, {}, ["T1"], {0: 9, 4 - i % 2: i % 3}, geometry, [f"c{i}_t1 has {i} mm"])
        for i in range(9)
    ]
    text = describe_check(Checked(layout, reports, [], [], None))
    assert "note: c0_t1 has 0 mm; the like in 8 other cases\n" in text
    assert text.count("mm;") == text.count(" mm") == 1
    assert "note: no case has the label 'edema'" in text
    assert "note: no case has both resection cavity and enhancing tumor" in text
    reports[0].voxels = {0: 9}
    assert "note: 1 segmentation without any label (c0)" in describe_check(Checked(layout, reports, [], [], None))
