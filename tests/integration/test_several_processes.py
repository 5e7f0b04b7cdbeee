"""d2net train in several processes: two that stand for two machines, started by torchrun, and those of nnU-Net."""

import json
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli._process_group import errors_of_processes, process_group
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from tests.conftest import REGIONS_3D
from tests.integration.conftest import interrupted_after_first_epoch, read_plans, train_d2net
from tests.integration.test_companion_trainer import save_stock
from tests.integration.tiny_training import make_tiny_trainer, tiny_settings

pytestmark = pytest.mark.slow

NAME = "D2NetTrainerOfTwoNodes"
N_STEPS = 6
TRAINER = f'''
import json
import multiprocessing
from multiprocessing.pool import ThreadPool
from pathlib import Path

from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.repeating import nnUNetTrainerModalityDropoutConditionedRepeated
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer


class ThreadsForProcesses:
    Pool = staticmethod(ThreadPool)


class Noting:
    """Two epochs of a few steps; every process notes what it has drawn and what became of its weights."""

    n_epochs = 2
    p_complete = 0.0
    drawn = ()

    def on_train_start(self):
        super().on_train_start()
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch, self.save_every = {N_STEPS}, 1, 1

    def step_on(self, batch, present, available):
        self.drawn += (available.tolist(),)
        return super().step_on(batch, present, available)

    def on_train_end(self):
        super().on_train_end()
        total = sum(parameter.double().sum().item() for parameter in self.network.parameters())
        note = dict(drawn=self.drawn, total=total, batch=self.batch_size)
        note["loss"] = self.logger.get_value("train_losses", step=-1)
        note["dice over all"] = getattr(self.loss, "segmentation_loss", self.loss).loss.dc.ddp
        path = Path(self.output_folder) / "rank_{{}}.json".format(self.local_rank)
        path.write_text(json.dumps(note, default=float))

    def perform_actual_validation(self, save_probabilities=False):
        multiprocessing.get_context = lambda _=None: ThreadsForProcesses  # processes would import everything anew
        super().perform_actual_validation(save_probabilities)


class {NAME}(Noting, D2NetTrainer):
    """D2-Net."""


class {NAME}Companion(CompanionTrainer, {NAME}):
    """It starts from what --start_from names."""


class {NAME}RepeatedCompanion(CompanionTrainer, Noting, nnUNetTrainerModalityDropoutConditionedRepeated):
    """The processes learn to guess together first, and a step is two passes."""

    n_guess_steps = 3
'''


@pytest.fixture
def words(root, regions_data, tmp_path, monkeypatch):
    """What to train: tiny plans, with a trainer of the user's."""
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    (trainers / "of_two_nodes.py").write_text(TRAINER, encoding="utf-8")
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    plans = read_plans(root, REGIONS_3D, "D2NetPlans") | {"plans_name": "D2NetTinyPlans"}
    plans["configurations"]["3d_fullres"].update(tiny_settings(plans))
    path = root / "preprocessed" / REGIONS_3D.folder_name / "D2NetTinyPlans.json"
    path.write_text(json.dumps(plans), encoding="utf-8")
    yield [str(REGIONS_3D.dataset_id), "3d_fullres", "0", "-tr", NAME, "-p", "D2NetTinyPlans", "-device", "cpu"]
    path.unlink()


