import pytest
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.prediction.export import export_model


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "Dataset007_Tiny" / "D2NetTrainer__D2NetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    for name in ("dataset.json", "plans.json"):
        (folder / name).write_text("{}")
    weights = {"encoder.w": torch.zeros(3), "teacher.w": torch.zeros(5)}
    content = {"network_weights": weights, "trainer_name": "D2NetTrainer", "init_args": {"configuration": "3d_fullres"}}
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return folder


@pytest.mark.parametrize("name", ["new", "new.zip"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos\nwriting file data/0"), "writing"),
    ],
)
def test_a_full_disk_leaves_nothing(model, tmp_path, monkeypatch, name, error, reason):
    def full(*_):
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=f"{name} cannot be written .*{reason}.*pass another -o") as raised:
        export_model(model, tmp_path / "out" / name)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "out").iterdir())


def test_only_what_prediction_needs_is_written(model, tmp_path):
    (size,) = export_model(model, tmp_path / "out")
    written = tmp_path / "out" / model.parent.name / model.name / size.name
    assert list(torch.load(written, weights_only=True)["network_weights"]) == ["encoder.w"]
    assert (size.name, size.after) == ("fold_0/checkpoint_final.pth", written.stat().st_size)
