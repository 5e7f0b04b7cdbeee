"""Which files are which: every layout, odd names, and what is refused."""

import json
import pickle

import numpy as np
import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.doubts import refuse_foreign_labels
from nnunetv2_d2net.data.convert.layouts import find_cases, layout_of
from tests.unit.data.convert.source_folders import NEW, OLD, random_image, write_case, write_nifti


def find(source, layout="auto", test=None):
    return find_cases(layout_of(source, layout), source, test)


def shape_of(found):
    """Split and modalities of each case."""
    return {case.name: (case.split, *case.images) for case in found.cases}


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


# The layouts


def test_brats2018_nested_mixed_upper_case_and_with_spaces(source):
    for suffix in OLD.values():
        touch(source / "HGG" / "Brats18_A_1" / f"Brats18_A_1{suffix}.nii.gz")
    for name in ("p 2_FLAIR.nii", "p 2_T1ce.NII.GZ", "p 2_Seg.nii", "survival.csv", "._p 2_t1.nii.gz"):
        touch(source / "LGG" / "deeper" / "p 2" / name)
    touch(source / "__MACOSX" / "LGG" / "p 2_t2.nii.gz")
    assert layout_of(source).name == "brats2018"
    found = find(source)
    assert shape_of(found) == {"Brats18_A_1": ("Tr", "FLAIR", "T1", "T1ce", "T2"), "p 2": ("Tr", "FLAIR", "T1ce")}
    assert found.cases[1].label == source / "LGG" / "deeper" / "p 2" / "p 2_Seg.nii"
    assert not found.problems
    assert not found.stray


def test_brats2021_is_told_from_earlier_years_by_its_names(source):
    for suffix in OLD.values():
        touch(source / "BraTS2021_00000" / f"BraTS2021_00000{suffix}.nii.gz")
    assert layout_of(source).name == "brats2021"
    assert shape_of(find(source)) == {"BraTS2021_00000": ("Tr", "FLAIR", "T1", "T1ce", "T2")}
    touch(source / "Brats18_A_1" / "Brats18_A_1_t1.nii.gz")
    assert layout_of(source).name == "brats2018"


def test_brats2023_names(source):
    for suffix in NEW.values():
        touch(source / "BraTS-GLI-00000-000" / f"BraTS-GLI-00000-000{suffix}.nii.gz")
    assert layout_of(source).name == "brats2023"
    (case,) = find(source).cases
    assert [case.images[name].path.name[-10:] for name in ("FLAIR", "T1", "T1ce", "T2")] == [
        f"{suffix[1:]}.nii.gz" for suffix in NEW.values() if suffix != "-seg"
    ]


def test_pediatric_cases_need_a_word(source):
    touch(source / "BraTS-PED-00001-000" / "BraTS-PED-00001-000-t1c.nii.gz")
    with pytest.raises(UserError, match=r"pediatric cases such as BraTS-PED-00001-000.*--layout brats2023"):
        layout_of(source)
    assert shape_of(find(source, "brats2023")) == {"BraTS-PED-00001-000": ("Ts", "T1ce")}


