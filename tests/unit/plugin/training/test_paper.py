"""The paper's trainer and the rows of its tables: what each of them differs in, and that it arrives."""

import json
import math
from collections import Counter

import pytest
import torch
from torch import nn

from nnunetv2_d2net.method.losses.d2net_loss import LOSS_TERMS, LossOptions
from nnunetv2_d2net.method.network.d2net import D2NetOptions
from nnunetv2_d2net.plugin.training.paper import FIGURE_8, ROWS, D2NetTrainerPaper
from nnunetv2_d2net.plugin.training.trainer import PAPER_WEIGHTS, D2NetTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer
from tests.unit.plugin.preprocessing.conftest import build_dataset_json

VARIANTS = {row.variant: row for row in ROWS if row.variant}


def test_the_trainer_is_the_papers():
    trainer = find_trainer("D2NetTrainerPaper")
    assert trainer is D2NetTrainerPaper
    assert trainer.network_options == D2NetOptions(
        code_length=8,
        independent_encoders=True,
        encoder_norm=nn.BatchNorm2d,
        teacher_width=1,
        teacher_level=0,
        image_decoder_width=1,
        reconstruction_level=0,
        content_width=1,
        independent_image_decoders=True,
        classifier_convs=2,
        tumor_projection=True,
        distilled_levels=4,
        frequency_level=4,
        student_width=1,
    )
    assert trainer.loss_options == LossOptions(kd_reduction="sum", n_positives=1, negative_radius=8)
    assert trainer.loss_weights == dict.fromkeys(LOSS_TERMS[1:], 1.0)
    assert (trainer.loss_ramps, trainer.p_complete, trainer.n_epochs, trainer.n_folds) == ({}, 0.0, 400, 3)


