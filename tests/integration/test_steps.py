"""Training and validation steps, written out because nnU-Net's have no place for a mask, against nnU-Net's own."""

import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerCELoss import nnUNetTrainerCELoss
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from torch import nn

import nnunetv2_d2net
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.losses.d2net_loss import D2NetLoss
from nnunetv2_d2net.method.modalities import zero_missing
from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer, nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.conftest import ANISOTROPIC_3D, LABELS_2D, REGIONS_3D
from tests.integration.conftest import make_trainer
from tests.integration.tiny_training import seed_all

pytestmark = pytest.mark.slow

DATA = {"regions": (REGIONS_3D, "3d_fullres"), "labels": (LABELS_2D, "2d"), "ignored": (ANISOTROPIC_3D, "3d_fullres")}


@pytest.fixture(params=DATA)
def data(request, root, regions_data, labels_model, anisotropic_model):
    """A data set, preprocessed, and its configuration: regions; labels in 2D; an ignore label."""
    return DATA[request.param]


@pytest.fixture(autouse=True)
def _other_results(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))


class Complete(nnUNetTrainerModalityDropout):
    """Nothing is hidden from the network."""

    p_complete = 1.0


def ready(root, data, trainer_class, *, deep_supervision=True, seed=0):
    seed_all(seed)
    trainer = make_trainer(root, data[0], "D2NetPlans", data[1], trainer=trainer_class)
    trainer.enable_deep_supervision = deep_supervision
    trainer.initialize()
    trainer.set_deep_supervision_enabled(deep_supervision)
    trainer.on_train_epoch_start()
    return trainer


def batches_of(trainer, n, which=0):
    seed_all(1)
    loader = trainer.get_dataloaders()[which]
    return [next(loader) for _ in range(n)]


