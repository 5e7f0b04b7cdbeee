"""The companion of a model that plain nnU-Net has planned, trained and predicted with."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
from nnunetv2.run.run_training import run_training_entry
from scipy.special import expit, logit

from nnunetv2_d2net.base.images import read_sitk
from nnunetv2_d2net.method.network.companion import Companion
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from nnunetv2_d2net.plugin.training.companion import CHOICE
from tests.conftest import REGIONS_3D
from tests.integration.conftest import Model, d2net, nnunet, tiny_nnunet, train_d2net

pytestmark = pytest.mark.slow

STUDENTS = ("D2NetTrainer", "nnUNetTrainerModalityDropoutImputed")


@pytest.fixture(scope="module")
def stock(root, regions_data) -> Model:
    """Stock nnU-Net, which knows nothing of this package."""
    with tiny_nnunet(root):
        model = Model(REGIONS_3D, "3d_fullres", "nnUNetPlans", "nnUNetTrainer_1epoch", root)
        nnunet(run_training_entry, *model.train_words)
    path = model.fold / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save(content | {"inference_allowed_mirroring_axes": (0, 2)}, path)  # as a trainer leaves it that mirrors so
    return model


@pytest.fixture(scope="module", params=STUDENTS)
def companion(request, root, stock) -> Model:
    with tiny_nnunet(root):
        words = [REGIONS_3D.dataset_id, "3d_fullres", 0, "-tr", f"{request.param}_1epoch", "-device", "cpu"]
        train_d2net(*words, "--start_from", "nnUNetTrainer_1epoch")
    return replace(stock, trainer=f"{request.param}Companion_1epoch")


def voxels(folder):
    return {path.name: sitk.GetArrayFromImage(read_sitk(path)) for path in sorted(folder.glob("*.nii.gz"))}


def same_voxels(one, other):
    one, other = voxels(one), voxels(other)
    assert one.keys() == other.keys()
    assert any(array.any() for array in one.values())
    return all(np.array_equal(array, other[name]) for name, array in one.items())


def test_it_started_from_the_stock_models_weights(stock, companion):
    weights = torch.load(companion.fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    theirs = torch.load(stock.fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    for name, weight in theirs.items():
        assert torch.equal(weights[f"stock.{name}"], weight)
    assert any(not torch.equal(weights[f"student.{name}"], weight) for name, weight in theirs.items())
    log = next(companion.fold.glob("training_log*.txt")).read_text(encoding="utf-8")
    assert "start: " in log
    choice = json.loads((companion.fold / CHOICE).read_text(encoding="utf-8"))
    assert len(choice["subsets"]) == 2 ** len(REGIONS_3D.channels) - 1
    assert all(row["predicts"] in ("stock", "student") for row in choice["subsets"].values())


def test_complete_cases_come_out_as_before(stock, companion, tmp_path):
    def mirrored(model, name):
        return [word for word in model.predict_words(images, tmp_path / name) if word != "--disable_tta"]

    images = stock.raw / "imagesTs"
    nnunet(predict_entry_point, *mirrored(stock, "stock"))
    nnunet(predict_entry_point, *mirrored(companion, "nnunet"))
    assert d2net("predict", *mirrored(companion, "d2net")) == 0
    assert same_voxels(tmp_path / "stock", tmp_path / "nnunet")
    assert same_voxels(tmp_path / "stock", tmp_path / "d2net")
    assert d2net("predict", *mirrored(companion, "all"), "--all_subsets") == 0
    complete = max((p for p in (tmp_path / "all").iterdir() if p.is_dir()), key=lambda p: p.name.count("+"))
    assert same_voxels(tmp_path / "stock", complete)


def test_any_file_may_be_absent(companion, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(companion.raw / "imagesTs", images)
    (images / "case_Ts0_0002.nii.gz").unlink()
    words = companion.predict_words(images, tmp_path / "nnunet")
    nnunet(predict_entry_point, *words)
    assert d2net("predict", *companion.predict_words(images, tmp_path / "d2net")) == 0
    assert same_voxels(tmp_path / "nnunet", tmp_path / "d2net")
    note = json.loads((tmp_path / "d2net" / "case_Ts0.modalities.json").read_text(encoding="utf-8"))
    assert note["absent modalities"] == ["T1ce"]
    choice = json.loads((companion.fold / CHOICE).read_text(encoding="utf-8"))["subsets"]
    assert note["predicted by"] == [choice["FLAIR+T1+T2"]["predicts"]]
    complete = json.loads((tmp_path / "d2net" / "case_Ts1.modalities.json").read_text(encoding="utf-8"))
    assert complete["predicted by"] == [choice["FLAIR+T1+T1ce+T2"]["predicts"]]


def test_table_is_the_models(companion):
    predictor = D2NetPredictor(device=torch.device("cpu"), use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(companion.folder), (0,))
    network = predictor.network
    assert isinstance(network, Companion)
    network.load_state_dict(predictor.list_of_parameters[0])
    choice = json.loads((companion.fold / CHOICE).read_text(encoding="utf-8"))["subsets"]
    by_stock = network.by_stock.tolist()
    assert [
        False,
        *(
            choice[predictor.dataset.subset_name(flags)]["predicts"] == "stock"
            for flags in ([bool(code >> m & 1) for m in range(4)] for code in range(1, 16))
        ),
    ] == by_stock


@pytest.mark.parametrize("words", [[], ["--without_stock"]])
def test_exported_companion(companion, tmp_path, words):
    assert d2net("export", str(companion.folder), "-o", str(tmp_path / "results"), *words) == 0
    exported = tmp_path / "results" / REGIONS_3D.folder_name / companion.folder.name
    weights = torch.load(exported / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    assert any(name.startswith("stock.") for name in weights) == (not words)
    images = companion.raw / "imagesTs"
    given = companion.predict_words(images, tmp_path / "exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(tmp_path / "results"))
        nnunet(predict_entry_point, *given)
    assert d2net("predict", *companion.predict_words(images, tmp_path / "whole")) == 0
    if words:  # as with a table that leaves everything to the student
        with_tables(companion, tmp_path / "others", [False])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("nnUNet_results", str(tmp_path / "others"))
            shutil.rmtree(tmp_path / "whole")
            assert d2net("predict", *companion.predict_words(images, tmp_path / "whole")) == 0
    assert same_voxels(tmp_path / "exported", tmp_path / "whole")


def with_tables(companion, results, tables):
    """Copy the model, a fold for each table, all with the same weights; a table is one flag for all subsets."""
    model = results / companion.folder.parent.name / companion.folder.name
    for fold, of_stock in enumerate(tables):
        shutil.copytree(companion.fold, model / f"fold_{fold}")
        path = model / f"fold_{fold}" / "checkpoint_final.pth"
        content = torch.load(path, weights_only=False)
        content["network_weights"]["by_stock"].fill_(of_stock)
        torch.save(content, path)
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(companion.folder / name, model / name)


def test_folds_that_chose_otherwise_predict_together(companion, tmp_path, monkeypatch):
    images, probabilities = tmp_path / "images", {}
    shutil.copytree(companion.raw / "imagesTs", images)
    (images / "case_Ts0_0002.nii.gz").unlink()
    with_tables(companion, tmp_path / "results", [True, False])
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    for folds in (["0"], ["1"], ["0", "1"]):
        out = tmp_path / "-".join(folds)
        assert d2net("predict", *companion.predict_words(images, out), "-f", *folds, "--save_probabilities") == 0
        probabilities[len(probabilities)] = np.load(out / "case_Ts0.npz")["probabilities"].astype(np.float64)
        note = json.loads((out / "case_Ts0.modalities.json").read_text(encoding="utf-8"))
        assert note["predicted by"] == [("stock", "student")[int(fold)] for fold in folds]
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.01
    mean_logits = sum(logit(probabilities[fold].clip(1e-6, 1 - 1e-6)) for fold in (0, 1)) / 2
    assert np.abs(expit(mean_logits) - probabilities[2]).max() < 0.001
