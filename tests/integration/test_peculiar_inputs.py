"""Peculiar inputs of every kind, a small folder each: what is wrong is told in one line, what is right goes through.

The inputs lie outside the repository; other tests write light ones of each kind for themselves.
"""

import codecs
import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import nibabel.processing
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry, preprocess_entry
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.run import run_training
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from nnunetv2_d2net.plugin.training.pretrained import starting_from
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.integration.conftest import nnunet, tiny_nnunet

VARIABLE = "D2NET_PECULIAR_INPUTS"
INPUTS = Path(os.environ.get(VARIABLE, ""))
MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
BAR = re.compile(r"^[\w ]*: +[0-9]+%.*?\]|^[\w ]*: [0-9]+[a-z]* \[.*?\]")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} does not name a folder"),
]


class Done(NamedTuple):
    """How a command ended, and the lines that it wrote."""

    status: int
    out: list[str]
    err: list[str]

    @property
    def lines(self):
        return [*self.out, *self.err]


@pytest.fixture
def run(capfd):
    """Run a command in this process; nobody sees a traceback or a warning of ITK."""

    def call(*words):
        capfd.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
        out, err = (re.split(r"[\r\n]+", text) for text in capfd.readouterr())
        done = Done(status, out, [BAR.sub("", line) for line in err if BAR.sub("", line).strip()])
        assert not [line for line in done.lines if "Traceback" in line or line.startswith("WARNING: In ")], done.lines
        return done

    return call


@pytest.fixture
def given(tmp_path):
    """Copy a folder of the inputs, so that what happens to it happens to nobody else."""

    def copy(name, place="given"):
        target = tmp_path / place
        shutil.copytree(INPUTS / name, target / name, symlinks=True)
        return target / name

    return copy


@pytest.fixture(autouse=True)
def folders(tmp_path):
    """Let nnU-Net's variables name empty folders of this test."""
    with tiny_nnunet(tmp_path):
        yield tmp_path


def told(done, *parts):
    """Return the one line that says all parts, beside the last one, which may repeat it."""
    lines = [line for line in done.lines if all(str(part) in line for part in parts) and "; the first: " not in line]
    assert len(lines) == 1, (parts, done.lines)
    return lines[0]


def refused(done, *parts):
    assert done.status == 1, done.lines
    assert done.err[-1].startswith("d2net: error: "), done.err
    return told(Done(1, [], done.err), *parts) if parts else done.err[-1]