def write_msd(
    source, modality=("FLAIR", "T1w", "t1gd", "T2w"), labels=("edema", "non-enhancing tumor", "enhancing tumour")
):
    for split, name in (("Tr", "BRATS_001"), ("Tr", "BRATS_002"), ("Ts", "BRATS_485")):
        touch(source / f"images{split}" / f"{name}.nii.gz")
        touch(source / f"images{split}" / f"._{name}.nii.gz")
    touch(source / "labelsTr" / "BRATS_001.nii.gz")
    description = {
        "modality": {str(i): name for i, name in enumerate(modality)},
        "labels": {"0": "background"} | {str(i): name for i, name in enumerate(labels, 1)},
    }
    (source / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def test_decathlon_takes_order_and_numbers_from_its_own_description(source):
    write_msd(source)
    layout = layout_of(source)
    assert layout.scheme.values == {0: 0, 2: 1, 1: 2, 3: 3}
    found = find(source)
    every = ("FLAIR", "T1", "T1ce", "T2")
    assert shape_of(found) == {"BRATS_001": ("Tr", *every), "BRATS_002": ("Ts", *every), "BRATS_485": ("Ts", *every)}
    assert [found.cases[0].images[name].channel for name in every] == [0, 1, 2, 3]
    assert [bool(case.notes) for case in found.cases] == [False, True, False]
    write_msd(source, ("T2w", "t1gd", "FLAIR", "T1w"), ("enhancing tumour", "edema", "non-enhancing tumor"))
    assert layout_of(source).scheme.values == {0: 0, 3: 1, 2: 2, 1: 3}
    assert [find(source).cases[0].images[name].channel for name in every] == [2, 3, 1, 0]


def test_decathlon_names_that_are_in_both_folders(source):
    write_msd(source)
    touch(source / "imagesTs" / "BRATS_001.nii.gz")
    found = find(source)
    assert [(problem.case, problem.kind) for problem in found.problems] == [("BRATS_001", "colliding name")]
    assert "imagesTr/BRATS_001.nii.gz and" in found.problems[0].line
    assert list(shape_of(found)) == ["BRATS_002", "BRATS_485"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"channel_names": {}}', "data set of nnU-Net already"),
        ('{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}', "does not describe Task01"),
        ("[]", "holds a list, not an object"),
        ('{"modality": {"0": "FLAIR"}, "labels": {"0": "background", "1": "edema"}}', "lacks a modality or label"),
    ],
)
def test_other_descriptions_are_refused(source, content, message):
    write_msd(source)
    (source / "dataset.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        layout_of(source)


# Segmentations that are missing or have another name


def test_a_case_without_segmentation_among_others_goes_to_test_and_is_told(source):
    for name, suffixes in (("a", OLD), ("b", {"T1": "_t1"})):
        for suffix in suffixes.values():
            touch(source / "training" / name / f"{name}{suffix}.nii.gz")
    touch(source / "validation" / "c" / "c_t1.nii.gz")
    cases = {case.name: case for case in find(source).cases}
    assert {name: case.split for name, case in cases.items()} == {"a": "Tr", "b": "Ts", "c": "Ts"}
    assert cases["b"].notes == ["'b' has no segmentation: it goes to imagesTs"]
    assert not cases["a"].notes
    assert not cases["c"].notes  # a folder of test cases only: nothing to wonder about


def test_a_segmentation_of_another_name_is_taken_where_it_is_the_only_one(source):
    folder = source / "BraTS20_Training_355"
    touch(folder / "BraTS20_Training_355_flair.nii")
    odd = touch(folder / "W39_1998.09.19_Segm.nii")
    (case,) = find(source).cases
    assert case.label == odd
    assert "is taken for the segmentation of 'BraTS20_Training_355'" in case.notes[0]
    other = touch(folder / "other_segm.nii")
    found = find(source)
    assert found.cases[0].label is None  # two candidates
    assert found.stray == [odd, other]
    other.unlink()
    touch(folder / "BraTS20_Training_355_seg.nii")
    assert find(source).stray == [odd]


def test_a_test_folder_keeps_its_segmentations(source, tmp_path):
    for folder, name in ((source, "a"), (tmp_path / "held out", "b"), (tmp_path / "held out", "a")):
        for suffix in OLD.values():
            touch(folder / name / f"{name}{suffix}.nii.gz")
    found = find(source, test=tmp_path / "held out")
    assert [(case.name, case.split, case.label is None) for case in found.cases] == [("b", "Ts", False)]
    assert [(problem.case, problem.kind) for problem in found.problems] == [("a", "colliding name")]


# What is refused


def problems_of(source):
    return {problem.case: (problem.kind, problem.line) for problem in find(source).problems}


def test_two_files_for_one_modality(source):
    for name in ("a_t1.nii", "a_t1.nii.gz", "b_t1ce.nii.gz", "b_t1Gd.nii.gz", "c_t1.nii"):
        touch(source / name)
    problems = problems_of(source)
    assert {case: kind for case, (kind, _) in problems.items()} == {"a": "duplicate file", "b": "duplicate file"}
    assert problems["a"][1] == f"{source}/a_t1.nii and {source}/a_t1.nii.gz are both the T1 of 'a': remove one"
    assert list(shape_of(find(source))) == ["c"]


def test_two_folders_with_one_case_name_are_never_merged(source):
    touch(source / "HGG" / "a" / "a_flair.nii.gz")
    touch(source / "LGG" / "a" / "a_t1.nii.gz")
    kind, line = problems_of(source)["a"]
    assert kind == "colliding name"
    assert "HGG/a/a_flair.nii.gz" in line
    assert "LGG/a/a_t1.nii.gz" in line


def test_a_segmentation_alone_a_broken_link_and_a_name_of_no_file(source):
    touch(source / "a" / "a_seg.nii.gz")
    (source / "b_t1.nii.gz").symlink_to(source / "nowhere.nii.gz")
    touch(source / "c\n_t1.nii.gz")
    touch(source / "d _t1.nii.gz")
    kinds = {case: kind for case, (kind, _) in problems_of(source).items()}
    assert kinds == {"a": "no image", "b": "unreadable", "c\n": "bad name", "d ": "bad name"}
    assert all("\n" not in line for _, line in problems_of(source).values())


@pytest.mark.parametrize(
    "name", ["t1.nii.gz.part", "t1.nii.gz.crdownload", "t1.nii.gz.gz", "t1.nii (1).gz", "t1.nii.gz.txt"]
)
def test_an_image_with_something_behind_its_ending(source, name):
    write_case(source, "a", only=("FLAIR", "T2", "seg"))
    path = source / "a" / f"a_{name}"
    touch(path)
    line = (
        f"{path} does not end as an image: finish its download, unpack or rename it, so that it is called a_t1.nii.gz"
    )
    assert problems_of(source) == {"a": ("unreadable", line)}
    touch(source / "a" / "a_t1.nii.gz")  # of which that is a copy
    assert shape_of(find(source)) == {"a": ("Tr", "FLAIR", "T1", "T2")}


def test_a_folder_in_the_place_of_an_image(source):
    write_case(source, "a", only=("FLAIR", "T2", "seg"))
    folder = source / "a" / "a_t1.nii.gz"
    folder.mkdir()
    touch(source / "a" / "a_t1ce.nii" / "brain.nii")
    line = f"{folder} is a folder: put the image there, or remove it"
    assert problems_of(source) == {"a": ("unreadable", line)}
    folder.rmdir()
    assert "a_t1ce.nii is a folder" in problems_of(source)["a"][1]


@pytest.mark.parametrize("kind", ["missing", "empty", "no NIfTI", "a file"])
def test_folders_without_any_case(source, kind):
    if kind == "no NIfTI":
        touch(source / "case" / "image.dcm")
        touch(source / "._a_t1.nii.gz")
    folder = {"missing": source / "no", "a file": source / "file"}.get(kind, source)
    if kind == "a file":
        folder.touch()
    with pytest.raises(UserError, match=r"pass the folder that holds the cases") as caught:
        layout_of(folder)
    assert "\n" not in str(caught.value)


def test_nothing_and_too_much_recognized(source):
    touch(source / "patient" / "t1.nii.gz")
    with pytest.raises(
        UserError, match=r"no known layout, looked for CASE_flair.*CASE-t2f.*dataset\.json.*mapping file"
    ):
        layout_of(source)
    with pytest.raises(UserError, match="holds nothing like CASE_flair"):
        find(source, "brats2018")
    touch(source / "a_t1.nii.gz")
    touch(source / "b-t1n.nii.gz")
    with pytest.raises(UserError, match=r"1 files named as in BraTS 2017 to 2021.*'a'.*1 as in BraTS 2023.*'b'"):
        layout_of(source)
    assert shape_of(find(source, "brats2023")) == {"b": ("Ts", "T1")}


def test_a_link_to_a_folder_above_ends(source):
    touch(source / "a" / "a_t1.nii.gz")
    (source / "a" / "loop").symlink_to(source)
    assert shape_of(find(source)) == {"a": ("Ts", "T1")}


def test_stray_files_are_listed(source):
    write_case(source, "a")
    stray = write_nifti(source / "a" / "a_t1_biascorrected.nii.gz", random_image())
    write_nifti(source / "atlas.nii", np.zeros((2, 2, 2), np.uint8))
    assert find(source).stray == [stray, source / "atlas.nii"]


@pytest.mark.parametrize("name", ["brats2018", "msd", "mapping"])
def test_layouts_travel_to_other_processes(source, tmp_path, name):
    write_msd(source)
    touch(source / "a" / "a_t1.nii.gz")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("modalities: {T1: '**/{case}_t1.nii.gz'}\nlabels: {1: lesion}\n", encoding="utf-8")
    layout = layout_of(source, str(mapping) if name == "mapping" else name)
    assert pickle.loads(pickle.dumps(layout)).find(source) == layout.find(source)
    assert layout.find(source).cases


# What may mean something else


@pytest.mark.parametrize("rest", ["_T1w", "_t1_post", "_ce-gadolinium_T1w", "_t1ce.mha"])
def test_a_file_that_may_be_the_lacking_modality_is_never_lost(source, rest):
    write_case(source, "a", only=("FLAIR", "T2", "seg"))
    touch(source / "a" / f"a{rest}{'' if rest.endswith('.mha') else '.nii.gz'}")
    remedy = "convert them to NIfTI" if rest.endswith(".mha") else "say in a mapping file"
    with pytest.raises(UserError, match=rf"{rest.split('.')[0]}.*1 file, such as .*: {remedy}") as caught:
        find(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a_segm", "a_GlistrBoost", "a_gtv", "a-label"])
def test_a_segmentation_of_another_name_or_place_is_never_lost(source, name):
    write_case(source, "a", only=("FLAIR", "T1", "T1ce", "T2"))
    touch(source / "a" / "b_t1.nii.gz")  # so that the only candidate of the folder is not the only case's
    touch(source / "segmentations" / f"{name}.nii.gz")
    with pytest.raises(UserError, match=f"{name[1:]} .*mapping file"):
        find(source)


def test_ucsf_pdgm_has_masks_of_the_brain_and_bias_fields(source):
    names = {"FLAIR": "_FLAIR", "T1": "_T1", "T1ce": "_T1c", "T2": "_T2", "seg": "_tumor_segmentation"}
    folder = write_case(source, "UCSF-PDGM-0004", names)
    others = [f"{name}.nii.gz" for name in ("T1_bias", "T1c_bias", "SWI", "brain_segmentation")]
    for other in others:
        touch(folder / f"UCSF-PDGM-0004_{other}")
    found = find(source)
    assert shape_of(found) == {"UCSF-PDGM-0004": ("Tr", "FLAIR", "T1", "T1ce", "T2")}
    assert found.cases[0].label == folder / "UCSF-PDGM-0004_tumor_segmentation.nii.gz"
    assert len(found.stray) == len(others)


def test_a_mask_of_the_brain_is_no_segmentation_of_a_tumor(source):
    folder = write_case(source, "a", only=("FLAIR", "T1", "T1ce", "T2"))
    touch(folder / "a_brain_segmentation.nii.gz")
    assert find(source).cases[0].label is None


def test_names_that_make_no_case_are_for_a_mapping_file(source):
    for token in ("t1", "t1ce"):
        touch(source / "A" / f"A-{token}.nii" / f"1_brain_{token}.nii")
    touch(source / "A" / "A-seg.nii" / "1_final_seg.nii")
    with pytest.raises(UserError, match=r"give the same case name .*: write a mapping file") as caught:
        find(source)
    assert "rename" not in str(caught.value)


def test_other_formats_and_old_raw_data_are_named(source):
    touch(source / "a" / "a_t1.mha")
    with pytest.raises(UserError, match=r"a_t1\.mha and the like: convert them"):
        layout_of(source)
    touch(source / "imagesTr" / "a_0000.nii.gz")
    (source / "dataset.json").write_text('{"modality": {"0": "T1"}, "labels": {"0": "background"}}', encoding="utf-8")
    with pytest.raises(UserError, match="nnUNetv2_convert_old_nnUNet_dataset"):
        layout_of(source)


def values(*of_cases):
    return [(f"case {i}", of_case) for i, of_case in enumerate(of_cases)]


def test_labels_that_two_years_name_otherwise_are_asked_about(source):
    write_case(source, "a", NEW)
    layout = layout_of(source)
    refuse_foreign_labels(source, layout, values({0, 4}, {0, 1, 2, 3}))
    refuse_foreign_labels(source, layout, values({0, 1, 2}, None, {0}))
    with pytest.raises(UserError, match=r"label 4.*'case 1'.*no case has 3.*--labels brats2023 or --labels brats2021"):
        refuse_foreign_labels(source, layout, values({0, 1, 2}, {0, 1, 2, 4}))
    for year, name in (("brats2021", "enhancing tumor"), ("brats2023", "resection cavity")):
        told = layout_of(source, labels=year)
        refuse_foreign_labels(source, told, values({0, 1, 2, 4}))
        assert told.scheme.names[4] == name
    with pytest.raises(UserError, match="--labels takes"):
        layout_of(source, labels="2021")


def test_nothing_labelled_is_refused(source):
    write_case(source, "a")
    with pytest.raises(UserError, match="2 segmentations, all without any label"):
        refuse_foreign_labels(source, layout_of(source), values({0}, None, {0}))
    refuse_foreign_labels(source, layout_of(source), values(None))
