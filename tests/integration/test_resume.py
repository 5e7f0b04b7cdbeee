"""A training that was interrupted, killed or out of disk space goes on as if nothing had happened."""

import errno
import os
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import UNFINISHED
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.integration.tiny_training import make_tiny_trainer, ready_to_step

pytestmark = pytest.mark.slow

N_EPOCHS = 4
LATEST, BEST, FINAL = (f"checkpoint_{name}.pth" for name in ("latest", "best", "final"))


@pytest.fixture(autouse=True)
def results(regions_data, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    return tmp_path


@pytest.fixture
def repeatable(monkeypatch):
    """The blur of nnU-Net's augmentation takes the faster of two ways, whose last bits differ; here it takes one."""
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda *_: None)  # which takes longer than all the rest
    construct = GaussianBlurTransform.__init__
    monkeypatch.setattr(
        GaussianBlurTransform, "__init__", lambda *args, **kwargs: construct(*args, **{**kwargs, "benchmark": False})
    )


def train(root, trainer_class, monkeypatch, *, seed, until=N_EPOCHS):
    """Train from what the results hold up to an epoch; return the trainer."""

    def stop_in_time(trainer):
        end_epoch(trainer)
        if trainer.current_epoch == until < N_EPOCHS:
            raise KeyboardInterrupt

    end_epoch = trainer_class.on_epoch_end
    trainer = make_tiny_trainer(root, trainer_class, seed=seed)
    trainer.num_epochs = N_EPOCHS
    maybe_load_checkpoint(trainer, continue_training=until == N_EPOCHS, validation_only=False)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_class, "on_epoch_end", stop_in_time)
        if until < N_EPOCHS:
            with pytest.raises(KeyboardInterrupt):
                trainer.run_training()
        else:
            trainer.run_training()
    return trainer


def curves(trainer):
    """Everything that was logged but the time."""
    logged = trainer.logger.local_logger.my_fantastic_logging
    return {key: np.array(values) for key, values in logged.items() if "timestamps" not in key}


@pytest.mark.parametrize("trainer_class", [D2NetTrainer, nnUNetTrainerModalityDropout])
def test_two_and_two_epochs_are_four(root, trainer_class, results, repeatable, monkeypatch):
    straight = train(root, trainer_class, monkeypatch, seed=1)
    best = read_checkpoint(Path(straight.output_folder) / BEST)
    for path in results.rglob("checkpoint_*"):
        path.unlink()
    train(root, trainer_class, monkeypatch, seed=1, until=2)
    resumed = train(root, trainer_class, monkeypatch, seed=2)
    assert len(curves(straight)["train_losses"]) == N_EPOCHS
    for key, values in curves(straight).items():
        np.testing.assert_array_equal(curves(resumed)[key], values, err_msg=key)
    for name, value in straight.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    again = read_checkpoint(Path(resumed.output_folder) / BEST)
    assert again["current_epoch"] == best["current_epoch"]
    assert all(torch.equal(again["network_weights"][name], value) for name, value in best["network_weights"].items())


@pytest.fixture
def saved(root, results):
    """A trainer and the checkpoint that it has written; its next one would differ."""
    trainer = make_tiny_trainer(root)
    trainer.initialize()
    checkpoint = Path(trainer.output_folder) / LATEST
    trainer.save_checkpoint(str(checkpoint))
    trainer.current_epoch += 1
    return trainer, checkpoint


def assert_kept(saved):
    """The first checkpoint is there, whole, and what nnU-Net goes on from."""
    trainer, checkpoint = saved
    assert read_checkpoint(checkpoint)["current_epoch"] == 1
    assert [path.name for path in checkpoint.parent.glob("*.pth")] == [LATEST]
    trainer.current_epoch = 7
    maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)
    assert trainer.current_epoch == 1