def voxels_of(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


# ------------------------------------------------------------------------------------------------------------ convert

CUT = ("cut short", "copy it again")
CONVERTED = {
    "gz_trailing_bytes": (["OK_100", "OK_101", "TRAIL_001"], []),
    "minus_one_placeholder": (["OK_100", "OK_101", "PH_001"], [("PH_001_t1ce.nii.gz", "counts as absent")]),
    "flair_twice": (["OK_100", "OK_101", "TWICE_001"], [("FLAIR of 'TWICE_001'", "T2 of 'TWICE_001'", "same voxels")]),
    "slight_shear": (["OK_100", "OK_101", "ROUND_001"], []),
    "qform_only_vs_sform_only": (["CODES_001", "OK_100", "OK_101"], []),
    "pixdim_vs_sform": (
        ["OK_100", "OK_101"],
        [(case, "1 x 1 x 1", "0.5 x 0.5 x 0.5") for case in ("OK_100/", "OK_101/")],
    ),
    "four_d_one_volume": (["FOURD_001", "OK_100", "OK_101"], []),
    "single_slice": (["SLICE_0", "SLICE_1", "SLICE_2"], []),
    "big_endian": (["BE_001", "OK_100", "OK_101"], []),
    "label_types": ([f"TYPE_{kind}" for kind in ("float64", "int64", "int8", "slope", "uint16", "uint64")], []),
    "slope_zero_nan": (["OK_100", "OK_101", "SLOPE_001"], []),
    "tiny_origin": (["OK_100", "OK_101", "TINY_001"], [("TINY_001_seg.nii.gz takes the grid of",)]),
    "ucsf_pdgm_few": ([f"UCSF-PDGM-{i:04d}" for i in range(3)], []),
    "ucsf_pdgm": ([f"UCSF-PDGM-{i:04d}" for i in range(3)], []),
    "odd_names": (None, []),
}
LEFT_OUT = {
    "trunc_plain_float": [("CUT_001_flair.nii ", *CUT)],
    "trunc_plain_int16": [("CUT_001_flair.nii ", *CUT)],
    "lfs_pointer": [("LFS_001_t2.nii.gz", "pointer of Git LFS, no image")],
    "nan_background": [("NAN_001_t1.nii.gz", "--nan_outside_as_zero")],
    "shear_sform": [("SHEAR_001_flair.nii.gz", "sheared sform", "resample_to_output")],
    "qform_sform_differ": [("QS_001_t1.nii.gz", "qform and sform", "12.4 mm", "the qform was read")],
    "negative_pixdim": [("NEG_001_flair.nii.gz", "negative voxel sizes", "nibabel")],
    "zero_pixdim": [("ZERO_001_flair.nii.gz", "spacing is lost")],
    "units_meter": [(f"{case}_flair.nii.gz", "its unit is the meter", "xyzt_units 2") for case in ("OK_100", "OK_101")],
    "two_d": [(f"FLAT_{i}_flair.nii.gz", "stack the slices") for i in range(3)],
    "header_only_seg": [("HDR_001_flair.nii.gz", "--label_header_from_images")],
    "thick_t2": [("THICK_001_t2.nii.gz", "--resample")],
    "rgb_seg": [("RGB_001_seg.nii.gz", "one value per voxel", "whole numbers in the place of colors")],
}
NOT_BEGUN = {
    "new_names_old_labels": ("label 4", "resection cavity", "enhancing tumor", "no case has 3", "--labels"),
    "upenn_gbm": ("_segm", "mapping file"),
    "tcga_gbm": ("_GlistrBoost", "mapping file"),
    "men_rt": ("_gtv", "mapping file"),
    "folders_called_nii": ("mapping file",),
    "bids": ("_T1w", "mapping file"),
    "nnunet_v1_raw": ("nnU-Net v1", "nnUNetv2_convert_old_nnUNet_dataset"),
    "msd_bom_5d": ("dataset.json", "byte order mark"),
    "mha_2015": (".mha", "convert them with SimpleITK"),
    "empty_seg_all": ("without any label",),
}
WAYS_OUT = {"nan_background": "--nan_outside_as_zero", "header_only_seg": "--label_header_from_images"}
WAYS_OUT |= {"thick_t2": "--resample"}


def convert(run, source, *words, number=7):
    return run("convert", source, "-d", number, "--name", "X", "-np", 1, *words)


def check_and_convert(run, source, *words):
    """Check, then convert: both say the same, and checking writes nothing."""
    checked = convert(run, source, "--check", *words)
    assert not written()
    converted = convert(run, source, *words)
    assert checked.status == converted.status
    findings = [
        {line for line in done.lines if re.match(r"note: |[a-zA-Z ]+: /", line) and "): recognized" not in line}
        for done in (checked, converted)
    ]
    assert findings[0] == findings[1]
    return converted


def raw():
    return Path(os.environ["nnUNet_raw"]) / "Dataset007_X"


def written(folder="labelsTr"):
    return sorted(path.name.removesuffix(".nii.gz") for path in (raw() / folder).glob("*.nii.gz"))


@pytest.mark.parametrize("name", CONVERTED)
def test_convert_takes(run, given, name):
    cases, lines = CONVERTED[name]
    source = given(name) / "src"
    done = check_and_convert(run, source)
    assert done.status == 0, done.lines
    for parts in lines:
        told(done, "note: ", *parts)
    if cases is None:
        assert len(written()) == 9
    else:
        assert written() == cases
    n_absent = name == "minus_one_placeholder"
    assert len(written("imagesTr")) == 4 * len(written()) - n_absent
    if name == "qform_only_vs_sform_only":
        assert not [line for line in done.lines if line.startswith("note: ")]
    for path in (raw() / "labelsTr").iterdir():
        assert set(np.unique(voxels_of(path))) <= {0, 1, 2, 3}
        assert name == "single_slice" or voxels_of(path).max() == 3
    for path in (raw() / "imagesTr").iterdir():
        assert np.isfinite(voxels_of(path)).all()
    for original in source.rglob("*_flair.nii*"):
        if name not in ("four_d_one_volume", "slope_zero_nan"):
            images = raw() / "imagesTr" / f"{re.sub('_flair.nii.*', '', original.name)}_0000.nii.gz"
            assert np.array_equal(voxels_of(images), voxels_of(original))


def test_convert_takes_t1ce_and_the_tumor_of_ucsf_pdgm(run, given):
    source = given("ucsf_pdgm") / "src"
    assert convert(run, source).status == 0
    for case in written():
        one = source / f"{case}_nifti" / case
        assert np.array_equal(voxels_of(f"{one}_T1c.nii.gz"), voxels_of(raw() / f"imagesTr/{case}_0002.nii.gz"))
        labels = voxels_of(f"{one}_tumor_segmentation.nii.gz")
        assert np.array_equal(np.where(labels == 4, 3, labels), voxels_of(raw() / f"labelsTr/{case}.nii.gz"))


@pytest.mark.parametrize("name", LEFT_OUT)
def test_convert_leaves_out(run, given, name):
    source = given(name) / "src"
    done = check_and_convert(run, source)
    for parts in LEFT_OUT[name]:
        line = refused(done, *parts)
        assert name.startswith("trunc") or "cut short" not in line
    assert "split it" not in "".join(done.err)
    assert written() == ([] if name in ("units_meter", "two_d") else ["OK_100", "OK_101"])
    assert len(written("imagesTr")) == 4 * len(written())
    if name in ("trunc_plain_float", "trunc_plain_int16", "qform_sform_differ"):
        assert run("inspect", "-d", 7, "-o", raw().parent / "found", "-np", 1).status == 0


@pytest.mark.parametrize("name", WAYS_OUT)
def test_convert_has_an_option(run, given, name):
    source = given(name) / "src"
    done = check_and_convert(run, source, WAYS_OUT[name])
    assert done.status == 0
    case = next(path.name for path in source.iterdir() if not path.name.startswith("OK"))
    said = {"nan_background": "taken as 0", "header_only_seg": "takes the grid of", "thick_t2": "was resampled onto"}
    assert told(done, "note: ", case, said[name])
    assert case in written()
    original = [voxels_of(source / case / f"{case}_{which}.nii.gz") for which in ("flair", "t1", "t1ce", "t2", "seg")]
    kept = [voxels_of(raw() / f"imagesTr/{case}_{m:04d}.nii.gz") for m in range(4)]
    kept.append(voxels_of(raw() / f"labelsTr/{case}.nii.gz"))
    original[4] = np.where(original[4] == 4, 3, original[4])
    for m, (before, after) in enumerate(zip(original, kept, strict=True)):
        if name != "thick_t2" or m != 3:
            stored = np.asarray(nibabel.load(source / case / f"{case}_{'t1' if m == 1 else 't2'}.nii.gz").dataobj).T
            expected = np.nan_to_num(stored) if name == "nan_background" and m in (1, 3) else before
            assert np.array_equal(expected, after)


def test_convert_refuses_nan_within_the_head_even_with_the_option(run, given):
    source = given("nan_background") / "src"
    path = source / "NAN_001" / "NAN_001_flair.nii.gz"
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[16, 18, 14] = np.nan
    nibabel.Nifti1Image(voxels, image.affine, image.header).to_filename(path)
    refused(convert(run, source, "--nan_outside_as_zero"), "NAN_001_flair.nii.gz", "NaN")
    assert written() == ["OK_100", "OK_101"]


@pytest.mark.parametrize("name", NOT_BEGUN)
def test_convert_refuses_before_anything_is_written(run, given, name):
    source = given(name) / "src"
    done = check_and_convert(run, source)
    assert "copy it again" not in refused(done, *NOT_BEGUN[name])
    assert len(done.err) == 1
    assert not raw().exists()


def test_convert_refuses_an_image_of_five_axes(run, given):
    source = given("msd_bom_5d") / "src"
    path = source / "dataset.json"
    path.write_bytes(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    line = refused(check_and_convert(run, source), "BRATS_002.nii.gz", "4 volumes along its fourth axis")
    assert "copy it again" not in line
    assert written() == ["BRATS_000", "BRATS_001"]


@pytest.mark.parametrize(("labels", "cavity"), [("brats2021", False), ("brats2023", True)])
def test_convert_is_told_what_label_4_is(run, given, labels, cavity):
    source = given("new_names_old_labels") / "src"
    done = convert(run, source, "--labels", labels)
    if cavity:  # it enhances, which a cavity does not
        told(done, "BraTS-GLI-00000-000", "brighter")
    else:
        assert done.status == 0
        assert len(written()) == 3
        assert "resection cavity" not in json.loads((raw() / "dataset.json").read_text(encoding="utf-8"))["labels"]


@pytest.mark.parametrize(("name", "n_cases"), [("upenn_gbm", 3), ("folders_called_nii", 3), ("bids", 6)])
def test_convert_with_a_mapping_file(run, given, name, n_cases):
    folder = given(name)
    done = check_and_convert(run, folder / "src", "--layout", folder / "mapping.yaml")
    assert done.status == 0
    assert len(written()) == n_cases
    assert len(written("imagesTr")) == 4 * n_cases
    if name == "bids":
        agent = folder / "src/sub-01/ses-02/anat/sub-01_ses-02_ce-gadolinium_T1w.nii.gz"
        assert np.array_equal(voxels_of(agent), voxels_of(raw() / "imagesTr/sub-01_ses-02_0002.nii.gz"))


@pytest.mark.parametrize(
    ("mapping", "parts"), [("crlf", ()), ("backslash", ("has a backslash",)), ("utf16", ("UTF-16",))]
)
def test_convert_with_a_mapping_file_of_windows(run, given, mapping, parts):
    folder = given("crlf_mapping")
    done = check_and_convert(run, folder / "src", "--layout", folder / f"{mapping}.yaml")
    if parts:
        refused(done, f"{mapping}.yaml", *parts)
    else:
        assert done.status == 0
    assert written() == ([] if parts else ["P0", "P1"])


def test_convert_wants_all_classes_in_one_file(run, given):
    folder = given("separate_masks")
    done = check_and_convert(run, folder / "src", "--layout", folder / "mapping.yaml")
    for case in ("'P0'", "'P1'"):
        assert "remove" not in refused(done, case, "mask_", "put all classes into one file")
    assert not written()


def resample_with_nibabel(path):
    order = 0 if "_seg" in path.name else 1
    nibabel.processing.resample_to_output(nibabel.load(path), order=order).to_filename(path)


def write_anew_with_nibabel(path):
    nibabel.load(path).to_filename(path)


def set_the_unit(path):
    image = nibabel.load(path)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("shear_sform", resample_with_nibabel),
        ("negative_pixdim", write_anew_with_nibabel),
        ("units_meter", set_the_unit),
    ],
)
def test_what_is_advised_for_a_header_helps(run, given, name, mend):
    source = given(name) / "src"
    for case in source.iterdir():
        if name == "units_meter" or not case.name.startswith("OK"):
            for path in case.iterdir():
                mend(path)
    done = convert(run, source)
    assert done.status == 0, done.lines
    assert len(written()) == len(list(source.iterdir()))


