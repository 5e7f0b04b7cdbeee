"""Every kind of damage is told with case, file and reason; a clean cohort raises no suspicion."""

import shutil
from dataclasses import replace
from itertools import combinations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.data.inspect.record import ABSENT, CONSTANT, NOT_FINITE, UNREADABLE
from nnunetv2_d2net.data.inspect.suspicions import find_duplicates


def only(findings):
    assert len(findings) == 1, findings
    return findings[0]


def states(inspection, case):
    return next(record.states for record in inspection.records if record.case == f"case_{case:02d}")


def test_a_clean_cohort_raises_no_suspicion(dataset):
    inspection = dataset.inspect()
    assert inspection.findings == []
    assert len(inspection.records) == 12
    assert all(all(record.pattern) for record in inspection.records)


def test_absent_images_are_no_suspicion(dataset):
    dataset.image(3, "T1").unlink()
    inspection = dataset.inspect()
    assert inspection.findings == []
    assert states(inspection, 3)[1] == ABSENT
    assert inspection.records[-1].case == "case_03"  # rarer patterns come later


def test_headers_that_contradict_themselves(dataset):
    """One finding for a case, whatever the number of its files; what the header says about the place is not judged."""
    for name in ("FLAIR", "T1", "T2", None):
        path = dataset.image(4, name) if name else dataset.label(4)
        image = nibabel.load(path)
        image.set_sform(image.affine, 1)
        moved = image.affine.copy()
        moved[1, 3] += 12.4
        image.set_qform(moved, 1)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)
    finding = only(dataset.inspect().findings)
    assert (finding.case, finding.kind, finding.file) == ("case_04", "header", str(dataset.image(4, "FLAIR")))
    assert finding.reason.startswith("it has a qform and an sform that differ by 12.4 mm")
    assert "(as in 4 files of its case)" in finding.reason


def test_a_header_without_units_of_a_head(dataset):
    dataset.header(dataset.label(4), Spacing=(0.001, 0.001, 0.001))
    finding = only(dataset.findings("header"))
    assert (finding.case, finding.file) == ("case_04", str(dataset.label(4)))
    assert "0.001 x 0.001 x 0.001 mm" in finding.reason


HEADERS = {
    "origin": {"Origin": (0.0, 5.0, 0.0)},
    "spacing": {"Spacing": (2.0, 2.0, 3.1)},
    "direction": {"Direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)},
}


@pytest.mark.parametrize("what", HEADERS)
@pytest.mark.parametrize("of_label", [False, True])
def test_an_image_or_label_that_lies_elsewhere(dataset, what, of_label):
    path = dataset.label(4) if of_label else dataset.image(4, "FLAIR")
    dataset.header(path, **HEADERS[what])
    finding = only(dataset.findings("misaligned"))
    assert (finding.case, finding.file) == ("case_04", str(path))
    assert what in finding.reason
    assert not any(other in finding.reason for other in HEADERS if other != what)


@pytest.mark.parametrize("of_label", [False, True])
def test_an_image_or_label_of_another_shape(dataset, of_label):
    path = dataset.label(4) if of_label else dataset.image(4, "T1")
    dataset.edit(path, lambda voxels: voxels[:-1])
    finding = only(dataset.findings("misaligned"))
    assert finding.file == str(path)
    assert "shape (15x20x18 and 16x20x18 voxels)" in finding.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda voxels: np.roll(voxels, 6, 0), "shows another head"),
        (lambda voxels: np.where(np.arange(20)[:, None] < 8, voxels, 0), "T2.nii.gz shows nothing in"),
    ],
)
def test_an_image_that_shows_another_head_or_a_part_of_one(dataset, change, reason):
    assert dataset.findings("another head") == []
    dataset.edit(dataset.image(4, "T2"), change)
    found = dataset.findings("another head")
    assert {finding.case for finding in found} == {"case_04"}
    wanted = reason.replace("T2", dataset.image(4, "T2").name.removesuffix(".nii.gz"))
    assert any(wanted in f"{finding.file} {finding.reason}" for finding in found), found
    assert all(finding.remedy for finding in found)