@pytest.fixture
def fold(tmp_path) -> Path:
    return tmp_path / "results" / REGIONS_3D.folder_name / f"{NAME}__D2NetTinyPlans__3d_fullres" / "fold_0"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def run_on_two_nodes(words) -> list[str]:
    """Call torchrun as on two machines with a process each; return what each printed, once both are done."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    command = ["-m", "nnunetv2_d2net.cli", "train", *words]
    nodes = [
        subprocess.Popen(
            [*launch, "--node-rank", str(rank), *command],
            env={**os.environ, "MPLBACKEND": "agg"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for rank in range(2)
    ]
    try:
        printed = [node.communicate(timeout=300)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(printed)
    return printed


def test_two_nodes_go_on_from_one_process_and_one_process_from_two_nodes(words, fold):
    interrupted_after_first_epoch(lambda: train_d2net(*words))
    assert len(read_checkpoint(fold / "checkpoint_latest.pth")["optimizer_state"]["random_states"]) == 1
    run_on_two_nodes([*words, "--c"])
    first, second = (json.loads((fold / f"rank_{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    assert first["total"] == second["total"]
    assert first["loss"] == second["loss"]
    assert first["drawn"] != second["drawn"]
    assert first["batch"] == second["batch"] == 1
    assert first["dice over all"] is second["dice over all"] is True
    # of the second epoch, one for the shares of the gradient before it, and one of validation
    assert len(first["drawn"]) == len(second["drawn"]) == 1 + N_STEPS + 1
    assert (fold / "validation" / "summary.json").is_file()

    assert len(read_checkpoint(fold / "checkpoint_final.pth")["optimizer_state"]["random_states"]) == 2
    alone = get_trainer_from_args(words[0], "3d_fullres", 0, NAME, words[6], device=torch.device("cpu"))
    maybe_load_checkpoint(alone, continue_training=True, validation_only=False)
    assert alone.current_epoch == 2
    assert alone.batch_size == 2
    assert sum(p.double().sum().item() for p in alone.network.parameters()) == pytest.approx(first["total"], rel=1e-12)
    alone.on_train_start()
    alone.on_train_epoch_start()
    assert math.isfinite(alone.train_step(next(alone.dataloader_train))["loss"])


@pytest.mark.parametrize("student", [NAME, f"{NAME}Repeated"])
def test_companion_on_two_nodes(words, root, fold, student):
    stock, _ = save_stock(make_tiny_trainer(root))
    words[words.index(NAME)] = student
    run_on_two_nodes([*words, "--start_from", str(stock)])
    fold = fold.parents[1] / f"{student}Companion__D2NetTinyPlans__3d_fullres" / "fold_0"
    first, second = (json.loads((fold / f"rank_{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    assert first["total"] == second["total"]
    choice = json.loads((fold / "companion.json").read_text(encoding="utf-8"))
    assert len(choice["cases"]) == 1  # of one process; the other one has none
    assert all(0 <= row[name] <= 1 for row in choice["subsets"].values() for name in ("stock", "student"))


def fail(rank, file):
    if rank == 1:
        raise UserError(f"{file} is wrong: mend it")
    time.sleep(60)  # as one that waits for the other


def test_what_a_user_can_mend_in_a_process_of_nnunets_is_one_line(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))  # the processes import this file by its name
    with pytest.raises(UserError, match=r"^the file is wrong: mend it$"), errors_of_processes():
        torch.multiprocessing.spawn(fail, args=("the file",), nprocs=2)


def one_line(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("d2net: error: ")]
    return line


def test_num_gpus_without_gpus(words, capsys):
    assert main(["train", *words, "-num_gpus", "2"]) == 2
    assert "-num_gpus 2 needs CUDA devices, this is cpu" in one_line(capsys)


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["-num_gpus", "2"], "torchrun has started the processes already"),
        (["-device", "mps"], "torchrun trains on cuda or cpu"),
        (["-tr", "nnUNetTrainer"], "nnUNetTrainer takes the number of a process for that of its GPU"),
    ],
)
def test_what_torchrun_cannot_start(words, more, part, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert main(["train", *words, *more]) in (1, 2)
    assert part in one_line(capsys)


def test_more_processes_than_cuda_devices(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    said = "this machine has 1 CUDA device and torchrun starts 2 processes on it: pass it --nproc-per-node 1"
    with pytest.raises(UserError, match=said), process_group("cuda"):
        pass


def test_more_processes_than_cases_in_a_batch(root, regions_data, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    trainer = make_tiny_trainer(root)
    trainer.is_ddp = True
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    with pytest.raises(UserError, match="D2NetPlans has batches of 2 and there are 3 processes: start at most 2"):
        trainer._set_batch_size_and_oversample()