def test_convert_back(run, given, tmp_path):
    folder, out = given("back"), tmp_path / "out"
    done = run("convert_back", "-i", folder / "pred", "-o", out, "--mapping", folder / "mapping.yaml", "-np", 1)
    refused(done, "cut.nii ", *CUT)
    assert "cut short" not in refused(done, "shear.nii.gz", "sheared")
    assert [path.name for path in out.iterdir() if path.suffix != ".json"] == ["whole.nii.gz"]
    labels = voxels_of(folder / "pred/whole.nii.gz")
    assert np.array_equal(voxels_of(out / "whole.nii.gz"), np.where(labels == 3, 4, labels))


# ----------------------------------------------------------------------------------------------------------- evaluate


def test_evaluate(run, given):
    folder = given("evaluate")
    done = run("evaluate", "-i", folder / "pred", "-r", folder / "ref", "-np", 1)
    refused(done, "ref/flipped.nii.gz", "differ")
    refused(done, "value_4", "4")
    assert "cut short" not in refused(done, "ref/nan.nii.gz", "NaN")
    refused(done, "pred/nan_in_prediction.nii.gz", "NaN")
    with (folder / "pred/evaluation/metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right = {"same", "int64", "four_d", "float_9999", "slope", "origin_5um"}
    assert {row["case"] for row in rows} == right
    assert {float(row["dice"]) for row in rows} == {1.0}


# ------------------------------------------------------------------------------------------------------------ predict

MODEL = "Dataset048_Tiny/D2NetTrainer__D2NetPlans__3d_fullres"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights for the tiny model, as a training leaves them."""
    folder = tmp_path_factory.mktemp("weights")
    with tiny_nnunet(folder):
        return build_checkpoint(D2NetTrainer, folder / "checkpoint_final.pth")


def build_trainer(trainer_class):
    torch.manual_seed(0)
    folder = INPUTS / "tiny_model/results" / MODEL
    plans, content = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("plans.json", "dataset.json")
    )
    data = Path(os.environ["nnUNet_preprocessed"]) / "Dataset048_Tiny/D2NetPlans_3d_fullres"
    data.mkdir(parents=True, exist_ok=True)
    (data / "c0.b2nd").touch()  # tells the format of the data
    plans["continue_training"] = False
    return trainer_class(plans, "3d_fullres", 0, content, torch.device("cpu"))


def build_checkpoint(trainer_class, path):
    trainer = build_trainer(trainer_class)
    trainer.initialize()
    trainer.save_checkpoint(str(path))
    return path


@pytest.fixture
def model(checkpoint, folders):
    """The tiny model with its weights, where nnU-Net looks for models."""
    return place_model("tiny_model", checkpoint, folders)


def place_model(name, checkpoint, folders):
    (source,) = (INPUTS / name / "results").glob("*/*")
    target = folders / "results" / MODEL
    shutil.copytree(source, target)
    (target / "fold_0").mkdir()
    shutil.copy(checkpoint, target / "fold_0")
    return target


def predict(run, images, out, *words):
    given = ["-i", images, "-o", out, "-d", 48, "-c", "3d_fullres", "-f", 0, "-device", "cpu", "--disable_tta"]
    return run("predict", *given, "-npp", 0, "-nps", 0, *words)


def segmented(out):
    return sorted(path.name.removesuffix(".nii.gz") for path in out.glob("*.nii.gz"))


SEGMENTED = {
    "one_patient_called_sub": ["sub"],
    "other_orientation": ["pat-LPI", "pat-LPS", "pat-PIR", "pat-RAI"],
    "flair_given_twice": ["twice"],
    "one_volume_4d": ["fourd"],
    "negative_background": ["zs"],
    "uppercase_ending": ["ok", "up"],
    "spaces_unicode": ["-x.y (1)", "Fall [2] ä"],
}


@pytest.mark.parametrize("name", SEGMENTED)
def test_predict_segments(run, given, model, tmp_path, name):
    images, out = given(name) / "in", tmp_path / "out"
    done = predict(run, images, out)
    assert done.status == 0, done.lines
    assert segmented(out) == SEGMENTED[name]
    for case in segmented(out):
        found, image = (
            sitk.ReadImage(str(path))
            for path in (
                out / f"{case}.nii.gz",
                next(path for path in sorted(images.iterdir()) if path.name.startswith(f"{case}_0000")),
            )
        )
        assert found.GetSize() == image.GetSize()[:3]
        assert np.allclose(found.GetOrigin(), image.GetOrigin()[:3])
        if image.GetDimension() == 3:
            assert np.allclose(found.GetDirection(), image.GetDirection())
    if name == "flair_given_twice":
        told(done, "twice_0000.nii.gz", "twice_0003.nii.gz", "hold the same voxels")
    if name == "other_orientation":
        upright = [sitk.DICOMOrient(sitk.ReadImage(str(out / f"{case}.nii.gz")), "LPS") for case in segmented(out)]
        assert len({image.GetSize() for image in upright}) == 1


@pytest.mark.parametrize("name", ["no_channel_suffix", "no_channel_suffix_six"])
def test_predict_refuses_several_patients_as_one(run, given, model, tmp_path, name):
    done = predict(run, given(name) / "in", tmp_path / "out")
    line = refused(done, "put that of the modality behind each name", "_0000.nii.gz")
    assert "remove" not in line
    assert not segmented(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "parts", "never"),
    [
        ("shear", ("shear_0000.nii.gz", "sheared sform", "resample_to_output"), "cut short"),
        ("meter_units", ("m_0000.nii.gz", "its unit is the meter", "xyzt_units 2"), "Error"),
        ("nan_outside", ("nan_0001.nii.gz", "pass --nan_outside_as_zero"), "cut short"),
    ],
)
def test_predict_segments_the_others(run, given, model, tmp_path, name, parts, never):
    done = predict(run, given(name) / "in", tmp_path / "out")
    assert never not in refused(done, *parts)
    assert segmented(tmp_path / "out") == ["ok"]


def test_predict_takes_nan_outside_as_zero(run, given, model, tmp_path):
    done = predict(run, given("nan_outside") / "in", tmp_path / "out", "--nan_outside_as_zero")
    assert done.status == 0
    told(done, "nan_0001.nii.gz", "taken as 0")
    assert segmented(tmp_path / "out") == ["nan", "ok"]


# ---------------------------------------------------------------------------------------- plan, inspect, step by step

NUMBERS = {
    "complete_cohort": "Dataset030_Complete",
    "incomplete_cohort": "Dataset039_Incomplete",
    "cut_label": "Dataset032_CutLabel",
    "label_4": "Dataset033_Label4",
    "float_label": "Dataset034_FloatLabel",
    "plain_cut": "Dataset036_PlainCut",
    "bom_json": "Dataset037_Bom",
    "three_digit_names": "Dataset038_Names",
    "folder_per_modality": "Dataset041_Folders",
    "years_as_names": "Dataset042_Years",
    "swapped_channel_names": "Dataset043_Swapped",
    "numbers_with_gaps": "Dataset044_Gaps",
    "numbers_from_one": "Dataset045_FromOne",
    "rgb_and_gray": "Dataset046_RgbNir",
    "few_cases": "Dataset047_Two",
}


@pytest.fixture
def cohort(given, folders, monkeypatch):
    """Put a raw data set where nnU-Net looks for it; trainings end before their first step."""
    monkeypatch.setattr(run_training, "run_training_entry", lambda: None)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")

    def place(name):
        given(name, "library")
        copied = folders / "library" / name
        shutil.copytree(copied / "raw", folders / "raw", dirs_exist_ok=True)
        if (copied / "library").is_dir():
            shutil.copytree(copied / "library", folders / "library", dirs_exist_ok=True)
        return folders / "raw" / NUMBERS[name]

    return place


def plan(run, raw_folder, *words):
    number = int(raw_folder.name[7:10])
    return run("plan_and_preprocess", "-d", number, "-npfp", 1, "-np", 1, "--no_pbar", *words)


def inspect(run, raw_folder, *words):
    return run("inspect", "-d", int(raw_folder.name[7:10]), "-o", raw_folder.parent.parent / "found", "-np", 1, *words)


def train(run, number, configuration="3d_fullres", fold="0", *words):
    return run("train", number, configuration, fold, "-device", "cpu", *words)


def channels_of_case(folder, case):
    return np.array(nnUNetDatasetBlosc2(str(folder)).load_case(case)[0][:])


def preprocessed(raw_folder, plans="D2NetPlans", configuration="3d_fullres"):
    return Path(os.environ["nnUNet_preprocessed"]) / raw_folder.name / f"{plans}_{configuration}"


@pytest.mark.parametrize("name", ["complete_cohort", "incomplete_cohort"])
def test_an_ordinary_cohort(run, cohort, name):
    folder = cohort(name)
    assert plan(run, folder, "-c", "3d_fullres", "--verify_dataset_integrity").status == 0
    assert train(run, int(folder.name[7:10])).status == 0
    done = inspect(run, folder)
    assert done.status == 0
    told(done, "5 cases, of which 0 look suspicious")


BAD_COHORTS = {
    "cut_label": [("c0", "labelsTr/c0.nii.gz", "cut short")],
    "label_4": [("c0", "labelsTr/c0.nii.gz", "(4)")],
    "float_label": [("c0", "labelsTr/c0.nii.gz", "NaN"), ("c1", "labelsTr/c1.nii.gz", "no whole numbers")],
    "plain_cut": [("c0", "imagesTr/c0_0000.nii ", "cut short"), ("c1", "labelsTr/c1.nii ", "cut short")],
    "three_digit_names": [("c0", "labelsTr/c0.nii.gz is not there"), ("c1", "c1_000.nii.gz", "four digits")],
}


@pytest.mark.parametrize("verify", [[], ["--verify_dataset_integrity"]])
@pytest.mark.parametrize("name", BAD_COHORTS)
def test_a_cohort_with_bad_cases(run, cohort, name, verify):
    folder = cohort(name)
    done = plan(run, folder, "-c", "3d_fullres", *verify)
    for case, *parts in BAD_COHORTS[name]:
        refused(done, f"training case '{case}'", *parts)
    assert f"{len(BAD_COHORTS[name])} of 5 training cases cannot be used" in done.err[-1]
    assert not preprocessed(folder).exists()


@pytest.mark.parametrize("name", ["cut_label", "plain_cut", "float_label", "label_4"])
def test_inspect_names_bad_cases(run, cohort, name):
    done = inspect(run, cohort(name))
    table = (Path(os.environ["nnUNet_raw"]).parent / "found/suspicions.csv").read_text(encoding="utf-8")
    assert done.status == (0 if name in ("label_4", "float_label") else 1), done.lines
    for _, file, *_ in BAD_COHORTS[name]:
        assert Path(file.strip()).name in table


def test_a_byte_order_mark_is_refused_alike(run, cohort):
    folder = cohort("bom_json")
    lines = {refused(call(run, folder), "dataset.json", "byte order mark") for call in (plan, inspect)}
    assert len({line.replace(str(folder), "") for line in lines}) == 1


def test_names_and_numbers_are_swapped(run, cohort):
    folder = cohort("swapped_channel_names")
    for call in (plan, inspect):
        assert "lacks" not in refused(call(run, folder), "dataset.json", "names and numbers swapped")


@pytest.mark.parametrize("name", ["folder_per_modality", "years_as_names", "numbers_with_gaps"])
def test_channels_are_nnunets(run, cohort, name):
    folder = cohort(name)
    number = int(folder.name[7:10])
    assert plan(run, folder, "-c", "3d_fullres").status == 0
    words = ["-d", number, "-npfp", 1, "-np", 1, "--no_pbar", "-c", "3d_fullres", "-pl", "ExperimentPlanner"]
    nnunet(plan_and_preprocess_entry, *words[:-2])
    stock = preprocessed(folder, "nnUNetPlans")
    for case in (f"c{i}" for i in range(5)):
        assert np.array_equal(channels_of_case(preprocessed(folder), case), channels_of_case(stock, case))
    assert train(run, number).status == 0


def test_numbers_from_one(run, cohort):
    folder = cohort("numbers_from_one")
    assert plan(run, folder, "-c", "3d_fullres").status == 0
    t1, t2 = channels_of_case(preprocessed(folder), "c0")
    assert t1.any()
    assert not t2.any()
    told(inspect(run, folder), "T2: 4 of 5")


def test_a_picture_of_three_colors_beside_a_gray_one(run, cohort):
    done = plan(run, cohort("rgb_and_gray"), "-c", "2d")
    refused(done, "training case 'p0'", "holds 3 channels, not 1")


def test_fewer_cases_than_folds(run, cohort):
    folder = cohort("few_cases")
    assert plan(run, folder, "-c", "3d_fullres").status == 0
    refused(train(run, 47), "5 folds", "fold all", "splits_final.json")
    assert train(run, 47, "3d_fullres", "all").status == 0


def advised(done):
    return re.search(r"run d2net ([^:,;]+)$", done.err[-1])[1].split()


def test_a_configuration_that_is_not_preprocessed(run, cohort):
    folder = cohort("incomplete_cohort")
    assert plan(run, folder, "-c", "3d_fullres").status == 0
    path = preprocessed(folder).parent / "D2NetPlans.json"
    edited = json.loads(path.read_text(encoding="utf-8"))
    edited["configurations"]["2d"]["batch_size"] = 3
    path.write_text(json.dumps(edited), encoding="utf-8")
    assert run(*advised(train(run, 39, "2d")), "-np", 1).status == 0
    assert train(run, 39, "2d").status == 0
    assert json.loads(path.read_text(encoding="utf-8")) == edited
    for i in range(5):
        assert len(channels_of_case(preprocessed(folder, configuration="2d"), f"c{i}")) == 4


def test_nnunets_own_preprocessing(run, cohort):
    folder = cohort("incomplete_cohort")
    assert plan(run, folder, "--no_pp").status == 0
    words = ["-d", 39, "-np", 1, "--no_pbar", "-plans_name", "D2NetPlans", "-c", "3d_fullres"]
    nnunet(preprocess_entry, *words)
    assert len(channels_of_case(preprocessed(folder), "c0")) == 3
    done = train(run, 39)
    assert run(*advised(done), "-np", 1).status == 0
    assert train(run, 39).status == 0
    assert len(channels_of_case(preprocessed(folder), "c0")) == 4


@pytest.mark.parametrize("name", ["complete_cohort", "incomplete_cohort"])
def test_plans_that_were_moved(run, cohort, name):
    source, target = cohort("complete_cohort"), cohort("incomplete_cohort")
    if name == "complete_cohort":
        shutil.rmtree(target)
        target.mkdir()
        for path in source.iterdir():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, target / path.name)
    assert plan(run, source, "--no_pp").status == 0
    (folder := preprocessed(target).parent).mkdir()
    move_plans_between_datasets(30, 39, "D2NetPlans")
    assert run(*advised(train(run, 39)), "-np", 1).status == 0
    assert train(run, 39).status == 0
    for i in range(5):
        assert len(channels_of_case(folder / "D2NetPlans_3d_fullres", f"c{i}")) == 4


# -------------------------------------------------------------------------- files in the place of an ordinary one

DATASET_TYPES = {
    "no_labels": '"labels"',
    "no_file_ending": '"file_ending"',
    "list": "holds a list",
    "labels_list": '"labels" is a list',
    "labels_null": '"labels" is null',
    "labels_text": "\"labels\": label 'core'",
    "file_ending_number": '"file_ending" is a whole number',
    "channel_names_list": '"channel_names" is a list',
    "channel_names_null": '"channel_names" is null',
    "channel_names_numbers": None,
    "dataset_number": '"dataset" is a whole number',
    "utf16": "no text in UTF-8",
    "latin1": "no text in UTF-8",
    "cut": "no JSON",
}
PLANS_TYPES = {
    "list": "holds a list",
    "configurations_null": '"configurations" is null',
    "configurations_list": '"configurations" is a list',
    "configuration_text": '"3d_fullres" is a text',
    "architecture_null": '"architecture" is null',
    "no_dataset_name": '"dataset_name"',
    "dataset_name_number": '"dataset_name" is a whole number',
    "utf16": "no text in UTF-8",
    "cut": "no JSON",
}
SPLITS = {
    "typo": "no JSON",
    "utf16": "no text in UTF-8",
    "empty_list": "splits_final.json",
    "number": "no list of folds",
    "no_val": '"val"',
    "empty_val": "val",
    "missing_case": "c777",
}


@pytest.fixture
def commands(run, cohort, model, tmp_path):
    """A planned data set, a model and predictions, and the commands that read their descriptions."""
    raw_folder = cohort("complete_cohort")
    assert plan(run, raw_folder, "-c", "3d_fullres").status == 0
    images = shutil.copytree(INPUTS / "one_patient_called_sub/in", tmp_path / "in")
    scored = shutil.copytree(INPUTS / "evaluate", tmp_path / "scored")
    planned = preprocessed(raw_folder).parent
    return {
        "inspect": (raw_folder, lambda: inspect(run, raw_folder)),
        "plan": (raw_folder, lambda: plan(run, raw_folder, "--no_pp", "-overwrite_plans_name", "Other")),
        "preprocess": (planned, lambda: run("preprocess", "-d", 30, "-c", "3d_fullres", "-np", 1)),
        "evaluate": (scored / "pred", lambda: run("evaluate", "-i", scored / "pred", "-r", scored / "ref", "-np", 1)),
        "predict": (model, lambda: predict(run, images, tmp_path / "out")),
        "export": (model, lambda: run("export", model, "-o", tmp_path / "exported")),
        "train": (planned, lambda: train(run, 30)),
        "benchmark": (planned, lambda: benchmark(run, tmp_path)),
        "benchmark of raw data": (raw_folder, lambda: benchmark(run, tmp_path)),
    }


def benchmark(run, tmp_path, *words):
    words = ["-f", 0, "--cases", "folds", "-o", tmp_path / "benchmark", "-device", "cpu", "--no_cost", "-np", 1, *words]
    return run("benchmark", "-d", 30, "-c", "3d_fullres", *words)


def check_each(commands, names, kind, file, table, tmp_path):
    """Put each file in the place of the ordinary one and run the command: one line, nothing of the user's changes."""
    for name in names:
        folder, call = commands[name]
        ordinary = (folder / file).read_bytes()
        for which, part in table.items():
            shutil.copy(INPUTS / kind / f"{which}.json", folder / file)
            before = (folder / file).read_bytes()
            done = call()
            assert (folder / file).read_bytes() == before
            if part is not None or done.status:
                line = refused(done)
                assert file in line, (name, which, done.lines)
                assert part is None or part in line, (name, which, line)
            assert not (tmp_path / "exported").exists()
            shutil.rmtree(tmp_path / "benchmark", ignore_errors=True)
        (folder / file).write_bytes(ordinary)


def test_types_in_dataset_json(commands, tmp_path):
    names = ["inspect", "plan", "evaluate", "benchmark of raw data", "predict", "train"]
    table = {name: part for name, part in DATASET_TYPES.items() if part}
    check_each(commands, names, "dataset_json_types", "dataset.json", table, tmp_path)
    check_each(commands, ["export"], "dataset_json_types", "dataset.json", table, tmp_path)


@pytest.mark.parametrize("name", ["inspect", "plan", "evaluate", "predict", "export", "train"])
def test_channels_that_are_called_by_numbers(commands, name):
    folder, call = commands[name]
    shutil.copy(INPUTS / "dataset_json_types/channel_names_numbers.json", folder / "dataset.json")
    done = call()
    if name == "evaluate":  # some of its references are damaged
        assert "(4)" not in done.err[-1]
    elif done.status:
        refused(done)


def test_types_in_plans_json(commands, tmp_path):
    check_each(commands, ["predict", "export"], "plans_json_types", "plans.json", PLANS_TYPES, tmp_path)
    for name in ("preprocess", "train", "benchmark"):
        check_each(commands, [name], "plans_json_types", "D2NetPlans.json", PLANS_TYPES, tmp_path)


def test_types_in_splits(commands, tmp_path):
    (commands["train"][0] / "splits_final.json").write_text("[]", encoding="utf-8")
    check_each(commands, ["train", "benchmark"], "splits", "splits_final.json", SPLITS, tmp_path)


# ---------------------------------------------------------------------------------------------- models and trainers


def test_an_honest_model(run, model, tmp_path):
    assert run("export", model, "-o", tmp_path / "exported.zip").status == 0
    assert (tmp_path / "exported.zip").is_file()


def test_weights_of_a_stock_trainer(run, commands, tmp_path):
    stock = build_checkpoint(nnUNetTrainer, tmp_path / "stock.pth")
    trainer = build_trainer(D2NetTrainer)
    with starting_from(stock):
        trainer.initialize()
    theirs = torch.load(stock, weights_only=False)["network_weights"]
    first = next(name for name in theirs if name.startswith("encoder") and name.endswith("conv.weight"))
    taken = [w for w in trainer.network.state_dict().values() if w.shape == theirs[first].shape]
    assert any(torch.equal(w.cpu(), theirs[first]) for w in taken)


@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_plans_without_architecture(network):
    plans = json.loads((INPUTS / f"old_plans/{network}.json").read_text(encoding="utf-8"))
    built = D2NetTrainer.build_network_architecture(
        PlansManager(plans), PlansManager(plans).get_configuration("3d_fullres"), 4, 4, enable_deep_supervision=True
    )
    assert type(built).__name__ == "D2Net"


@pytest.mark.parametrize("name", ["evil_layer", "evil_network"])
def test_hostile_plans(run, commands, checkpoint, folders, tmp_path, name):
    shutil.rmtree(folders / "results" / "Dataset048_Tiny")
    model = place_model(name, checkpoint, folders)
    for command in ("predict", "export"):
        assert "plans.json" in refused(commands[command][1](), "names code from elsewhere")
    assert not (tmp_path / "exported").exists()
    with pytest.raises(UserError, match="names code from elsewhere"):
        D2NetPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(model), ("0",))
    planned = commands["train"][0] / "D2NetPlans.json"
    content = json.loads(planned.read_text(encoding="utf-8"))
    hostile = json.loads((model / "plans.json").read_text(encoding="utf-8"))["configurations"]["3d_fullres"][
        "architecture"
    ]
    content["configurations"]["3d_fullres"]["architecture"] = hostile
    planned.write_text(json.dumps(content), encoding="utf-8")
    for command in ("train", "benchmark", "preprocess"):
        assert "D2NetPlans.json" in refused(commands[command][1](), "names code from elsewhere")
    assert not (INPUTS / name / "RAN").exists()