def test_an_image_and_its_scaled_copy(dataset):
    source = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.image(4, "T1"))))
    dataset.edit(dataset.image(4, "T2"), lambda _: source * 2)
    finding = only(dataset.findings("another head"))
    assert "are one image, scaled or rounded" in finding.reason
    dataset.edit(dataset.image(4, "T2"), lambda _: source)
    assert dataset.findings("another head") == []  # a duplicate


def test_a_label_of_several_volumes(dataset):
    dataset.edit(dataset.label(4), lambda voxels: sitk.JoinSeries([sitk.GetImageFromArray(voxels)] * 2))
    finding = dataset.findings("misaligned")[0]
    assert (finding.case, finding.file) == ("case_04", str(dataset.label(4)))
    assert finding.reason == "the label holds 2 volumes, of which only the first is looked at"
    assert finding.remedy == "write the one that belongs to the images, alone"


def test_images_that_are_no_signal(dataset):
    dataset.edit(dataset.image(2, "T2"), lambda voxels: np.where(voxels == 0, -3.4e38, voxels))
    dataset.edit(dataset.label(3), lambda voxels: voxels * 1e30)
    inspection = dataset.inspect()
    of_label, of_image = inspection.findings
    assert (of_label.case, of_label.kind) == ("case_03", "unknown label values")
    assert (of_image.case, of_image.kind) == ("case_02", UNREADABLE)
    assert of_image.reason == "the image holds a voxel of -3.4e+38, which is no signal"
    assert states(inspection, 2)[2] == UNREADABLE


def test_a_constant_image_counts_as_absent(dataset):
    dataset.edit(dataset.image(2, "T2"), lambda voxels: voxels * 0 + 7)
    dataset.edit(dataset.image(5, "T2"), lambda voxels: voxels * 0 + 7)
    inspection = dataset.inspect()
    assert [(f.case, f.kind) for f in inspection.findings] == [("case_02", "constant"), ("case_05", "constant")]
    assert "every voxel of T2 is 7" in inspection.findings[0].reason
    assert states(inspection, 2)[2] == CONSTANT


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_that_is_not_finite(dataset, value):
    def spoil(voxels):
        voxels[8, 9, 9] = value
        return voxels

    dataset.edit(dataset.image(2, "T2"), spoil)
    dataset.edit(dataset.label(3), lambda voxels: spoil(voxels.astype(np.float32)))
    inspection = dataset.inspect()
    assert [(f.case, f.kind) for f in inspection.findings] == [
        ("case_02", NOT_FINITE),
        ("case_03", "unknown label values"),
    ]
    assert states(inspection, 2)[2] == NOT_FINITE


def test_files_that_are_cut_short(dataset):
    for path in (dataset.image(2, "T2"), dataset.label(3)):
        path.write_bytes(path.read_bytes()[:-60])
    inspection = dataset.inspect()
    assert [(f.case, f.kind) for f in inspection.findings] == [("case_02", UNREADABLE), ("case_03", UNREADABLE)]
    assert states(inspection, 2)[2] == UNREADABLE
    assert [f.file for f in inspection.findings] == [str(dataset.image(2, "T2")), str(dataset.label(3))]


def test_a_case_with_nothing_but_a_label(dataset):
    for name in ("FLAIR", "T1", "T2"):
        dataset.image(6, name).unlink()
    finding = only(dataset.findings())
    assert (finding.case, finding.kind, finding.file) == ("case_06", "no modality", str(dataset.label(6)))


def test_a_case_without_a_label(dataset):
    dataset.label(6).unlink()
    finding = only(dataset.findings())
    assert (finding.case, finding.kind) == ("case_06", "no label")


