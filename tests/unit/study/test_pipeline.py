import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.training.pretrained import pretrained_weights
from nnunetv2_d2net.study import pipeline
from nnunetv2_d2net.study.pipeline import (
    Model,
    is_whole,
    passing_trainer,
    plan_and_preprocess,
    predict_subsets,
    train_fold,
)

CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path):
    return Model(tmp_path / "Dataset007_Paper", "Some", "D2NetPlans", "2d")


class Trainer:
    """Saves once, as nnU-Net's own do: straight over the checkpoint before."""

    save_every, num_epochs = 50, 100

    def __init__(self, folder: Path, *, fails: bool = False) -> None:
        self.folder, self.fails = folder, fails

    def save_checkpoint(self, filename):
        with zipfile.ZipFile(filename, "w") as archive:
            archive.writestr("weights", "new")
            if self.fails:
                raise OSError(28, "No space left on device")

    def run_training(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.save_checkpoint(str(self.folder / "checkpoint_final.pth"))


@pytest.fixture
def training(model, monkeypatch):
    """What a training was started with."""
    seen = SimpleNamespace(resume=None, trainer=Trainer(model.checkpoint("0").parent))
    monkeypatch.setattr(pipeline, "maybe_load_checkpoint", lambda *_, **__: None)

    def make(*_, resume):
        seen.resume = resume
        return seen.trainer

    monkeypatch.setattr(pipeline, "make_trainer", make)
    return seen


def write(path, *, whole=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights", "old")
    if not whole:
        path.write_bytes(path.read_bytes()[:-8])


def test_a_training_goes_on_from_what_is_whole(model, training, caplog):
    latest, best = (model.checkpoint("0").with_name(f"checkpoint_{name}.pth") for name in ("latest", "best"))
    write(latest, whole=False)
    train_fold(model, "0", CPU)
    assert training.resume is False
    assert not latest.exists()
    assert f"{latest} was cut short and is removed" in caplog.text
    assert is_whole(model.checkpoint("0"))
    write(best)
    train_fold(model, "0", CPU)
    assert training.resume is True
    assert training.trainer.save_every == 5


def test_a_training_starts_from_a_checkpoint_and_does_not_when_it_goes_on(model, training, tmp_path, monkeypatch):
    seen, start = [], tmp_path / "start.pth"
    run = training.trainer.run_training
    monkeypatch.setattr(training.trainer, "run_training", lambda: (seen.append(pretrained_weights()), run()))
    for _ in range(2):
        train_fold(model, "0", CPU, start=start)
    assert seen == [start, None]
    assert pretrained_weights() is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(model, training):
    write(model.checkpoint("0"))
    before = model.checkpoint("0").read_bytes()
    training.trainer.fails = True
    seen = []
    with pytest.raises(UserError, match=r"checkpoint_final\.pth cannot be written \(No space left on device\)"):
        train_fold(model, "0", CPU, seen.append)
    assert seen == [training.trainer]
    assert model.checkpoint("0").read_bytes() == before
    assert [path.name for path in model.checkpoint("0").parent.iterdir()] == ["checkpoint_final.pth"]


def test_a_fold_is_trained_by_one_process_at_a_time(model, training):
    folder = model.checkpoint("0").parent
    with locked_folder(folder), pytest.raises(UserError, match=r"another process holds .*fold_0.*: wait for it"):
        train_fold(model, "0", CPU)
    assert training.resume is None
    train_fold(model, "0", CPU)


def test_a_passing_trainer_writes_where_nobody_keeps_it(model, monkeypatch):
    monkeypatch.setenv("nnUNet_results", "mine")
    monkeypatch.delenv("nnUNet_wandb_enabled", raising=False)
    monkeypatch.setattr(pipeline, "make_trainer", lambda *_: Path(os.environ["nnUNet_results"]))
    with passing_trainer(model, "0", CPU) as folder:
        assert folder.is_dir()
        assert os.environ["nnUNet_wandb_enabled"] == "0"
    assert not folder.exists()
    assert os.environ["nnUNet_results"] == "mine"
    assert "nnUNet_wandb_enabled" not in os.environ


def test_an_unknown_planner_is_refused_before_anything_is_read():
    with pytest.raises(UserError, match="no planner is called Nobody"):
        plan_and_preprocess(7, "Nobody", "2d", processes=1)


def test_a_fingerprint_that_was_cut_short_is_made_anew(tmp_path, monkeypatch):
    folder = tmp_path / "Dataset007_Paper"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    monkeypatch.setattr(pipeline, "convert_id_to_dataset_name", lambda _: folder.name)
    seen = []
    monkeypatch.setattr(pipeline.planning, "extract_fingerprint_dataset", lambda *_, **__: seen.append(path.exists()))
    monkeypatch.setattr(pipeline.planning, "plan_experiments", lambda *_: "Plans")
    monkeypatch.setattr(pipeline.planning, "preprocess_dataset", lambda *words, **_: seen.append(words))
    path = folder / "dataset_fingerprint.json"
    for content in ('{"spacings": [', '{"spacings": []}'):
        path.write_text(content, encoding="utf-8")
        plan_and_preprocess(7, "D2NetPlanner", "2d", processes=3)
    assert seen == [False, (7, "Plans", ("2d",), (3,)), True, (7, "Plans", ("2d",), (3,))]


@pytest.mark.parametrize("as_zero", [True, False])
def test_what_is_done_with_nan_outside_reaches_the_predictor(model, monkeypatch, as_zero):
    seen = []

    class Predictor(AllSubsetsPredictor):
        def initialize_from_trained_model_folder(self, *_):
            pass

        def predict_from_files(self, *_, **__):
            seen.append(self.nan_outside_as_zero)

    monkeypatch.setattr(pipeline, "AllSubsetsPredictor", Predictor)
    predict_subsets(model, ["0"], "in", Path("out"), CPU, nan_outside_as_zero=as_zero)
    assert seen == [as_zero]