def in_a_fork(work):
    """Start a process that does the work and reports what it returns; return its number and the end of the pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writing, "w") as pipe:
            try:
                pipe.write(work(pipe) or "")
            except BaseException as error:
                pipe.write(f"{type(error).__name__}: {error}")
        os._exit(0)
    os.close(writing)
    return child, os.fdopen(reading)


def test_a_process_killed_while_it_saves_leaves_the_checkpoint_before(saved, monkeypatch):
    trainer, checkpoint = saved
    whole = checkpoint.read_bytes()

    def save_until_killed(pipe):
        def save(content, filename):
            Path(filename).write_bytes(whole[: len(whole) // 2])
            pipe.write("half")
            pipe.flush()
            signal.pause()

        monkeypatch.setattr(torch, "save", save)
        trainer.save_checkpoint(str(checkpoint))

    child, pipe = in_a_fork(save_until_killed)
    assert pipe.read(4) == "half"
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (half,) = (checkpoint.parent / UNFINISHED).rglob(LATEST)
    assert half.stat().st_size == len(whole) // 2
    assert_kept(saved)
    trainer.save_checkpoint(str(checkpoint))
    assert [path.name for path in checkpoint.parent.rglob("checkpoint*")] == [LATEST]
    assert not (checkpoint.parent / UNFINISHED).exists()


def test_a_full_disk_leaves_the_checkpoint_before(saved, monkeypatch):
    trainer, checkpoint = saved

    def save(content, filename):
        Path(filename).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), filename)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(UserError, match=f"{LATEST} cannot be written .No space left on device.: free space"):
            trainer.save_checkpoint(str(checkpoint))
    assert [path.name for path in checkpoint.parent.glob("checkpoint*")] == [LATEST]
    assert_kept(saved)


def test_torch_running_out_of_space_leaves_the_checkpoint_before(saved):
    trainer, checkpoint = saved

    def save(_pipe):
        resource.setrlimit(resource.RLIMIT_FSIZE, (checkpoint.stat().st_size // 2,) * 2)
        trainer.save_checkpoint(str(checkpoint))

    child, pipe = in_a_fork(save)
    assert pipe.read().startswith(f"UserError: {checkpoint} cannot be written (")
    assert os.waitpid(child, 0)[1] == 0
    assert [path.name for path in checkpoint.parent.glob("checkpoint*")] == [LATEST]
    assert_kept(saved)


def test_nothing_is_written_where_checkpoints_are_disabled(saved):
    trainer, checkpoint = saved
    Path(f"{checkpoint}.unfinished").write_bytes(b"half")  # of a process that was killed
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(checkpoint))
    assert_kept(saved)


@pytest.mark.parametrize("size", [0, 1000])
def test_a_checkpoint_that_is_cut_short_is_named(saved, size):
    trainer, checkpoint = saved
    os.truncate(checkpoint, size)
    with pytest.raises(UserError, match=f"{LATEST} is cut short or damaged: .*or remove it, and --c"):
        trainer.load_checkpoint(str(checkpoint))


def test_the_best_pseudo_dice_is_that_of_all_epochs(saved):
    """nnU-Net writes the latest checkpoint first and compares then."""
    trainer, checkpoint = saved
    trainer.logger.local_logger.my_fantastic_logging["ema_fg_dice"] = [0.1, 0.3, 0.2]
    trainer._best_ema = 0.1
    trainer.save_checkpoint(str(checkpoint))
    trainer.load_checkpoint(str(checkpoint))
    assert trainer._best_ema == 0.3


def draw(trainer):
    """One number of each generator."""
    drawn = random.random(), random.gauss(0, 1), np.random.random(), np.random.normal(), torch.rand(1).item()
    return *drawn, torch.rand(1, generator=trainer.subset_generator).item()


def test_every_generator_goes_on_where_it_was(root, saved):
    trainer, checkpoint = saved
    random.gauss(0, 1), np.random.normal()  # both keep a second number for the next call
    trainer.save_checkpoint(str(checkpoint))
    expected = draw(trainer)
    later = make_tiny_trainer(root, seed=1)
    later.load_checkpoint(str(checkpoint))
    later.on_train_start()
    assert draw(later) == expected
    assert len(set(draw(later)) & set(expected)) == 0


def test_checkpoints_interchange_with_nnunets_own_trainer(root, results):
    ours, stock = make_tiny_trainer(root, nnUNetTrainerModalityDropout), make_tiny_trainer(root, nnUNetTrainer, seed=1)
    for writer, reader in ((ours, stock), (stock, ours)):
        ready_to_step(writer)
        writer.train_step(next(writer.dataloader_train))
        writer.current_epoch += 5
        writer.save_checkpoint(str(results / "checkpoint.pth"))
        reader.load_checkpoint(str(results / "checkpoint.pth"))
        assert reader.current_epoch == writer.current_epoch + 1
        states = [trainer.optimizer.state_dict()["state"] for trainer in (writer, reader)]
        assert all(torch.equal(states[0][i]["momentum_buffer"], states[1][i]["momentum_buffer"]) for i in states[0])
