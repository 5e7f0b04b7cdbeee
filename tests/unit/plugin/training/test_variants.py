"""Trainers that are found by name: those that are made at lookup are classes like others."""

import pickle

import pytest

from nnunetv2_d2net.method.network.d2net import D2NetOptions
from nnunetv2_d2net.plugin.training import variants
from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.paper import D2NetTrainerPaper
from nnunetv2_d2net.plugin.training.trainer import GENTLE_WEIGHTS, PAPER_WEIGHTS, D2NetTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer

KEPT = {
    "NoSFMCNoKD": (),
    "OnlySC": ("sc",),
    "OnlyFC": ("fc",),
    "NoKD": ("sc", "fc"),
    "OnlyKDFeature": ("kd_feature",),
    "OnlyKDLogit": ("kd_logit",),
    "NoSFMC": ("kd_feature", "kd_logit"),
}


@pytest.mark.parametrize("name", KEPT)
def test_rows_of_table_ii_keep_some_of_its_four_losses_and_all_others(name):
    ablated = {"sc", "fc", "kd_feature", "kd_logit"} - set(KEPT[name])
    for prefix, whole in (("", GENTLE_WEIGHTS), ("Paper", PAPER_WEIGHTS), ("PaperWeights", PAPER_WEIGHTS)):
        trainer = find_trainer(f"D2NetTrainer{prefix}{name}")
        assert trainer.loss_weights == {term: 0 if term in ablated else w for term, w in whole.items()}
        assert trainer.loss_ramps == ({} if prefix else {"rec": 0.1})
        assert trainer.__mro__[1] is (D2NetTrainerPaper if prefix == "Paper" else D2NetTrainer)


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("ModulatedSkips", {"modulate_skips": True}),
        ("ModulatedEncoder", {"modulate_encoder": True}),
        ("FullTeacher", {"teacher_level": 0}),
        ("IndependentEncoders", {"independent_encoders": True}),
    ],
)
def test_variants_of_the_network_differ_in_one_option(name, differs):
    trainer = find_trainer(f"D2NetTrainer{name}")
    assert trainer.network_options == D2NetOptions(**differs)
    assert trainer.loss_weights == GENTLE_WEIGHTS


def test_variants_of_the_weights():
    assert set(find_trainer("D2NetTrainerSegOnly").loss_weights.items()) == {(term, 0.0) for term in GENTLE_WEIGHTS}
    paper = find_trainer("D2NetTrainerPaperWeights")
    assert (set(paper.loss_weights.values()), paper.loss_ramps) == ({1.0}, {})


@pytest.mark.parametrize(
    "name",
    [
        "D2NetTrainer",
        "D2NetTrainerAdamW",
        "nnUNetTrainerModalityDropout",
        "nnUNetTrainerModalityDropoutAdamW",
        "nnUNetTrainerModalityDropoutModulated",
        "nnUNetTrainerModalityDropoutImputed",
        "nnUNetTrainerModalityDropoutConditioned",
        "nnUNetTrainerModalityDropoutConditionedRepeated",
    ],
)
def test_companions_students(name):
    student, companion = find_trainer(name), find_trainer(f"{name}Companion")
    assert companion.__mro__[1:3] == (CompanionTrainer, student)
    assert companion.__doc__ == f"{name} that starts from a stock nnU-Net."
    options = vars(companion).get("network_options")
    if issubclass(student, D2NetTrainer):  # it begins as the planned U-Net
        assert options == D2NetOptions(gated_bottleneck=True, modulate_missing=True)
    else:
        assert options is None


def test_d2net_by_adamw_is_trained_as_modality_dropout_by_adamw_is(trainer_of):
    trainers = [trainer_of(find_trainer(f"{name}AdamW")) for name in ("D2NetTrainer", "nnUNetTrainerModalityDropout")]
    assert find_trainer("D2NetTrainerAdamW").loss_weights == GENTLE_WEIGHTS
    for trainer in trainers:
        trainer.print_to_log_file = lambda *_, **__: None
        trainer.initialize()
        (group,) = trainer.optimizer.param_groups
        assert (type(trainer.optimizer).__name__, group["lr"], group["betas"]) == ("AdamW", 1e-3, (0.9, 0.99))
        assert len(group["params"]) == len(list(trainer.network.parameters()))
        assert trainer.p_complete == 0


def test_a_companion_of_a_student_whose_encoder_is_told_what_is_missing_is_told_at_its_own_places():
    options = find_trainer("D2NetTrainerModulatedEncoderCompanion").network_options
    assert options == D2NetOptions(gated_bottleneck=True, modulate_missing=True, modulate_encoder=False)


@pytest.mark.parametrize(
    ("name", "n_epochs", "bases", "doc"),
    [
        ("D2NetTrainer_1epoch", 1, (D2NetTrainer,), "D2NetTrainer for 1epoch."),
        (
            "nnUNetTrainerModalityDropout_8000epochs",
            8000,
            (nnUNetTrainerModalityDropout,),
            "nnUNetTrainerModalityDropout for 8000epochs.",
        ),
        (
            "D2NetTrainerPaperDistilled2",
            400,
            (D2NetTrainerPaper,),
            "Table VI, 2 levels: D2NetTrainerPaper with that one difference.",
        ),
    ],
)
def test_a_class_that_is_made_is_the_same_at_every_lookup_and_travels_between_processes(name, n_epochs, bases, doc):
    trainer = find_trainer(name)
    assert (trainer.__name__, trainer.__bases__, trainer.__doc__, trainer.n_epochs) == (name, bases, doc, n_epochs)
    assert trainer.__module__ == "nnunetv2_d2net.plugin.training.variants"
    assert find_trainer(name) is trainer
    assert pickle.loads(pickle.dumps(trainer)) is trainer
    assert getattr(variants, name) is trainer


@pytest.mark.parametrize(
    "name", ["D2NetTrainer_3epochs", "D2NetTrainer_1epochs", "D2NetTrainer_1epoch_1epoch", "Other"]
)
def test_other_names_do_not_exist(name):
    with pytest.raises(
        AttributeError, match=r"^module 'nnunetv2_d2net\.plugin\.training\.variants' has no attribute '"
    ):
        find_trainer(name)
    assert not hasattr(variants, name)


@pytest.mark.parametrize("name", ["D2NetTrainer_1epochCompanion", "D2NetTrainerCompanion_3epochs"])
def test_lengths_come_behind_everything_else(name):
    with pytest.raises(AttributeError):
        find_trainer(name)
    assert find_trainer("D2NetTrainerCompanion_5epochs").n_epochs == 5
