"""A companion's training as a whole; what it promises step by step is tested with the plugin's training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_d2net.plugin.training.companion import CHOICE
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.variants import find_trainer
from tests.integration.test_resume import curves, repeatable, train  # noqa: F401 - a fixture
from tests.integration.tiny_training import make_tiny_trainer

pytestmark = pytest.mark.slow

COMPANIONS = (
    "D2NetTrainerCompanion",
    "nnUNetTrainerModalityDropoutCompanion",
    "nnUNetTrainerModalityDropoutImputedCompanion",
)


@pytest.fixture(autouse=True)
def results(regions_data, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    return tmp_path


def save_stock(trainer) -> tuple[Path, dict]:
    """Write a checkpoint of random weights where a stock nnU-Net's would be."""
    folder = Path(trainer.output_folder_base)
    path = folder.parent / f"nnUNetTrainer__{folder.name.split('__', 1)[1]}" / "fold_0" / "checkpoint_final.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    shared = (trainer.plans_manager, trainer.configuration_manager, 4, trainer.label_manager.num_segmentation_heads)
    torch.manual_seed(5)
    network = nnUNetTrainer.build_network_architecture(*shared, enable_deep_supervision=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    weights = network.state_dict()
    content = {"network_weights": weights, "trainer_name": "nnUNetTrainer", "init_args": {"configuration": "3d"}}
    torch.save(content, path)
    return path, weights


@pytest.mark.parametrize("name", COMPANIONS)
def test_two_and_two_epochs_are_four(root, name, results, repeatable, monkeypatch):  # noqa: F811
    kind = find_trainer(name)
    monkeypatch.setattr(nnUNetTrainerModalityDropoutImputed, "n_guess_steps", 3)
    save_stock(make_tiny_trainer(root, kind))
    straight = train(root, kind, monkeypatch, seed=1)
    choice = (Path(straight.output_folder) / CHOICE).read_text(encoding="utf-8")
    for path in Path(straight.output_folder).glob("checkpoint_*"):
        path.unlink()
    train(root, kind, monkeypatch, seed=1, until=2)
    resumed = train(root, kind, monkeypatch, seed=2)
    for key, values in curves(straight).items():
        np.testing.assert_array_equal(curves(resumed)[key], values, err_msg=key)
    for key, value in straight.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[key], value), key
    assert (Path(resumed.output_folder) / CHOICE).read_text(encoding="utf-8") == choice
    assert not (Path(resumed.output_folder) / "checkpoint_latest.pth").exists()
