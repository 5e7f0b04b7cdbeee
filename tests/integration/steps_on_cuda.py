"""What all trainers do with a CUDA device, on one that is not there; ``test_on_cuda.py`` runs it in its own process."""

import functools
import json
from pathlib import Path
from queue import Queue
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.prediction.export import export_model
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from nnunetv2_d2net.plugin.training import variants
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.conftest import nnunet_environment
from tests.pretended_cuda import INDEX, NUMBER, SHAPE, TO_DEVICE, TO_HOST, pretended_cuda, without_streams
from tests.unit.plugin.preprocessing.conftest import build_plans

CHANNELS = ("FLAIR", "T1", "T1ce", "T2")
LABELS = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
IGNORE = {"ignore": 4}
PATCHES = {"2D": (16, 16), "3D": (8, 8, 8)}
MAIN = (
    "nnUNetTrainerModalityDropout",
    "nnUNetTrainerModalityDropoutAdamW",
    "nnUNetTrainerModalityDropoutModulated",
    "nnUNetTrainerModalityDropoutImputed",
    "nnUNetTrainerModalityDropoutConditioned",
    "nnUNetTrainerModalityDropoutConditionedRepeated",
    "D2NetTrainer",
    "D2NetTrainerCompanion",
    "nnUNetTrainerModalityDropoutImputedCompanion",
)
LOSS = ("dropping.py", "train_step", TO_HOST)
SCALER = ("grad_scaler.py", "_maybe_opt_step", NUMBER)
COUNTS = {("dropping.py", "validation_step", TO_HOST): 1, ("validation.py", "hard_counts", TO_HOST): 3}
NNUNETS = {"predict_from_raw_data.py", "sliding_window_prediction.py"}
"""torch's scaler asks whether a gradient is infinite before each step: nnU-Net's own step waits there, too."""


@pytest.fixture(autouse=True, scope="session")
def _no_streams():
    without_streams()


@pytest.fixture
def cuda(tmp_path):
    with nnunet_environment(tmp_path), pretended_cuda() as mode:
        folder = tmp_path / "preprocessed" / "Dataset007_Tiny" / "tiny"
        folder.mkdir(parents=True)
        (folder / "a.npz").touch()
        yield mode


def make_trainer(name, dim="3D", labels=REGIONS):
    """A trainer within an epoch, past what is measured once in each."""
    plans = build_plans(["ZScoreNormalization"] * len(CHANNELS), patch_size=PATCHES[dim]).plans
    plans["continue_training"] = False
    axes = len(PATCHES[dim])
    plans["configurations"]["tiny"]["architecture"]["arch_kwargs"].update(
        n_stages=3,
        features_per_stage=[4, 6, 8],
        kernel_sizes=[[3] * axes] * 3,
        strides=[[1] * axes, *[[2] * axes] * 2],
        n_conv_per_stage=[1] * 3,
        n_conv_per_stage_decoder=[1] * 2,
    )
    dataset_json = {"channel_names": dict(enumerate(CHANNELS)), "labels": labels, "file_ending": ".nii.gz"}
    if "enhancing tumor" in labels:
        dataset_json["regions_class_order"] = [1, 2, 3]
    trainer = variants.find_trainer(name)(plans, "tiny", 0, dataset_json, torch.device("cuda"))
    trainer.print_to_log_file = lambda *_, **__: None
    trainer.initialize()
    trainer.network.train()
    trainer.train_step_index = trainer.validation_step_index = 1
    trainer.progress = SimpleNamespace(update=lambda: None)
    trainer.level_generator = torch.Generator()
    return trainer


def make_batch(trainer, dim="3D"):
    """What nnU-Net's loaders hand over, on the host."""
    manager = trainer.label_manager
    n_maps = len(manager.foreground_regions) + manager.has_ignore_label if manager.has_regions else 1
    target = torch.randint(2, (2, n_maps, *PATCHES[dim]))
    target = target.bool() if manager.has_regions else target.short()
    levels = [target, target[(..., *[slice(None, None, 2)] * len(PATCHES[dim]))]]
    return {"data": torch.randn(2, len(CHANNELS), *PATCHES[dim]), "target": levels, "keys": ["a", "b"]}


def bfloat16(trainer):
    trainer.autocast, trainer.grad_scaler = functools.partial(torch.autocast, "cuda", torch.bfloat16), None


def waits_of(cuda, trainer, dim="3D", step="train_step"):
    """Do one step, and return how often the host waited for the device, and where."""
    batch, is_training = make_batch(trainer, dim), step == "train_step"
    trainer.network.train(is_training)
    cuda.waits.clear()
    with torch.set_grad_enabled(is_training):
        getattr(trainer, step)(batch)
    return dict(cuda.waits)


def alternating(shape, dtype):
    """Every other value is true: half of the cases to one network of a companion, half to the other."""
    return (torch.arange(shape.numel()) % 2).reshape(shape).to(dtype)


