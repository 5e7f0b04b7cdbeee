"""Plan, preprocess, train, stop, resume, validate, predict: regions in 3D, labels in 2D, thick slices with holes."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from PIL import Image

from nnunetv2_d2net.method.losses.d2net_loss import LOSS_TERMS
from tests.integration.conftest import d2net, nnunet

pytestmark = pytest.mark.slow

MODELS = ("regions_model", "labels_model", "anisotropic_model")
OWN_KEYS = {f"{group}/{term}" for group in ("loss", "gradient_share") for term in LOSS_TERMS} | {
    "logit_change/bottleneck_zeroed",
    "logit_change/codes_swapped",
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def _models_trainer(model, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", model.trainers)


@pytest.fixture(scope="module")
def checkpoint(model):
    return torch.load(model.fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)


@pytest.fixture(scope="module")
def prediction(model, tmp_path_factory):
    """The test cases with all modalities, by nnUNetv2_predict."""
    output = tmp_path_factory.mktemp("prediction")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_extTrainer", model.trainers)
        nnunet(predict_entry_point, *model.predict_words(model.raw / "imagesTs", output))
    return output


def dropped_channel(model):
    return len(model.spec.channels) - 1


@pytest.fixture(scope="module")
def noisy_images(model, tmp_path_factory):
    """The test images with noise in one modality, nonzero wherever the image was."""
    folder = tmp_path_factory.mktemp("noisy")
    rng = np.random.default_rng(0)
    for path in (model.raw / "imagesTs").iterdir():
        image = sitk.ReadImage(str(path))
        if path.name.endswith(f"_{dropped_channel(model):04d}.nii.gz"):
            mask = sitk.GetArrayFromImage(image) != 0
            noise = sitk.GetImageFromArray((rng.uniform(50, 100, mask.shape) * mask).astype(np.float32))
            noise.CopyInformation(image)
            image = noise
        sitk.WriteImage(image, str(folder / path.name))
    return folder


def read(folder, case="case_Ts0"):
    return sitk.ReadImage(str(folder / f"{case}.nii.gz"))


def probabilities(folder):
    return {path.name: np.load(path)["probabilities"] for path in sorted(folder.glob("*.npz"))}


def same(one, other):
    assert one.keys() == other.keys()
    assert len(one) == 2
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_a_finished_training_leaves_nnunets_files(model):
    for name in ("checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "debug.json"):
        assert (model.fold / name).is_file(), name
    assert not (model.fold / "checkpoint_latest.pth").exists()
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        assert (model.folder / name).is_file(), name


def test_resuming_goes_on_with_the_second_epoch(model, checkpoint):
    first, second = (path.read_text(encoding="utf-8") for path in sorted(model.fold.glob("training_log_*.txt")))
    assert "Epoch 0" in first
    assert "Epoch 1" not in first
    assert "Epoch 0" not in second
    assert "Epoch 1" in second
    assert checkpoint["current_epoch"] == 2
    assert checkpoint["trainer_name"] == model.trainer


def test_every_curve_has_one_value_per_epoch(checkpoint):
    curves = checkpoint["logging"]
    assert set(curves) >= OWN_KEYS
    for key in OWN_KEYS | {"train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice"}:
        assert len(curves[key]) == 2, key
        assert all(math.isfinite(value) for value in curves[key]), (key, curves[key])
    for epoch in range(2):
        assert sum(curves[f"gradient_share/{term}"][epoch] for term in LOSS_TERMS) == pytest.approx(1)
    assert min(curves["logit_change/bottleneck_zeroed"]) > 0
    assert curves["loss/rec"][0] > 0
    assert curves["gradient_share/rec"][0] == 0  # its weight grows from 0
    assert curves["gradient_share/rec"][1] > 0


def test_progress_png_has_our_panels_below_nnunets(model, checkpoint, tmp_path):
    stock = LocalLogger()
    stock.load_checkpoint(checkpoint["logging"])
    stock.plot_progress_png(str(tmp_path))
    with Image.open(tmp_path / "progress.png") as picture:
        width, height = picture.size
    with Image.open(model.fold / "progress.png") as picture:
        assert picture.width == width
        assert picture.height > height
        below = np.asarray(picture.crop((0, height, width, picture.height)).convert("L"))
    assert (below < 128).any()


def test_validation_on_whole_cases_is_summarized(model):
    validation = model.fold / "validation"
    summary = json.loads((validation / "summary.json").read_text(encoding="utf-8"))
    split = json.loads((model.preprocessed / "splits_final.json").read_text(encoding="utf-8"))[0]
    assert [path.name.removesuffix(".nii.gz") for path in validation.glob("*.nii.gz")] == split["val"]
    assert len(summary["metric_per_case"]) == len(split["val"])
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1
    foreground = len([label for label in model.spec.labels if label not in ("background", "ignore")])
    assert len(summary["mean"]) == foreground


def test_prediction_has_the_images_geometry_and_legal_labels(model, prediction):
    for case in ("case_Ts0", "case_Ts1"):
        image = sitk.ReadImage(str(model.raw / "imagesTs" / f"{case}_0000.nii.gz"))
        segmentation = read(prediction, case)
        assert segmentation.GetSize() == image.GetSize()
        assert segmentation.GetSpacing() == image.GetSpacing()
        assert segmentation.GetOrigin() == image.GetOrigin()
        assert segmentation.GetDirection() == image.GetDirection()
        flat = [v for value in model.spec.labels.values() for v in (value if isinstance(value, list) else [value])]
        legal = set(flat) - {model.spec.labels.get("ignore")}
        assert set(np.unique(sitk.GetArrayFromImage(segmentation))) <= legal


@pytest.mark.usefixtures("_models_trainer")
def test_complete_prediction_is_that_of_nnunet(model, prediction, tmp_path):
    assert d2net("predict", *model.predict_words(model.raw / "imagesTs", tmp_path)) == 0
    assert same(probabilities(tmp_path), probabilities(prediction))
    assert np.array_equal(sitk.GetArrayFromImage(read(tmp_path)), sitk.GetArrayFromImage(read(prediction)))


@pytest.mark.usefixtures("_models_trainer")
def test_a_dropped_modality_has_no_influence(model, prediction, noisy_images, tmp_path):
    name = model.spec.channels[dropped_channel(model)]
    for images, output in ((model.raw / "imagesTs", "clean"), (noisy_images, "noisy")):
        assert d2net("predict", *model.predict_words(images, tmp_path / output), "--drop", name) == 0
    others = [channel for channel in model.spec.channels if channel != name]
    assert d2net("predict", *model.predict_words(noisy_images, tmp_path / "kept"), "--modalities", *others) == 0
    clean = probabilities(tmp_path / "clean")
    assert same(clean, probabilities(tmp_path / "noisy"))
    assert same(clean, probabilities(tmp_path / "kept"))
    assert not same(clean, probabilities(prediction))
    segmentations = (sitk.GetArrayFromImage(read(tmp_path / folder)) for folder in ("clean", "noisy"))
    assert np.array_equal(*segmentations)


@pytest.mark.usefixtures("_models_trainer")
def test_noise_in_a_modality_matters_unless_it_is_dropped(model, prediction, noisy_images, tmp_path):
    assert d2net("predict", *model.predict_words(noisy_images, tmp_path)) == 0
    assert not same(probabilities(tmp_path), probabilities(prediction))


def test_stock_nnunets_plans_and_data_stay_untouched(regions_data, regions_model):
    assert "nnUNetPlans.json" in regions_data.before
    assert any(name.startswith("nnUNetPlans_3d_fullres/") for name in regions_data.before)
    for name, (content, written) in regions_data.before.items():
        assert regions_data.after[name][0] == content, name
        if name.startswith("nnUNetPlans"):
            assert regions_data.after[name][1] == written, name
    new = {name.split("/")[0] for name in regions_data.after.keys() - regions_data.before.keys()}
    assert new == {
        "D2NetPlans.json",
        "D2NetPlans_3d_fullres",
        "D2NetPlans_3d_fullres.available_modalities.json",
        "d2net_checked.json",
    }
    plans = json.loads((regions_model.preprocessed / "D2NetPlans.json").read_text(encoding="utf-8"))
    identifiers = {c: v["data_identifier"] for c, v in plans["configurations"].items() if "data_identifier" in v}
    assert identifiers["3d_fullres"] == "D2NetPlans_3d_fullres"
    assert all(identifier.startswith("D2NetPlans_") for identifier in identifiers.values())


def test_the_anisotropic_case_is_one(anisotropic_model):
    plans = json.loads((anisotropic_model.preprocessed / "D2NetPlans.json").read_text(encoding="utf-8"))
    architecture = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert [1, 2, 2] in architecture["strides"]
    assert [1, 3, 3] in architecture["kernel_sizes"]
    ignore = anisotropic_model.spec.labels["ignore"]
    for path in (anisotropic_model.raw / "labelsTr").iterdir():
        assert ignore in np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))), path.name


def test_a_shell_predicts_the_same_with_threads_beside_the_network(regions_model, tmp_path):
    images = regions_model.raw / "imagesTs"
    assert d2net("predict", *regions_model.predict_words(images, tmp_path / "here"), "--drop", "T2") == 0
    words = [*regions_model.predict_words(images, tmp_path / "there"), "-npp", "1", "-nps", "1", "--drop", "T2"]
    command = [sys.executable, "-m", "nnunetv2_d2net.cli", "predict", *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    here, there = probabilities(tmp_path / "here"), probabilities(tmp_path / "there")
    assert here.keys() == there.keys()
    for name in here:
        np.testing.assert_allclose(there[name], here[name], atol=2e-3)  # other numbers of threads round otherwise
