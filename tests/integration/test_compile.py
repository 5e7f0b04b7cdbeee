"""torch.compile: one graph for the training step, one compilation whatever is missing, and the same results."""

from collections import defaultdict

import pytest
import torch
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

from nnunetv2_d2net.method.losses.d2net_loss import D2NetLoss
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.integration.tiny_training import PATCH, make_tiny_trainer, ready_to_step

pytestmark = pytest.mark.slow

SUBSETS = torch.tensor(
    [[[1, 1, 1, 1], [1, 1, 1, 1]], [[1, 0, 0, 0], [0, 0, 0, 1]], [[0, 1, 1, 0], [1, 1, 1, 1]]], dtype=torch.bool
)


@pytest.fixture(autouse=True)
def _fresh(regions_data, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step_of(trainer):
    """Network and loss as the trainer calls them."""

    def step(images, target, available, present):
        outputs = trainer.bare_network(images, available)
        return trainer.loss(outputs, target, images=images, present=present)

    return step


def gradients(trainer, loss):
    """The gradient of every parameter, which is not kept."""
    parameters = list(trainer.bare_network.parameters())
    return torch.autograd.grad(loss, parameters)


def test_the_step_is_one_graph_whatever_is_missing(root):
    trainer = ready_to_step(make_tiny_trainer(root))
    batch = next(trainer.dataloader_train)
    backend = CompileCounterWithBackend("aot_eager")
    step, present = step_of(trainer), torch.ones(2, 4, dtype=torch.bool)
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    for available in SUBSETS:
        loss, expected = (call(batch["data"], batch["target"], available, present) for call in (compiled, step))
        torch.testing.assert_close(loss, expected)
        for ours, theirs in zip(gradients(trainer, loss), gradients(trainer, expected), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert backend.frame_count == 1


def losses_of_two_epochs(trainer):
    """Train without augmenting anew; every step lacks something else, and the weights grow."""
    trainer.num_epochs = 2
    trainer.on_train_start()
    batches = [next(trainer.dataloader_train), next(trainer.dataloader_val)]
    losses = []
    for _ in range(trainer.num_epochs):
        trainer.on_train_epoch_start()
        losses += [float(trainer.train_step(dict(batches[0]))["loss"]) for _ in range(3)]
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            losses += [float(trainer.validation_step(dict(batches[1]))["loss"]) for _ in range(3)]
        trainer.current_epoch += 1
    return losses


def test_nnunet_compiles_network_and_dice_once_for_training_and_once_for_validation(root, monkeypatch):
    monkeypatch.setattr(D2NetTrainer, "loss_ramps", {"rec": 1.0})
    expected = losses_of_two_epochs(make_tiny_trainer(root))
    compilations, compile_module = defaultdict(CompileCounter), torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda module: compile_module(module, backend=compilations[type(module).__name__])
    )
    trainer = make_tiny_trainer(root)
    monkeypatch.setattr(trainer, "_do_i_compile", lambda: True)  # nnU-Net says no on a CPU
    weights, set_weights = [], D2NetLoss.set_weights

    def note_and_set(objective, new):
        weights.append(new["rec"])
        set_weights(objective, new)

    monkeypatch.setattr(D2NetLoss, "set_weights", note_and_set)
    assert losses_of_two_epochs(trainer) == pytest.approx(expected, abs=1e-4)
    assert type(trainer.network).__name__ == "OptimizedModule"
    assert len(set(weights)) > 4
    assert {name: counter.frame_count for name, counter in compilations.items()} == {
        "D2Net": 2,
        "MemoryEfficientSoftDiceLoss": 2,
    }
    trainer.set_deep_supervision_enabled(False)  # as for the final validation
    with torch.no_grad():
        assert isinstance(trainer.network(torch.randn(2, 4, *PATCH)), torch.Tensor)
    assert compilations["D2Net"].frame_count == 3
