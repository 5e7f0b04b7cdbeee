"""Two hundred steps in half precision, and what is hard for it: one modality, air, codes that say nothing.

nnU-Net's own step uses half precision on CUDA alone. On a CPU the same step gets here the autocast and the gradient
scaler that it has there.
"""

import math
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.integration.tiny_training import make_tiny_trainer, ready_to_step

pytestmark = pytest.mark.slow

N_STEPS = 200
SETTLED = 40  # until here the scaler may look for its scale
N_BATCHES = 10
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=HALVES)
def half(request):
    return HALVES[request.param]


@pytest.fixture(params=DEVICES)
def trainer(request, half, root, regions_data, tmp_path, monkeypatch):
    """A trainer whose step runs under autocast; in float16 with a scaler."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    device = request.param
    trainer = ready_to_step(make_tiny_trainer(root, device=device))
    monkeypatch.setattr(trainer, "autocast", lambda: torch.autocast(device, half))
    trainer.grad_scaler = torch.amp.GradScaler(device) if half == torch.float16 else None
    return trainer


def scale_of(trainer) -> float:
    return 1.0 if trainer.grad_scaler is None else trainer.grad_scaler.get_scale()


def test_two_hundred_steps(trainer, half):
    batches = [next(trainer.dataloader_train) for _ in range(N_BATCHES)]
    losses, scales = [], [scale_of(trainer)]
    dtypes = set()
    trainer.bare_network.encoder.register_forward_hook(lambda _m, _i, skips: dtypes.add(skips[-1].dtype))
    for step in range(N_STEPS):
        losses.append(float(trainer.train_step(batches[step % N_BATCHES])["loss"]))
        scales.append(scale_of(trainer))
    skipped = [after < before for before, after in pairwise(scales)]
    assert dtypes == {half}
    assert all(map(math.isfinite, losses))
    assert sum(skipped) <= 16  # 2^16 halved until it is 1
    assert sum(skipped[SETTLED:]) <= 3
    assert all(value.isfinite().all() for value in trainer.bare_network.state_dict().values())
    assert trainer.term_sums.isfinite().all()
    assert sum(losses[-N_BATCHES:]) < sum(losses[:N_BATCHES]) - 0.3 * N_BATCHES


class DtypesOfOperations(TorchDispatchMode):
    """Collects the operations that compute floating point numbers, by dtype, below autocast."""

    def __init__(self):
        super().__init__()
        self.operations = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        for value in [] if is_view else tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.operations.setdefault(value.dtype, set()).add(str(func))
        return result


def test_every_loss_computes_in_float32(trainer, half):
    batch = next(trainer.dataloader_train)
    images, target = batch["data"].to(trainer.device), [t.to(trainer.device) for t in batch["target"]]
    available = torch.tensor([[True, False, True, True], [True, True, False, False]], device=trainer.device)
    device = trainer.device.type
    with torch.autocast(device, half):
        with DtypesOfOperations() as network:
            outputs = trainer.bare_network(images, available)
        with DtypesOfOperations() as losses:
            terms = trainer.loss.terms(outputs, target, images, torch.ones_like(available))
    assert "aten.convolution.default" in network.operations[half]
    assert {level.dtype for level in (*outputs.student_logits, *outputs.teacher_features)} == {half}
    assert {"aten.bmm.default", "aten.logsumexp.default"} <= losses.operations[torch.float32]
    assert set(losses.operations) <= {torch.float32}, losses.operations.get(half)
    assert {term.dtype for term in terms.values()} == {torch.float32}


def one_modality(images, present):
    present[:] = torch.eye(4, dtype=torch.bool)[: len(present)]


def one_case_in_air(images, present):
    images[0] = 0


def only_air(images, present):
    images.zero_()


def air_and_one_modality(images, present):
    images.zero_()
    present[:, 1:] = False


@pytest.mark.parametrize("zero_codes", [False, True])
@pytest.mark.parametrize("make_hard", [one_modality, one_case_in_air, only_air, air_and_one_modality])
def test_gradients_of_hard_batches_are_finite(trainer, make_hard, zero_codes, monkeypatch):
    batch = next(trainer.dataloader_train)
    present = torch.ones(batch["data"].shape[:2], dtype=torch.bool)
    make_hard(batch["data"], present)
    if zero_codes:
        torch.nn.init.zeros_(trainer.bare_network.modality_encoder.linear.weight)
        torch.nn.init.zeros_(trainer.bare_network.absent_codes.embedding)
    if trainer.grad_scaler is not None:
        trainer.grad_scaler = torch.amp.GradScaler(trainer.device.type, init_scale=2.0**12)
    monkeypatch.setattr(trainer, "present_modalities", lambda _: present)
    monkeypatch.setattr(type(trainer), "p_complete", 1.0)
    assert math.isfinite(trainer.train_step(batch)["loss"])
    assert trainer.loss.last_terms.isfinite().all()
    gradients = {name: parameter.grad for name, parameter in trainer.bare_network.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
    assert any(gradient.any() for gradient in gradients.values())