def same_weights(one, other):
    pairs = zip(one.network.state_dict().items(), other.network.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_three_steps_on_complete_input_are_nnunets(root, data, deep_supervision, scaled):
    ours, stock = (ready(root, data, t, deep_supervision=deep_supervision) for t in (Complete, nnUNetTrainer))
    assert same_weights(ours, stock)
    before = deepcopy(stock.network.state_dict())
    if scaled:  # as on a GPU
        ours.grad_scaler, stock.grad_scaler = (torch.amp.GradScaler("cpu", init_scale=8.0) for _ in range(2))
    for batch in batches_of(stock, 3):
        losses = [trainer.train_step(deepcopy(batch))["loss"] for trainer in (ours, stock)]
        assert losses[0] == losses[1]
    assert same_weights(ours, stock)
    assert not all(torch.equal(before[name], value) for name, value in stock.network.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_validation_on_complete_input_is_nnunets(root, data, deep_supervision):
    ours, stock = (ready(root, data, t, deep_supervision=deep_supervision) for t in (Complete, nnUNetTrainer))
    for trainer in (ours, stock):
        trainer.on_validation_epoch_start()
        for head in trainer.network.decoder.seg_layers:  # so that every class is predicted somewhere
            nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    for batch in batches_of(stock, 2, which=1):
        ours.validation_step_index = 0  # the complete subset
        found, expected = (trainer.validation_step(deepcopy(batch)) for trainer in (ours, stock))
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in expected)
        assert expected["fp_hard"].any()


class HandedOver(D2NetTrainer):
    """nnU-Net's own step, to which a network and a loss are handed that know the masks: the slow, obvious reference."""

    def train_step(self, batch):
        self.loss.set_weights(self.current_weights())
        self.train_step_index += 1
        network, loss, masks = self.network, self.loss, self.masks
        images = batch["data"]

        class Told(nn.Module):
            def parameters(self, recurse=True):  # noqa: FBT002 - torch's signature
                return network.parameters(recurse)

            def forward(self, hidden):
                return network(hidden, masks)

        present = torch.ones_like(masks)
        self.network, self.loss = Told(), lambda outputs, target: loss(outputs, target, images, present)
        try:
            return nnUNetTrainer.train_step(self, {**batch, "data": zero_missing(images, masks)})
        finally:
            self.network, self.loss = network, loss


def test_three_steps_of_d2net_are_nnunets_with_masks(root, data, monkeypatch):
    ours, reference = (ready(root, data, t) for t in (D2NetTrainer, HandedOver))
    n_modalities, size = len(data[0].channels), ours.batch_size
    drawn = [torch.rand(size, n_modalities, generator=torch.Generator().manual_seed(i)) < 0.6 for i in range(3)]
    drawn = [masks | ~masks.any(1, keepdim=True) for masks in drawn]
    assert not torch.cat(drawn).all()
    for trainer in (ours, reference):
        trainer.train_step_index = 1  # without the diagnostics of an epoch's first step
    for masks, batch in zip(drawn, batches_of(ours, 3), strict=True):
        reference.masks = masks
        monkeypatch.setattr("nnunetv2_d2net.plugin.training.dropping.draw_available", lambda *_, masks=masks: masks)
        losses = [trainer.train_step(deepcopy(batch))["loss"] for trainer in (ours, reference)]
        assert losses[0] == losses[1]
    assert same_weights(ours, reference)


def test_the_way_to_the_network_is_short(root, regions_data):
    trainer = ready(root, DATA["regions"], D2NetTrainer)
    (batch,) = batches_of(trainer, 1)
    trainer.train_step(deepcopy(batch))
    package, called = Path(nnunetv2_d2net.__file__).parent, []

    def note(frame, event, _argument):
        code = frame.f_code
        if event == "call" and package in Path(code.co_filename).parents and not code.co_name.startswith("<"):
            called.append(code.co_qualname if hasattr(code, "co_qualname") else code.co_name)

    sys.setprofile(note)
    try:
        trainer.train_step(batch)
    finally:
        sys.setprofile(None)
    first = next(i for i, name in enumerate(called) if name in ("D2Net.forward", "forward"))
    assert called[0].endswith("train_step")
    assert first <= 11, called[: first + 1]


# classes of nnU-Net's own, mixed in: they act, or they are refused


@pytest.mark.parametrize("ours", [D2NetTrainer, nnUNetTrainerModalityDropout])
def test_batch_norm_behind_ours_acts(root, regions_data, ours):
    trainer = ready(root, DATA["regions"], type("Mixed", (ours, nnUNetTrainerBN), {}))
    assert any(isinstance(module, nn.BatchNorm3d) for module in trainer.network.modules())
    assert isinstance(trainer.network, D2Net) == (ours is D2NetTrainer)
    (batch,) = batches_of(trainer, 1)
    assert np.isfinite(trainer.train_step(batch)["loss"])


@pytest.mark.parametrize("ours", [D2NetTrainer, nnUNetTrainerModalityDropout])
def test_batch_norm_before_ours_is_refused(root, regions_data, ours):
    said = r"build_network_architecture is nnUNetTrainerBN's.*name nnUNetTrainerBN behind"
    with pytest.raises(UserError, match=said):
        ready(root, DATA["regions"], type("Mixed", (nnUNetTrainerBN, ours), {}))


def test_cross_entropy_behind_ours_acts(root, labels_model):
    trainer = ready(root, DATA["labels"], type("Mixed", (D2NetTrainer, nnUNetTrainerCELoss), {}))
    assert isinstance(trainer.loss, D2NetLoss)
    assert "RobustCrossEntropyLoss" in repr(trainer.loss.segmentation_loss)
    assert "Dice" not in repr(trainer.loss.segmentation_loss)


def test_cross_entropy_before_ours_is_refused_where_the_loss_is_ours(root, labels_model):
    said = r"_build_loss is nnUNetTrainerCELoss's.*name nnUNetTrainerCELoss behind"
    with pytest.raises(UserError, match=said):
        ready(root, DATA["labels"], type("Mixed", (nnUNetTrainerCELoss, D2NetTrainer), {}))
    plain = ready(root, DATA["labels"], type("Mixed", (nnUNetTrainerCELoss, nnUNetTrainerModalityDropout), {}))
    assert isinstance(plain, ModalityDroppingTrainer)
    assert "RobustCrossEntropyLoss" in repr(plain.loss)
