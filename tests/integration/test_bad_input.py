"""What the user can mend is one line on stderr and status 1, and nothing that was there before has changed."""

import json
import shutil

import pytest
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.planning.planner import D2NetPlanner
from tests.conftest import REGIONS_3D, SINGLE_CHANNEL, write_raw_dataset
from tests.integration.conftest import Model, d2net, file_states, make_trainer, nnunet, plan_stock, tiny_nnunet

pytestmark = pytest.mark.slow

TRAIN = ("train", REGIONS_3D.dataset_id, "3d_fullres", "0", "-device", "cpu")


@pytest.fixture(scope="module")
def single(root):
    """A data set of one channel, planned by stock nnU-Net."""
    with tiny_nnunet(root):
        write_raw_dataset(root / "raw", SINGLE_CHANNEL)
        plan_stock(SINGLE_CHANNEL, "-c", "3d_fullres", "-np", 1)
    return SINGLE_CHANNEL


def refused(root, capsys, words, *parts):
    """Assert that the command changes no file and ends with one line that says all of the parts."""
    before = file_states(root)
    capsys.readouterr()
    assert d2net(*words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("d2net: error: "), lines
    assert not any(line.startswith("Traceback") for line in lines)
    for part in parts:
        assert str(part) in lines[-1], lines[-1]
    after = file_states(root)
    assert {name: after.get(name) for name in before} == before
    return after.keys() - before.keys()


@pytest.mark.parametrize(
    ("drop", "parts"),
    [
        (["PD"], ["PD", "FLAIR, T1, T1ce, T2"]),
        (REGIONS_3D.channels, ["every modality is dropped", "leave at least one"]),
    ],
)
def test_modalities_that_cannot_be_dropped(root, regions_model, drop, parts, tmp_path, capsys):
    words = regions_model.predict_words(regions_model.raw / "imagesTs", tmp_path / "out")
    assert not refused(root, capsys, ["predict", *words, "--drop", *drop], *parts)
    assert not (tmp_path / "out").exists()


def test_one_modality_is_refused_by_the_planner_itself(root, single):
    before = file_states(root)
    with pytest.raises(UserError, match=r"1 channel .*CT.* at least 2"):
        plan_experiment_dataset(single.dataset_id, D2NetPlanner)
    assert file_states(root) == before


def test_one_modality_is_refused_by_the_trainer_itself(single):
    words = [single.dataset_id, "3d_fullres", "0", "-tr", "D2NetTrainer", "-device", "cpu"]
    with pytest.raises(UserError, match=r"at least 2 modalities, this data set has 1.*nnUNetTrainer"):
        nnunet(run_training_entry, *words)


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        ("dynamic_network_architectures.architectures.unet.ResidualUNet", ["ResidualUNet", "PlainConvUNet"]),
        ("dynamic_network_architectures.architectures.vgg.VGG16_cifar", ["plan again"]),
        ("nowhere.NoSuchNetwork", ["BrokenPlans", "names code from elsewhere, nowhere.NoSuchNetwork"]),
    ],
)
def test_plans_of_an_unknown_network(root, regions_data, network, parts, capsys):
    folder = root / "preprocessed" / REGIONS_3D.folder_name
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    plans["plans_name"] = name = f"BrokenPlans_{network.rpartition('.')[2]}"
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = network
    if network.endswith("ResidualUNet"):
        kwargs = architecture["arch_kwargs"]
        kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    (folder / f"{name}.json").write_text(json.dumps(plans), encoding="utf-8")
    new = refused(root, capsys, [*TRAIN, "-p", name], *parts)
    assert not any(path.endswith(".pth") for path in new)


@pytest.fixture
def foreign_checkpoint(root, regions_data):
    """A fold of D2NetTrainer's with a checkpoint that stock nnU-Net has written."""
    del regions_data
    stock = make_trainer(root, REGIONS_3D, "nnUNetPlans", trainer=nnUNetTrainer)
    stock.initialize()
    fold = Model(REGIONS_3D, "3d_fullres", "nnUNetPlans", "D2NetTrainer", root).folder / "fold_1"
    fold.mkdir(parents=True)
    stock.save_checkpoint(str(fold / "checkpoint_final.pth"))
    yield fold / "checkpoint_final.pth"
    shutil.rmtree(fold)


def test_a_memory_target_that_leaves_no_unet(root, regions_data, capsys):
    words = ["-d", REGIONS_3D.dataset_id, "--no_pp", "-gpu_memory_target", "1e-4", "-overwrite_plans_name", "NoPlans"]
    assert not refused(root, capsys, ["plan_and_preprocess", *words], "at least 2 stages", "-gpu_memory_target")


def test_a_checkpoint_of_another_trainer(root, regions_model, foreign_checkpoint, tmp_path, capsys):
    resume = ["train", REGIONS_3D.dataset_id, "3d_fullres", "1", "-p", "nnUNetPlans", "-device", "cpu", "--c"]
    refused(root, capsys, resume, foreign_checkpoint, "D2NetTrainer", "without --c")
    words = regions_model.predict_words(regions_model.raw / "imagesTs", tmp_path / "out")
    words[words.index("-f") + 1] = "1"
    refused(root, capsys, ["predict", *words], foreign_checkpoint, "nnUNetTrainer")
    assert not (tmp_path / "out").exists()


def test_pretrained_weights_of_another_network(root, regions_data, foreign_checkpoint, capsys):
    content = torch.load(foreign_checkpoint, weights_only=False)
    content["network_weights"] = {f"net.{name}": weight for name, weight in content["network_weights"].items()}
    torch.save(content, foreign_checkpoint)
    words = [*TRAIN[:3], "2", "-device", "cpu", "-p", "nnUNetPlans", "-pretrained_weights", foreign_checkpoint]
    new = refused(root, capsys, words, foreign_checkpoint, "-pretrained_weights")
    assert not any(path.endswith(".pth") for path in new)