def test_files_that_cannot_be_told_apart(dataset):
    dataset.image(6, "T2").rename(dataset.folder / "imagesTr" / "case_06_0007.nii.gz")
    finding = only(dataset.findings())
    assert (finding.case, finding.kind) == ("case_06", "file names")
    assert "0007" in finding.reason
    assert "case_06_0007_0000.nii.gz" in finding.remedy


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda voxels: voxels * 0.5, "no whole numbers, such as 0.5"),
        (lambda voxels: voxels * 4, "holds 4, dataset.json knows 0, 1, 2"),
    ],
)
def test_unknown_label_values(dataset, change, told):
    dataset.edit(dataset.label(1), lambda voxels: change(voxels.astype(np.float32)))
    finding = only(dataset.findings("unknown label values"))
    assert (finding.case, finding.file) == ("case_01", str(dataset.label(1)))
    assert told in finding.reason


def test_rounding_is_no_fraction(dataset):
    before = next(record.volumes_ml for record in dataset.inspect().records if record.case == "case_01")
    dataset.edit(dataset.label(1), lambda voxels: voxels * np.float32(0.99999))
    inspection = dataset.inspect()
    assert inspection.findings == []
    assert next(record.volumes_ml for record in inspection.records if record.case == "case_01") == before


def test_listed_files_that_are_not_there(dataset):
    images = [f"imagesTr/case_01_{m:04d}.nii.gz" for m in range(3)]
    lost = {"images": ["imagesTr/lost_0000.nii.gz", *images[1:]], "label": "labelsTr/lost.nii.gz"}
    dataset.describe(dataset={"one": {"images": images, "label": "labelsTr/case_01.nii.gz"}, "two": lost})
    findings = dataset.findings(UNREADABLE)
    assert [(f.case, f.reason) for f in findings] == [
        ("two", "the image is not there"),
        ("two", "the label is not there"),
    ]


@pytest.mark.parametrize("value", [0, 2])
def test_a_label_of_background_or_ignored_voxels_is_empty(dataset, value):
    dataset.edit(dataset.label(1), lambda voxels: voxels * value)
    finding = only(dataset.findings())
    assert (finding.case, finding.kind) == ("case_01", "empty label")


def test_a_label_outside_the_image(dataset):
    dataset.edit(dataset.label(1), lambda voxels: np.roll(voxels, 8, 1))
    finding = only(dataset.findings("label outside the image"))
    assert finding.case == "case_01"


def test_ignored_voxels_may_lie_outside(dataset):
    def ignore_background(voxels):
        voxels[0] = 2
        return voxels

    dataset.edit(dataset.label(1), ignore_background)
    assert dataset.findings() == []


def test_duplicates_of_cases_and_of_modalities(dataset):
    shutil.copy(dataset.image(1, "T1"), dataset.image(7, "T1"))
    dataset.edit(dataset.image(3, "T2"), lambda _: sitk.ReadImage(str(dataset.image(3, "FLAIR"))))
    shutil.copy(dataset.label(8), dataset.label(9))
    findings = dataset.findings("duplicate")
    assert [f.case for f in findings] == ["case_01", "case_03", "case_07", "case_08", "case_09"]
    assert findings[0].reason == "T1 of case_01 and T1 of case_07 are voxel by voxel alike"
    assert findings[1].reason == "FLAIR of case_03 and T2 of case_03 are voxel by voxel alike"
    assert str(dataset.label(8)) in findings[4].file


def test_a_copy_in_the_other_split_is_named_first(dataset):
    for case in range(2, 7):
        shutil.copy(dataset.image(1, "T1"), dataset.image(case, "T1"))
    records = dataset.inspect().records
    elsewhere = replace(next(r for r in records if r.case == "case_01"), case="leaked")
    found = find_duplicates(sorted(records, key=lambda r: r.case), ("FLAIR", "T1", "T2"), [elsewhere])
    assert {finding.case for finding in found} == {f"case_{case:02d}" for case in range(1, 7)}
    copies = [finding for finding in found if finding.case != "case_01"]
    assert all("and T1 of leaked in the other split and " in finding.reason for finding in copies)


@pytest.mark.parametrize("pair", list(combinations(("FLAIR", "T1", "T2"), 2)))
def test_swapped_modalities(dataset, pair):
    dataset.swap(5, *pair)
    finding = only(dataset.findings())
    assert (finding.case, finding.kind) == ("case_05", "modalities swapped")
    assert f"{pair[0]} looks like {pair[1]} and {pair[1]} looks like {pair[0]}" in finding.reason
    assert finding.file == ", ".join(str(dataset.image(5, name)) for name in pair)