def test_rows_are_those_of_the_paper():
    assert Counter(row.table for row in ROWS) == {
        "Table II": 8,
        "Table III": 8,
        "Table IV": 2,
        "Table VI": 6,
        "Table VIII": 5,
        "Table IX": 3,
        "Fig. 8": 20,
    }
    assert len({(row.table, row.name) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        if row.published:
            assert sum(row.published[:3]) / 3 == pytest.approx(row.published[3], abs=0.16), row  # as rounded in print


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_row_differs_in_its_settings_alone(variant):
    row = VARIANTS[variant]
    trainer = find_trainer(row.trainer)
    assert issubclass(trainer, D2NetTrainerPaper)
    assert {name: getattr(trainer, name) for name in row.settings} == row.settings
    (name,) = row.settings
    assert getattr(trainer, name) != getattr(D2NetTrainerPaper, name)
    assert row.table in (trainer.__doc__ or "")


def test_other_tables_vary_one_option():
    losses = {f"Positives{n}": ("n_positives", n) for n in (2, 4, 8)}
    losses |= {f"Negatives{6 * n}": ("negative_radius", n) for n in (4, 16, 32)}
    network = {f"Distilled{n}": ("distilled_levels", n) for n in (1, 2, 3, 5, 6)}
    network |= {f"FrequencyLevel{n}": ("frequency_level", n) for n in (1, 2, 3)} | {
        "FrequencyInput": ("frequency_level", 0),
        "NoProjection": ("tumor_projection", False),
        "StudentHalf": ("student_width", 0.5),
        "StudentQuarter": ("student_width", 0.25),
    }
    for name, (option, value) in losses.items():
        assert VARIANTS[name].settings == {"loss_options": D2NetTrainerPaper.loss_options._replace(**{option: value})}
    for name, (option, value) in network.items():
        assert VARIANTS[name].settings == {
            "network_options": D2NetTrainerPaper.network_options._replace(**{option: value})
        }
    of_weights = {name for name, row in VARIANTS.items() if set(row.settings) == {"loss_weights"}}
    assert set(losses) | set(network) | of_weights == set(VARIANTS)


def test_rows_with_a_length_are_found():
    trainer = find_trainer("D2NetTrainerPaperSC0p5_1epoch")
    assert (trainer.n_epochs, trainer.loss_weights["sc"]) == (1, 0.5)
    assert {**trainer.loss_weights, "sc": 1.0} == PAPER_WEIGHTS


def test_figure_8_has_each_weight_of_each_loss():
    points = {term: [] for term in FIGURE_8}
    for row in ROWS:
        if row.table == "Fig. 8":
            term, weight = row.name.split()
            assert find_trainer(row.trainer).loss_weights[term] == float(weight)
            points[term].append(float(weight))
    assert all(sorted(weights) == [0, 0.5, 1, 2] for weights in points.values())


def test_what_the_paper_prints_arrives(trainer_of):
    """Softmax over the labels with the background, options of network and losses, Adam, batches of 2."""
    trainer = trainer_of(D2NetTrainerPaper, n_stages=3)
    trainer.configuration_manager.configuration["batch_size"] = 5
    trainer.initialize()
    assert trainer.batch_size == trainer.configuration_manager.batch_size == 2
    assert trainer.loss.options == D2NetTrainerPaper.loss_options
    assert set(trainer.loss.weights.values()) == {1.0}
    assert (trainer.loss.regions, trainer.network.decoder.num_classes) == (False, 3)
    assert trainer.network.teacher.finest_level == trainer.network.image_decoder.decoders[0].output_level == 0
    assert len(trainer.network.image_decoder.decoders) == 3
    assert type(trainer.optimizer).__name__ == "Adam"
    (group,) = trainer.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (trainer.initial_lr, trainer.weight_decay) == (3e-4, 5e-5)
    trainer.lr_scheduler.step(200)
    assert group["lr"] == pytest.approx(3e-4 * 0.5**0.9)


@pytest.mark.parametrize(
    ("variant", "arrived"),
    [
        ("NoProjection", lambda net: not list(net.modality_projection.parameters())),
        ("Distilled1", lambda net: len(net.feature_banks.student) == 1),
        ("FrequencyInput", lambda net: net.frequency_level == 0),
        ("StudentHalf", lambda net: net.decoder.stages[-1].output_channels == 2),
    ],
)
def test_network_options_of_the_rows_arrive(trainer_of, variant, arrived):
    reference, trainer = (trainer_of(find_trainer(f"D2NetTrainerPaper{name}"), n_stages=3) for name in ("", variant))
    for one, expected in ((reference, variant == "Distilled1"), (trainer, True)):  # three stages have one bank level
        one.initialize()
        assert arrived(one.network) == expected


@pytest.mark.parametrize("variant", ["", "NoProjection", "FrequencyInput", "FrequencyLevel2", "StudentHalf"])
def test_a_step_trains_every_parameter(trainer_of, make_batch, variant):
    trainer = trainer_of(find_trainer(f"D2NetTrainerPaper{variant}"), n_stages=3)
    trainer.print_to_log_file = lambda *_, **__: None
    trainer.initialize()
    trainer.train_step_index = 1
    trainer.draw = lambda present: present & torch.tensor([[True, False, True], [True, True, True]])
    assert math.isfinite(trainer.train_step(make_batch())["loss"])
    without = [name for name, parameter in trainer.network.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize(
    ("trainer", "n_folds"),
    [(D2NetTrainerPaper, 3), (D2NetTrainer, 5)],
)
def test_folds_are_of_two_thirds_and_one_third(trainer_of, training_folders, trainer, n_folds):
    base = training_folders / "preprocessed" / "Dataset007_Tiny"
    for i in range(15):
        for ending in ("npz", "pkl"):
            (base / "tiny" / f"c{i:02}.{ending}").touch()
    (base / "tiny" / "a.npz").unlink()
    made = trainer_of(trainer, dataset_json=build_dataset_json(3))
    made.print_to_log_file = lambda *_, **__: None
    train, val = made.do_split()
    splits = json.loads((base / "splits_final.json").read_text(encoding="utf-8"))
    assert [(len(split["train"]), len(split["val"])) for split in splits] == [
        (15 - 15 // n_folds, 15 // n_folds)
    ] * n_folds
    assert sorted(name for split in splits for name in split["val"]) == sorted([*train, *val])
    assert (splits[0]["train"], splits[0]["val"]) == (list(train), list(val))


@pytest.mark.parametrize(("n_cases", "n_steps"), [(1, 1), (4, 2), (5, 3)])
def test_an_epoch_is_one_pass_over_the_training_cases(trainer_of, monkeypatch, n_cases, n_steps):
    trainer, started = trainer_of(D2NetTrainerPaper), []
    monkeypatch.setattr(trainer, "do_split", lambda: ([f"c{i}" for i in range(n_cases)], ["v"]))
    monkeypatch.setattr(D2NetTrainer, "on_train_start", lambda *of: started.append(of))
    trainer.on_train_start()
    assert (trainer.num_iterations_per_epoch, started) == (n_steps, [(trainer,)])


def test_the_loader_goes_through_the_cases(monkeypatch):
    """nnU-Net's hook, in its own order: training first, and validation as ever."""
    made = []

    def get_dataloaders(self):
        module = __import__("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", fromlist=["x"])
        made.extend([module.nnUNetDataLoader("training"), module.nnUNetDataLoader("validation")])
        return made

    class Ours:
        def __init__(self, data):
            self.data = data

    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer.get_dataloaders", get_dataloaders)
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetDataLoader", lambda data: data)
    monkeypatch.setattr("nnunetv2_d2net.plugin.training.paper.PassLoader", Ours)
    D2NetTrainerPaper.get_dataloaders(object.__new__(D2NetTrainerPaper))
    assert (type(made[0]), made[0].data, made[1]) == (Ours, "training", "validation")
