"""Prediction with absent files, with every subset, from memory, and from an exported model."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point

from nnunetv2_d2net.base.dataset import subset_name
from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.prediction import writing
from nnunetv2_d2net.plugin.prediction.note import Measured, write_measured
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from tests.conftest import ANISOTROPIC_3D
from tests.integration.conftest import Model, d2net, nnunet, tiny_nnunet, train_d2net

pytestmark = pytest.mark.slow

MODELS = ("regions_model", "labels_model", "anisotropic_model", "rival")


@pytest.fixture(scope="module")
def rival(root, anisotropic_model):
    """The modality-dropout baseline on D2-Net's plans."""
    with tiny_nnunet(root):
        model = Model(ANISOTROPIC_3D, "3d_fullres", "D2NetPlans", "nnUNetTrainerModalityDropout_1epoch", root)
        train_d2net(*model.train_words, "-p", "D2NetPlans")
    return model


@pytest.fixture(params=MODELS)
def model(request, monkeypatch):
    model = request.getfixturevalue(request.param)
    monkeypatch.setenv("nnUNet_extTrainer", model.trainers)
    return model


def images_without(model, folder: Path, absent: dict[str, int]) -> Path:
    """Copy the test images, leaving out one channel of some cases."""
    folder.mkdir(parents=True)
    gone = {f"{case}_{channel:04d}.nii.gz" for case, channel in absent.items()}
    for path in (model.raw / "imagesTs").iterdir():
        if path.name not in gone:
            shutil.copy(path, folder / path.name)
    return folder


def predict(model, images, output, *words):
    """Our command; returns its exit status."""
    return d2net("predict", *model.predict_words(images, output), *words)