@pytest.mark.parametrize("kind", ["", ".zip"])
@pytest.mark.parametrize("name", ["export_absolute", "export_relative"])
def test_export_goes_nowhere_else(run, given, checkpoint, tmp_path, name, kind):
    (model,) = (given(name) / "results").glob("*/*")
    (model / "fold_0").mkdir()
    shutil.copy(checkpoint, model / "fold_0")
    before = set(tmp_path.rglob("*"))
    refused(run("export", model, "-o", tmp_path / f"new{kind}"), "no name of a data set")
    assert set(tmp_path.rglob("*")) == before
    assert not (INPUTS / name / "escaped").exists()


@pytest.mark.parametrize("name", ["MixedBN", "MixedCEFirst", "MixedCE", "MixedNoDeepSupervision"])
def test_trainers_that_are_mixed(tmp_path, name):
    text = (INPUTS / "mixed_trainers/mixed.py").read_text(encoding="utf-8")
    text = re.sub(r"from nnunetv2_d2net\S* import D2NetTrainer", "from nnunetv2_d2net import D2NetTrainer", text)
    namespace: dict = {}
    exec(text, namespace)
    try:
        trainer = build_trainer(namespace[name])
        trainer.initialize()
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
        trainer.network.train()
        data = torch.rand(2, 4, *trainer.configuration_manager.patch_size)
        n_targets = 3 if trainer.enable_deep_supervision else 1
        shapes = [[side // 2**i for side in data.shape[2:]] for i in range(n_targets)]
        target = [torch.randint(0, 4, (2, 1, *shape)).float() for shape in shapes]
        batch = {"data": data, "target": target if trainer.enable_deep_supervision else target[0], "keys": ["c0", "c0"]}
        loss = trainer.train_step(batch)["loss"]
    except UserError:
        assert name in ("MixedBN", "MixedCEFirst")
        return
    assert np.isfinite(loss)
    if name == "MixedBN":
        assert any(isinstance(module, torch.nn.BatchNorm3d) for module in trainer.network.modules())
