"""The trainer of companions: from what it starts, what it measures, and how it chooses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.modalities import modality_subsets, subset_codes
from nnunetv2_d2net.plugin.training.companion import CHOICE, target_of
from nnunetv2_d2net.plugin.training.variants import find_trainer
from tests.integration.test_resume import curves, repeatable, train  # noqa: F401 - a fixture
from tests.integration.tiny_training import make_tiny_trainer, ready_to_step

pytestmark = pytest.mark.slow

COMPANIONS = ("D2NetTrainerCompanion", "nnUNetTrainerModalityDropoutCompanion")
SUBSETS = modality_subsets(4)
COMPLETE = -1


@pytest.fixture(autouse=True)
def results(regions_data, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    return tmp_path


def save_stock(trainer, **changes) -> tuple[Path, dict]:
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
    weights = network.state_dict() | changes
    content = {"network_weights": weights, "trainer_name": "nnUNetTrainer", "init_args": {"configuration": "3d"}}
    torch.save(content, path)
    return path, weights


@pytest.fixture(params=COMPANIONS)
def trainer(root, request):
    trainer = make_tiny_trainer(root, find_trainer(request.param))
    trainer.initialize()
    return trainer


def test_it_starts_from_the_stock_model_of_the_same_plans_and_fold(trainer):
    _, weights = save_stock(trainer)
    trainer.on_train_start()
    assert all(torch.equal(trainer.companion.stock.state_dict()[name], w) for name, w in weights.items())
    student = trainer.companion.student.state_dict()
    assert all(torch.equal(student[name], w) for name, w in weights.items())


def test_without_a_stock_model_it_says_which_one_it_needs(trainer):
    with pytest.raises(UserError, match=r"nnUNetTrainer__D2NetPlans__3d_fullres/fold_0/checkpoint_final.pth does not"):
        trainer.on_train_start()


def test_another_network_is_refused(trainer):
    save_stock(trainer, **{"encoder.stages.0.0.convs.0.conv.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="not the network of these plans"):
        trainer.on_train_start()


def test_pseudo_dice_is_the_students(trainer):
    save_stock(trainer)
    ready_to_step(trainer)
    trainer.set_deep_supervision_enabled(enabled=False)
    trainer.network.eval()
    called = []
    trainer.companion.stock.register_forward_hook(lambda *_: called.append(1))
    images, complete = torch.randn(1, 4, 4, 16, 16), torch.ones(1, 4, dtype=torch.bool)
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        trainer.network(images, complete)
        assert not called
        trainer.companion.student_only = False
        trainer.network(images, complete)
    assert called


@pytest.mark.parametrize("name", COMPANIONS)
def test_two_and_two_epochs_are_four(root, name, results, repeatable, monkeypatch):  # noqa: F811
    kind = find_trainer(name)
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


@pytest.fixture
def choosing(root, monkeypatch):
    """Let a companion choose by Dice values that are given for it."""

    def choosing(dice, n_cases, cohort=None):
        trainer = make_tiny_trainer(root, find_trainer(COMPANIONS[1]))
        trainer.initialize()
        trainer.cohort = cohort or {}
        monkeypatch.setattr(trainer, "do_split", lambda: ([], [f"case_{i}" for i in range(n_cases)]))
        monkeypatch.setattr(trainer, "_dice_of", lambda cases, subsets: dice)
        trainer._choose()
        codes = subset_codes(SUBSETS)
        written = Path(trainer.output_folder) / CHOICE
        return trainer.companion.by_stock[codes].tolist(), json.loads(
            written.read_text(encoding="utf-8")
        ) if written.exists() else None

    return choosing


def dice_of(stock, student, n_cases=8):
    """The same Dice in every case, a little spread; per subset, or for all."""
    noise = np.linspace(-0.01, 0.01, n_cases)
    return np.stack([np.broadcast_to(np.asarray(d, float), (15,))[:, None] + noise for d in (stock, student)])


def test_the_better_network_gets_the_subset(choosing):
    stock, student = np.full(15, 0.5), np.full(15, 0.6)
    stock[3] = 0.7
    by_stock, written = choosing(dice_of(stock, student), 8)
    assert by_stock == [i == 3 for i in range(15)]  # with all modalities the student wins in every case
    assert written["subsets"]["FLAIR+T1+T1ce+T2"] == {"stock": 0.5, "student": 0.6, "predicts": "student"}
    assert len(written["cases"]) == 8


@pytest.mark.parametrize("n_cases", [1, 2, 4])
def test_complete_input_stays_with_the_stock_network_where_the_gain_may_be_chance(choosing, n_cases):
    by_stock, _ = choosing(dice_of(0.5, 0.6, n_cases), n_cases)
    assert by_stock == [False] * 14 + [True]


def test_a_gain_of_the_mean_that_one_case_makes_is_chance(choosing):
    dice = dice_of(0.5, 0.49)
    dice[1, COMPLETE, 0] += 0.4
    assert dice[1, COMPLETE].mean() > dice[0, COMPLETE].mean()
    assert choosing(dice, 8)[0][COMPLETE]


def test_subsets_that_no_validation_case_has_go_to_the_student(choosing):
    dice = dice_of(0.6, 0.5)
    dice[:, 0] = np.nan
    dice[:, 1, :5] = np.nan
    by_stock, written = choosing(dice, 8)
    assert by_stock == [False] + [True] * 14
    assert written["subsets"]["FLAIR"]["stock"] is None


def test_fold_all_chooses_nothing(root, monkeypatch):
    trainer = make_tiny_trainer(root, find_trainer(COMPANIONS[1]))
    trainer.fold = "all"
    trainer.initialize()
    monkeypatch.setattr(trainer, "_dice_of", lambda *_: pytest.fail("these cases were trained on"))
    trainer._choose()
    assert trainer.companion.by_stock.tolist() == [False] * 15 + [True]


def test_both_networks_predict_what_the_case_has(root, monkeypatch):
    trainer = make_tiny_trainer(root, find_trainer(COMPANIONS[1]))
    trainer.initialize()
    case = trainer.do_split()[1][0]
    trainer.cohort = {case: [True, False, True, True]}
    asked = []

    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = nn.Parameter(torch.tensor(value))

        def forward(self, images):
            asked.append((self.value.item(), tuple(images.flatten(2).any(2)[0].tolist())))
            return self.value.expand(1, 3, *images.shape[2:]) + 0

    trainer.companion.stock, trainer.companion.student = Constant(-5.0), Constant(5.0)
    monkeypatch.setattr(trainer, "set_deep_supervision_enabled", lambda enabled: None)
    dice = trainer._dice_of([case], SUBSETS)
    possible = ~SUBSETS[:, 1].numpy()
    assert np.isnan(dice[:, ~possible]).all()
    assert (dice[0, possible] == 0).all()  # nothing is segmented
    assert (dice[1, possible] > 0).all()  # everything is
    assert {seen for _, seen in asked} == {tuple(s.tolist()) for s in SUBSETS[possible]}
    assert {value for value, _ in asked} == {-5.0, 5.0}


class Manager:
    """What is read of nnU-Net's label manager."""

    def __init__(self, regions=None, ignore=None):
        self.has_regions, self.foreground_regions = regions is not None, regions
        self.has_ignore_label, self.ignore_label = ignore is not None, ignore


def test_targets():
    labels = torch.tensor([[-1, 0, 1, 2, 3, 4]])
    assert target_of(labels, Manager()).tolist() == [[0, 0, 1, 2, 3, 4]]
    regions = target_of(labels, Manager([(1, 2, 3), 3], 4))
    assert regions.int().tolist() == [[0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]