def probabilities(folder: Path, case: str) -> np.ndarray:
    return np.load(folder / f"{case}.npz")["probabilities"]


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal up to rounding: nnU-Net sums logits in half precision, where large ones are coarse at single voxels."""
    differences = np.abs(one - other)
    return differences.mean() < 1e-3 and (differences < 4e-3).mean() > 0.999


def note(folder: Path, case: str) -> dict:
    return json.loads((folder / f"{case}.modalities.json").read_text(encoding="utf-8"))


def test_absent_files_are_as_dropped_modalities_by_nnunets_command_and_by_ours(model, tmp_path):
    last = len(model.spec.channels) - 1
    images = images_without(model, tmp_path / "images", {"case_Ts0": 0, "case_Ts1": last})
    nnunet(predict_entry_point, *model.predict_words(images, tmp_path / "nnunet"))
    assert predict(model, images, tmp_path / "ours") == 0
    for case, absent in (("case_Ts0", 0), ("case_Ts1", last)):
        name = model.spec.channels[absent]
        assert predict(model, model.raw / "imagesTs", tmp_path / name, "--drop", name) == 0
        dropped = probabilities(tmp_path / name, case)
        assert np.array_equal(probabilities(tmp_path / "ours", case), dropped)
        # a tile of air tells plain nnU-Net nothing, our predictor knows; here every tile holds something
        assert alike(probabilities(tmp_path / "nnunet", case), dropped)
        assert note(tmp_path / "ours", case)["absent modalities"] == [name]
        image = sitk.ReadImage(str(model.raw / "imagesTs" / f"{case}_{last - absent:04d}.nii.gz"))
        segmentation = sitk.ReadImage(str(tmp_path / "ours" / f"{case}.nii.gz"))
        assert segmentation.GetSize() == image.GetSize()
        assert segmentation.GetSpacing() == image.GetSpacing()
        assert segmentation.GetOrigin() == image.GetOrigin()
        assert segmentation.GetDirection() == image.GetDirection()


@pytest.mark.parametrize("orientation", ["RAS", "PIR"])
def test_a_turned_patient_gives_the_same_result_by_nnunets_command_and_by_ours(
    anisotropic_model, orientation, tmp_path
):
    """The model says how its training data lie; so does its export."""
    model, turned = anisotropic_model, tmp_path / "turned"
    assert json.loads((model.folder / "plans.json").read_text(encoding="utf-8"))["d2net_orientation"] == "LPS"
    assert d2net("export", str(model.folder), "-o", str(tmp_path / "exported")) == 0
    (plans,) = (tmp_path / "exported").rglob("plans.json")
    assert json.loads(plans.read_text(encoding="utf-8"))["d2net_orientation"] == "LPS"
    turned.mkdir()
    for path in (model.raw / "imagesTs").iterdir():
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), orientation), str(turned / path.name))
    for name, images in (("upright", model.raw / "imagesTs"), ("ours", turned)):
        assert predict(model, images, tmp_path / name) == 0
    nnunet(predict_entry_point, *model.predict_words(turned, tmp_path / "nnunet"))
    for case in ("case_Ts0", "case_Ts1"):
        of_upright, of_ours, of_nnunet = (
            sitk.ReadImage(str(tmp_path / name / f"{case}.nii.gz")) for name in ("upright", "ours", "nnunet")
        )
        image = sitk.ReadImage(str(turned / f"{case}_0000.nii.gz"))
        for found in (of_ours, of_nnunet):
            assert (found.GetSize(), found.GetDirection()) == (image.GetSize(), image.GetDirection())
            back = sitk.GetArrayFromImage(sitk.DICOMOrient(found, "LPS"))
            assert (back == sitk.GetArrayFromImage(of_upright)).mean() > 0.999
        assert note(tmp_path / "ours", case)["orientation"].startswith(f"{orientation}, turned to LPS")


def test_complete_and_incomplete_cases_mix(regions_model, tmp_path):
    images = images_without(regions_model, tmp_path / "images", {"case_Ts1": 1})
    nnunet(predict_entry_point, *regions_model.predict_words(images, tmp_path / "nnunet"))
    assert predict(regions_model, images, tmp_path / "ours") == 0
    assert predict(regions_model, regions_model.raw / "imagesTs", tmp_path / "complete") == 0
    assert np.array_equal(*(probabilities(tmp_path / f, "case_Ts0") for f in ("ours", "complete")))
    assert not np.array_equal(*(probabilities(tmp_path / f, "case_Ts1") for f in ("ours", "complete")))
    assert note(tmp_path / "ours", "case_Ts0")["absent modalities"] == []


def test_absent_files_reach_the_processes_of_nnunets_command(regions_model, tmp_path):
    images = images_without(regions_model, tmp_path / "images", {"case_Ts0": 3, "case_Ts1": 1})
    words = [*regions_model.predict_words(images, tmp_path / "nnunet"), "-npp", "2", "-nps", "2"]
    command = [str(Path(sys.executable).with_name("nnUNetv2_predict")), *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert predict(regions_model, images, tmp_path / "ours") == 0
    for case in ("case_Ts0", "case_Ts1"):
        assert alike(*(probabilities(tmp_path / folder, case) for folder in ("nnunet", "ours")))


@pytest.mark.parametrize("channel", [0, 3])
def test_every_case_lacks_the_same_modality(regions_model, channel, tmp_path):
    images = images_without(regions_model, tmp_path / "images", {"case_Ts0": channel, "case_Ts1": channel})
    nnunet(predict_entry_point, *regions_model.predict_words(images, tmp_path / "nnunet"))
    assert predict(regions_model, images, tmp_path / "ours") == 0
    for case in ("case_Ts0", "case_Ts1"):
        here, there = (probabilities(tmp_path / folder, case) for folder in ("ours", "nnunet"))
        assert alike(here, there)


def test_a_constant_image_counts_as_absent_and_is_said_so(regions_model, tmp_path, capsys):
    images = images_without(regions_model, tmp_path / "images", {})
    path = images / "case_Ts0_0002.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path)) * 0 + 7, str(path))
    assert predict(regions_model, images, tmp_path / "constant") == 0
    assert predict(regions_model, regions_model.raw / "imagesTs", tmp_path / "dropped", "--drop", "T1ce") == 0
    assert np.array_equal(*(probabilities(tmp_path / f, "case_Ts0") for f in ("constant", "dropped")))
    assert note(tmp_path / "constant", "case_Ts0")["constant images, taken as absent"] == [str(path)]
    assert f"{path} is constant" in capsys.readouterr().err


def test_threads_beside_the_network_change_nothing(regions_model, tmp_path):
    images = images_without(regions_model, tmp_path / "images", {"case_Ts1": 1})
    assert predict(regions_model, images, tmp_path / "none") == 0
    assert predict(regions_model, images, tmp_path / "two", "-npp", "2", "-nps", "2") == 0
    for case in ("case_Ts0", "case_Ts1"):
        assert np.array_equal(*(probabilities(tmp_path / folder, case) for folder in ("none", "two")))


def test_parts_make_the_whole_and_a_finished_case_is_kept(regions_model, tmp_path):
    images = images_without(regions_model, tmp_path / "images", {"case_Ts1": 1})
    for part in ("0", "1"):
        assert predict(regions_model, images, tmp_path / "out", "-num_parts", "2", "-part_id", part) == 0
        assert len(list((tmp_path / "out").glob("case_*.nii.gz"))) == int(part) + 1
    kept, again = tmp_path / "out" / "case_Ts0.nii.gz", tmp_path / "out" / "case_Ts1.nii.gz"
    written = kept.stat().st_mtime_ns
    again.unlink()
    assert predict(regions_model, images, tmp_path / "out", "--continue_prediction") == 0
    assert again.is_file()
    assert kept.stat().st_mtime_ns == written


def test_predictions_with_absent_files_are_ensembled(regions_model, tmp_path):
    images = images_without(regions_model, tmp_path / "images", {"case_Ts0": 2})
    for output, words in (("one", ()), ("other", ("--drop", "T1"))):
        assert predict(regions_model, images, tmp_path / output, *words) == 0
    folders = [tmp_path / "one", tmp_path / "other"]
    nnunet(entry_point_ensemble_folders, "-i", *folders, "-o", tmp_path / "both", "-np", 1, "--save_npz")
    mean, *parts = (probabilities(folder, "case_Ts0") for folder in (tmp_path / "both", *folders))
    np.testing.assert_allclose(mean, np.mean(parts, 0), atol=1e-3)


def test_all_subsets_equal_separate_calls(model, tmp_path):
    names = model.spec.channels
    images = images_without(model, tmp_path / "images", {"case_Ts1": 0})
    assert predict(model, images, tmp_path / "all", "--all_subsets", "--subsets_per_pass", "4") == 0
    for flags in modality_subsets(len(names)).tolist():
        folder = tmp_path / "all" / subset_name(flags, names)
        kept = [name for name, flag in zip(names, flags, strict=True) if flag]
        assert (folder / "case_Ts1.nii.gz").exists() != flags[0]
        assert note(folder, "case_Ts0")["available modalities"] == kept
        assert not (folder / ".unfinished").exists()
    for kept in ([names[0]], names[1:], names):
        alone = tmp_path / "alone" / "+".join(kept)
        assert predict(model, model.raw / "imagesTs", alone, "--modalities", *kept) == 0
        together = probabilities(tmp_path / "all" / "+".join(kept), "case_Ts0")
        assert alike(together, probabilities(alone, "case_Ts0"))


def test_an_interrupted_run_goes_on_and_leaves_nothing_half_written(regions_model, tmp_path, monkeypatch):
    export, calls = writing.export_prediction_from_logits, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        export(*args, **kwargs)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(writing, "export_prediction_from_logits", interrupted)
    assert predict(regions_model, regions_model.raw / "imagesTs", tmp_path, "--all_subsets") == 130
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 3
    assert (
        predict(regions_model, regions_model.raw / "imagesTs", tmp_path, "--all_subsets", "--continue_prediction") == 0
    )
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 30
    assert len(calls) == 4 + 27


def test_bad_cases_are_named_and_the_others_are_segmented(regions_model, tmp_path, capsys):
    images = images_without(regions_model, tmp_path / "images", {})
    good = images / "case_Ts0_0000.nii.gz"
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(good)))
    array[0, 0, 0] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), str(images / "nan_0001.nii.gz"))
    (images / "cut_0000.nii.gz").write_bytes(good.read_bytes()[:-900])
    shutil.copy(good, images / "unknown_0009.nii.gz")
    (images / "folder_0000.nii.gz").mkdir()
    shutil.copy(good, images / "twice_0000.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(good)), str(images / "twice_0000.nii"))
    moved = sitk.ReadImage(str(good))
    moved.SetOrigin((5, 0, 0))
    shutil.copy(good, images / "moved_0000.nii.gz")
    sitk.WriteImage(moved, str(images / "moved_0001.nii.gz"))
    sitk.WriteImage(moved * 0, str(images / "empty_0000.nii.gz"))
    shutil.copy(good, images / "odd (näme)+ [1] %s_0000.nii.gz")
    assert predict(regions_model, images, tmp_path / "out") == 1
    *lines, summary = [line for line in capsys.readouterr().err.splitlines() if line.startswith("d2net: error:")]
    bad = ("cut", "empty", "folder", "moved", "nan", "twice", "unknown")
    for case in bad:
        (line,) = [line for line in lines if f"case '{case}'" in line]
        assert str(images) in line, line
        assert case in summary
        assert not list((tmp_path / "out").glob(f"{case}*"))
    assert len(lines) == len(bad)
    done = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert done == {"case_Ts0.nii.gz", "case_Ts1.nii.gz", "odd (näme)+ [1] %s.nii.gz"}


def test_a_folder_without_images_and_an_output_that_cannot_be_written(regions_model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(regions_model, tmp_path / "empty", tmp_path / "out") == 1
    assert "holds no image" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert predict(regions_model, regions_model.raw / "imagesTs", tmp_path / "file" / "out") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_note_warns_where_a_region_was_unreliable(regions_model, tmp_path, capsys):
    dice = {"FLAIR+T1+T2": {"whole tumor": Measured(0.9), "enhancing tumor": Measured(0.2)}}
    dice["FLAIR+T1+T1ce+T2"] = {"whole tumor": Measured(0.91), "enhancing tumor": Measured(0.8)}
    write_measured(regions_model.folder, dice, "some cases")
    try:
        assert predict(regions_model, regions_model.raw / "imagesTs", tmp_path, "--drop", "T1ce") == 0
    finally:
        (regions_model.folder / "dice_by_subset.json").unlink()
    (warning,) = note(tmp_path, "case_Ts0")["warnings"]
    assert warning.startswith("enhancing tumor is unreliable without T1ce")
    assert warning in capsys.readouterr().err


@pytest.fixture(params=["folder", "zip"])
def exported(request, model, tmp_path, monkeypatch, capsys):
    """An exported model where nnU-Net looks for models."""
    output = tmp_path / ("export.zip" if request.param == "zip" else "export")
    assert d2net("export", model.folder, "-o", output) == 0
    assert re.search(r"checkpoint_final.pth: \d+\.\d\d MiB -> \d+\.\d\d MiB", capsys.readouterr().out)
    results = output
    if request.param == "zip":
        results = tmp_path / "results"
        results.mkdir()
        monkeypatch.setenv("nnUNet_results", str(results))
        nnunet(install_from_zip_entry_point, output)
    return results


def test_an_exported_model_predicts_the_same_and_holds_weights_only(model, exported, tmp_path, monkeypatch):
    images = images_without(model, tmp_path / "images", {"case_Ts1": 0})
    monkeypatch.setenv("nnUNet_results", str(model.root / "results"))
    nnunet(predict_entry_point, *model.predict_words(images, tmp_path / "original"))
    monkeypatch.setenv("nnUNet_results", str(exported))
    nnunet(predict_entry_point, *model.predict_words(images, tmp_path / "exported"))
    for case in ("case_Ts0", "case_Ts1"):
        assert np.array_equal(*(probabilities(tmp_path / f, case) for f in ("original", "exported")))
    (path,) = exported.rglob("checkpoint_final.pth")
    checkpoint = torch.load(path, weights_only=True)
    assert not any(
        name.startswith(("teacher.", "image_decoder.", "feature_banks.")) for name in checkpoint["network_weights"]
    )
    assert "optimizer_state" not in checkpoint
    assert path.stat().st_size < 0.7 * (model.fold / "checkpoint_final.pth").stat().st_size


def test_export_refuses_what_exists_and_what_is_no_model(regions_model, tmp_path, capsys):
    (tmp_path / "there.zip").touch()
    assert d2net("export", regions_model.folder, "-o", tmp_path / "there.zip") == 1
    assert d2net("export", tmp_path, "-o", tmp_path / "new.zip") == 1
    assert d2net("export", regions_model.folder, "-o", tmp_path / "new.zip", "-f", "3") == 1
    errors = capsys.readouterr().err
    assert "there.zip exists" in errors
    assert "fold_3" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.zip"]
    assert not zipfile.is_zipfile(tmp_path / "there.zip")


def test_a_checkpoint_that_would_run_code_is_not_exported(regions_model, tmp_path, capsys):
    folder = tmp_path / "Dataset801_X" / "model"
    (folder / "fold_0").mkdir(parents=True)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(regions_model.folder / name, folder / name)
    torch.save({"network_weights": {}, "run": Path("x")}, folder / "fold_0" / "checkpoint_final.pth")
    assert d2net("export", folder, "-o", tmp_path / "new.zip") == 1
    assert "someone you trust" in capsys.readouterr().err


def example_of_the_docs() -> str:
    text = (Path(__file__).parents[2] / "docs" / "prediction.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return example


def test_the_example_of_the_docs_runs(regions_model, tmp_path, monkeypatch):
    images = regions_model.raw / "imagesTs"
    for modality, channel in (("flair", 0), ("t2", 3)):
        shutil.copy(images / f"case_Ts0_{channel:04d}.nii.gz", tmp_path / f"{modality}.nii.gz")
    shutil.copytree(regions_model.folder, tmp_path / "model")
    shutil.copytree(images, tmp_path / "imagesTs")
    monkeypatch.chdir(tmp_path)
    results: dict = {}
    exec(example_of_the_docs(), results)
    assert predict(regions_model, images, tmp_path / "out", "--modalities", "FLAIR", "T2") == 0
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case_Ts0.nii.gz")))
    assert (sitk.GetArrayFromImage(results["segmentation"]) == expected).mean() > 0.99
    assert (results["labels"] == expected).mean() > 0.99
    assert (tmp_path / "predictions" / "case_Ts0.nii.gz").is_file()


REAL_FILES = {"FLAIR": "t2f", "T1": "t1n", "T1ce": "t1c", "T2": "t2w"}


@pytest.mark.skipif("D2NET_REAL_CASE" not in os.environ, reason="D2NET_REAL_CASE does not name a folder")
def test_a_real_case_keeps_its_geometry_whatever_is_removed(regions_model):
    folder = Path(os.environ["D2NET_REAL_CASE"])
    images = {name: sitk.ReadImage(str(folder / f"{file}.nii.gz")) for name, file in REAL_FILES.items()}
    predictor = D2NetPredictor(tile_step_size=1, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(regions_model.folder), (0,))
    for absent in (None, *images):
        given = {name: image for name, image in images.items() if name != absent}
        segmentation = predictor.predict_images(given)
        reference = images["T2" if absent != "T2" else "T1"]
        assert segmentation.GetSize() == reference.GetSize()
        assert segmentation.GetSpacing() == reference.GetSpacing()
        assert segmentation.GetOrigin() == reference.GetOrigin()
        assert segmentation.GetDirection() == reference.GetDirection()