def test_an_image_under_the_name_of_an_absent_one(dataset):
    dataset.image(5, "T2").rename(dataset.image(5, "T1"))
    finding = only(dataset.findings())
    assert (finding.case, finding.kind) == ("case_05", "modalities swapped")
    assert "T1 looks like T2" in finding.reason
    assert "T2 looks like" not in finding.reason


def test_three_modalities_in_a_ring(dataset):
    dataset.swap(5, "FLAIR", "T1")
    dataset.swap(5, "T1", "T2")
    finding = only(dataset.findings())
    assert all(f"{name} looks like" in finding.reason for name in ("FLAIR", "T1", "T2"))


def test_too_few_cases_to_compare(dataset):
    for case in range(5, 12):
        for path in (*dataset.folder.glob(f"imagesTr/case_{case:02d}_*"), dataset.label(case)):
            path.unlink()
    dataset.swap(1, "T1", "T2")
    assert dataset.findings() == []


def test_spacing_and_volumes_far_from_the_others(dataset):
    for path in (dataset.image(4, "FLAIR"), dataset.image(4, "T1"), dataset.image(4, "T2"), dataset.label(4)):
        dataset.header(path, Spacing=(2.0, 2.0, 15.0))
    findings = dataset.findings()
    assert {f.kind for f in findings} == {"spacing outlier", "head volume outlier", "volume outlier"}
    assert {f.case for f in findings} == {"case_04"}
    assert "the spacing along z is 15 mm, the median of the cohort is 3 mm" in {f.reason for f in findings}
    assert {f.file for f in findings} == {str(dataset.image(4, "FLAIR")), str(dataset.label(4))}


@pytest.mark.parametrize(("first", "n_cases"), [(0, 12), (9, 3)])
def test_one_slice_among_volumes_also_among_few_cases(first, n_cases, dataset):
    for case in range(first):
        for path in (*dataset.folder.glob(f"imagesTr/case_{case:02d}_*"), dataset.label(case)):
            path.unlink()
    for path in (*(dataset.image(10, name) for name in ("FLAIR", "T1", "T2")), dataset.label(10)):
        sitk.WriteImage(sitk.ReadImage(str(path))[:, :, 5:6], str(path))
    inspection = dataset.inspect()
    cut = only([f for f in inspection.findings if f.kind == "field of view"])
    assert (cut.case, cut.file) == ("case_10", str(dataset.image(10, "FLAIR")))
    assert "it reaches 3 mm along z, the median of the cohort is" in cut.reason
    assert len(inspection.records) == n_cases


def test_two_cases_do_not_say_which_is_cut(dataset):
    for case in range(10):
        for path in (*dataset.folder.glob(f"imagesTr/case_{case:02d}_*"), dataset.label(case)):
            path.unlink()
    for path in (*(dataset.image(10, name) for name in ("FLAIR", "T1", "T2")), dataset.label(10)):
        sitk.WriteImage(sitk.ReadImage(str(path))[:, :, 5:6], str(path))
    assert "field of view" not in {f.kind for f in dataset.findings()}


def test_heads_with_noise_around_them(dataset):
    rng = np.random.default_rng(0)
    for path in dataset.folder.glob("imagesTr/*"):
        dataset.edit(path, lambda voxels: voxels + np.abs(rng.normal(0, 8, voxels.shape)).astype(np.float32))
    dataset.swap(5, "T1", "T2")

    def into_a_corner(voxels):
        moved = np.zeros_like(voxels)
        moved[:3, :3, :3] = 1
        return moved

    dataset.edit(dataset.label(1), into_a_corner)
    findings = dataset.findings()
    assert {(f.case, f.kind) for f in findings} >= {
        ("case_05", "modalities swapped"),
        ("case_01", "label outside the image"),
    }
    assert {f.case for f in findings} == {"case_01", "case_05"}