def without_inference_mode(monkeypatch):
    """Let nnU-Net predict without gradients only: in inference mode operations come undivided, past autocast."""
    for name, method in vars(nnUNetPredictor).items():
        if hasattr(method, "__wrapped__"):
            monkeypatch.setattr(nnUNetPredictor, name, torch.no_grad()(method.__wrapped__))


class SameThread(Thread):
    """Runs at once: torch's fake tensors are not made for several threads."""

    start = Thread.run


def pretend_to_predict(cuda, monkeypatch):
    """Let nnU-Net's sliding window run on the device, and every other value that comes from there be true."""
    monkeypatch.setattr(predict_from_raw_data, "Queue", lambda maxsize: Queue())
    monkeypatch.setattr(predict_from_raw_data, "Thread", SameThread)
    without_inference_mode(monkeypatch)
    predict_from_raw_data.compute_gaussian.cache_clear()  # of another test's device
    cuda.content = alternating


@pytest.mark.parametrize(("dim", "labels"), [("2D", LABELS), ("3D", REGIONS | IGNORE)], ids=PATCHES)
@pytest.mark.parametrize("name", MAIN)
def test_steps_in_training_and_validation(name, dim, labels, cuda):
    trainer = make_trainer(name, dim, labels)
    assert trainer.grad_scaler.is_enabled()
    assert waits_of(cuda, trainer, dim) == {LOSS: 1, SCALER: 1}
    trainer.on_validation_epoch_start()
    trainer.validation_step_index = 1
    assert waits_of(cuda, trainer, dim, step="validation_step") == COUNTS
    bfloat16(trainer)
    assert waits_of(cuda, trainer, dim) == {LOSS: 1}
    assert {p.device for p in trainer.network.parameters()} == {torch.device("cuda", 0)}
    assert {p.grad.dtype for p in trainer.network.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("name", sorted(set(variants.__all__) - set(MAIN)))
def test_a_training_step_of_every_other_trainer(name, cuda):
    assert waits_of(cuda, make_trainer(name)) == {LOSS: 1, SCALER: 1}


@pytest.mark.parametrize("name", ["D2NetTrainer", "D2NetTrainerCompanion"])
def test_what_is_measured_once_in_an_epoch_is_on_the_device(name, cuda):
    trainer = make_trainer(name)
    trainer.train_step_index = trainer.validation_step_index = 0
    for step in ("train_step", "validation_step"):
        assert waits_of(cuda, trainer, step=step).keys() > {(LOSS[0], step, TO_HOST)}


@pytest.mark.parametrize(
    ("name", "dim"), list(zip(MAIN, ("2D", "2D", "3D", "2D", "3D", "2D", "3D", "2D", "3D"), strict=True))
)
def test_from_a_checkpoint_to_all_subsets(name, dim, cuda, tmp_path, monkeypatch, capsys):
    trainer = make_trainer(name, dim, LABELS)
    trainer.train_step(make_batch(trainer, dim))
    trainer.inference_allowed_mirroring_axes = (0,)
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    trainer.logger.log("ema_fg_dice", 0.5, 0)
    resumed = make_trainer(name, dim, LABELS)
    names = resumed.network.state_dict()
    with monkeypatch.context() as patch:
        patch.setattr(resumed.network, "state_dict", lambda: names)  # nnU-Net asks for all of them once a weight
        resumed.load_checkpoint(str(fold / "checkpoint_final.pth"))
    resumed.restore_random_states(resumed.loaded_random_states)
    assert waits_of(cuda, resumed, dim) == {LOSS: 1, SCALER: 1}

    for content, file in ((trainer.dataset_json, "dataset.json"), (trainer.plans_manager.plans, "plans.json")):
        (fold.parent / file).write_text(json.dumps(content), encoding="utf-8")
    export_model(fold.parent, tmp_path / "exported")
    predictor = D2NetPredictor(device=torch.device("cuda", 0), allow_tqdm=False)
    exported = tmp_path / "exported" / fold.parent.parent.name / fold.parent.name
    predictor.initialize_from_trained_model_folder(str(exported), (0,))
    pretend_to_predict(cuda, monkeypatch)
    cuda.waits.clear()
    subsets, shape = modality_subsets(len(CHANNELS)), (2, 16, 20) if dim == "2D" else (8, 8, 12)
    logits = predictor.predict_logits_of_subsets(torch.randn(len(CHANNELS), *shape), subsets)
    assert logits.shape == (len(subsets), 3, *shape)
    assert "unsuccessful" not in capsys.readouterr().out  # nnU-Net would go on without the device
    ours = {place: n for place, n in cuda.waits.items() if place[0] not in NNUNETS}
    n_passes = 2 * (4 if dim == "2D" else 2)  # tiles, each as it is and mirrored
    of_table = {("companion.py", "forward", TO_HOST): n_passes} if name.endswith("Companion") else {}
    assert ours == {("predictor.py", "predict_logits_of_subsets", TO_DEVICE): 1, **of_table}


def test_agreement_asks_for_nothing_but_logits(cuda, monkeypatch):
    trainer = make_trainer(MAIN[0], labels=LABELS)
    trainer.network.decoder.deep_supervision = False
    predictor = D2NetPredictor(device=torch.device("cuda", 0), allow_tqdm=False)
    predictor.agreement = True
    managers = trainer.plans_manager, trainer.configuration_manager
    weights = [trainer.network.state_dict()] * 2
    predictor.manual_initialization(trainer.network, *managers, weights, trainer.dataset_json, MAIN[0], (0,))
    pretend_to_predict(cuda, monkeypatch)
    cuda.waits.clear()
    ((_, _, found),) = predictor._segmented(torch.randn(4, 8, 8, 8), [(True, True, False, False)])
    (agreement,) = found.values()
    assert agreement.keys() == {
        "without FLAIR",
        "without T1",
        "by fold_0 alone",
        "by fold_1 alone",
        "without mirroring",
    }
    places = {place for place in cuda.waits if place[0] not in NNUNETS}
    of_fold = ("predictor.py", "_masks_of", TO_HOST)
    assert places == {("predictor.py", "predict_logits_of_subsets", TO_DEVICE), of_fold}


class OneCase:
    """What is preprocessed of a data set of one case."""

    def __init__(self, folder, cases):
        assert cases == ["a"]

    def load_case(self, case):
        return np.random.randn(4, 8, 8, 8).astype(np.float32), np.ones((1, 8, 8, 8), np.int16), None, {}


def test_a_companion_chooses_on_the_device(cuda, monkeypatch):
    trainer = make_trainer("nnUNetTrainerModalityDropoutCompanion", labels=LABELS)
    trainer.do_split, trainer.dataset_class = lambda: ([], ["a"]), OneCase
    trainer.subset_weights = torch.arange(16) == 3
    pretend_to_predict(cuda, monkeypatch)
    cuda.waits.clear()
    trainer._choose()
    chosen = json.loads((Path(trainer.output_folder) / "companion.json").read_text(encoding="utf-8"))
    assert len(chosen["subsets"]) == 2
    assert trainer.companion.by_stock.device == torch.device("cuda", 0)
    waits = {place[1:]: n for place, n in cuda.waits.items() if place[0] == "companion.py"}
    assert waits == {("forward", TO_DEVICE): 4, ("_dice_of", TO_HOST): 4, ("_choose", TO_DEVICE): 2}


def test_a_step_that_computes_its_branches_again(cuda, monkeypatch):
    options = D2NetTrainer.network_options._replace(recompute_branches=True)
    monkeypatch.setattr(D2NetTrainer, "network_options", options)
    assert waits_of(cuda, make_trainer("D2NetTrainer")) == {LOSS: 1, SCALER: 1}


WRONG = {
    "a copy to the host": (lambda x: x.cpu().sum(), TO_HOST),
    "a number": (lambda x: x * x.mean().item(), NUMBER),
    "a question": (lambda x: x if x.sum() > 0 else -x, NUMBER),
    "a mask": (lambda x: x[x > 0], SHAPE),
    "a mask that is written to": (lambda x: x.index_put_((x > 0,), x.sum()), SHAPE),
    "positions": (lambda x: x.nonzero(), SHAPE),
    "a list": (lambda x: x[[0, 1]], TO_DEVICE),
    "positions of the host": (lambda x: x[torch.tensor([0, 1])], INDEX),
    "draws": (lambda x: x.flatten().multinomial(1), NUMBER),
    "a copy to the device": (lambda x: x + torch.ones(8).to(x.device), TO_DEVICE),
    "new numbers": (lambda x: x * torch.tensor([1.0], device=x.device), TO_DEVICE),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_step_that_waits_is_found(what, cuda, monkeypatch):
    spoil, reason = WRONG[what]
    trainer = make_trainer(MAIN[0])
    outputs_of = trainer.network_outputs

    def network_outputs(step):
        spoil(step.images)
        return outputs_of(step)

    monkeypatch.setattr(trainer, "network_outputs", network_outputs)
    assert waits_of(cuda, trainer) == {LOSS: 1, SCALER: 1, ("steps_on_cuda.py", "network_outputs", reason): 1}


@pytest.mark.parametrize("spoil", [lambda x: x + torch.ones(8), lambda x: x.cpu() * x, lambda x: x * torch.eye(8)])
def test_a_step_with_a_tensor_that_has_no_device_fails(spoil, cuda, monkeypatch):
    trainer = make_trainer(MAIN[0])
    monkeypatch.setattr(trainer, "network_outputs", lambda step: spoil(step.images))
    with pytest.raises(RuntimeError, match="same device"):
        trainer.train_step(make_batch(trainer))
