"""The script that takes parts of D2-Net out of trained students."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_d2net.plugin.training.diagnostics import logit_changes
from nnunetv2_d2net.plugin.training.variants import find_trainer

SCRIPT = Path(__file__).resolve().parents[4] / "benchmarks" / "shut_parts.py"


@pytest.fixture
def model(tmp_path, trainer_of):
    """A model folder of a companion whose student is a D2-Net with parts that are open, and its trainer."""
    trainer = trainer_of(find_trainer("D2NetTrainerCompanion"), n_stages=3)
    trainer.print_to_log_file = lambda *_, **__: None
    trainer.initialize()
    for name, weights in trainer.network.state_dict().items():
        if "bottleneck_gate" in name or "availability_modulation" in name:
            weights.uniform_(0.5, 1)
    (tmp_path / "model" / "fold_0").mkdir(parents=True)
    checkpoint = {"network_weights": trainer.network.state_dict(), "trainer_name": "T", "init_args": {}}
    torch.save(checkpoint, tmp_path / "model" / "fold_0" / "checkpoint_final.pth")
    return tmp_path / "model", trainer


def shut(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize("parts", [["gate"], ["modulation"], ["gate", "modulation"]])
def test_only_the_parts_named_are_shut_and_only_in_the_copy(parts, model, monkeypatch, capsys):
    folder, trainer = model
    before = (folder / "fold_0" / "checkpoint_final.pth").read_bytes()
    copy = folder.with_name("copy")
    shut(monkeypatch, folder, copy, "--parts", *parts)
    assert (folder / "fold_0" / "checkpoint_final.pth").read_bytes() == before
    written = torch.load(copy / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    names = {"gate": "bottleneck_gate", "modulation": "availability_modulation"}
    zero = {name for name, weights in trainer.network.state_dict().items() if any(names[p] in name for p in parts)}
    changed = {n for n, weights in trainer.network.state_dict().items() if not torch.equal(weights, written[n])}
    assert changed == zero
    assert not any(written[name].any() for name in zero)
    assert all(name in capsys.readouterr().out for name in list(zero)[:1])
    trainer.network.load_state_dict(written)
    student = trainer.companion.student.eval()
    images, available = torch.randn(2, 3, 8, 8, 8), torch.tensor([[1, 0, 0], [1, 1, 0]]).bool()
    assert (logit_changes(student, images, available)["gate_shut"] == 0) == ("gate" in parts)


def test_a_student_without_the_part_and_a_copy_that_is_there_are_refused(model, monkeypatch):
    folder, _ = model
    with pytest.raises(FileExistsError):
        shut(monkeypatch, folder, folder)
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {"a": torch.ones(1)}, "trainer_name": "T", "init_args": {}}, path)
    with pytest.raises(SystemExit, match="lacks one of gate: name a companion with D2-Net"):
        shut(monkeypatch, folder, folder.with_name("copy"), "--parts", "gate")
