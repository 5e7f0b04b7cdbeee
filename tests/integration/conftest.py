"""nnU-Net's and our commands in this process, on tiny data sets and with epochs of a few steps."""

import hashlib
import json
import multiprocessing
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities import utils

from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.registration import trainers_folder
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.conftest import (
    ANISOTROPIC_3D,
    LABELS_2D,
    REGIONS_3D,
    RawDataset,
    nnunet_environment,
    write_raw_dataset,
)

N_TRAIN_STEPS = 2
N_VALIDATION_STEPS = 3

USERS_TRAINER = """
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer


class UsersTrainer(D2NetTrainer):
    p_complete = 0.25
"""


@dataclass(frozen=True)
class Model:
    """A trained model and how it came about."""

    spec: RawDataset
    configuration: str
    plans: str
    trainer: str
    root: Path
    trainers: str = str(trainers_folder())  # for nnUNet_extTrainer

    @property
    def folder(self) -> Path:
        results = self.root / "results" / self.spec.folder_name
        return results / f"{self.trainer}__{self.plans}__{self.configuration}"

    @property
    def fold(self) -> Path:
        return self.folder / "fold_0"

    @property
    def raw(self) -> Path:
        return self.root / "raw" / self.spec.folder_name

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / self.spec.folder_name

    @property
    def train_words(self) -> list[str]:
        words = [str(self.spec.dataset_id), self.configuration, "0", "-tr", self.trainer, "-device", "cpu"]
        return words if self.plans == "nnUNetPlans" else [*words, "-p", self.plans]

    def predict_words(self, images: Path, output: Path) -> list[str]:
        given = ["-i", str(images), "-o", str(output), "-d", str(self.spec.dataset_id), "-c", self.configuration]
        given += ["-f", "0", "-tr", self.trainer, "-p", self.plans, "-device", "cpu"]
        return [*given, "--disable_tta", "--save_probabilities", "-npp", "0", "-nps", "0"]


def nnunet(entry_point, *words) -> None:
    """Call one of nnU-Net's commands, as a shell would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nnUNetv2", *map(str, words)])
        entry_point()


def d2net(*words) -> int:
    """Call ours."""
    return main([str(word) for word in words])


def file_states(folder: Path) -> dict[str, tuple[str, int]]:
    """Tell what every file below a folder holds and when it was written."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class _ThreadsForProcesses:
    """nnU-Net's pools import everything anew in every process, which takes longer than all that they do here."""

    Pool = staticmethod(ThreadPool)

    def __init__(self, context):
        self._context = context

    def __getattr__(self, name):
        return getattr(self._context, name)


@contextmanager
def tiny_nnunet(root: Path):
    """Set nnU-Net's variables, let its pools be threads, its samples small and its epochs last a few steps."""
    context_of, start = multiprocessing.get_context, nnUNetTrainer.on_train_start
    construct = DatasetFingerprintExtractor.__init__

    def init_extractor(extractor, *args, **kwargs):
        construct(extractor, *args, **kwargs)
        extractor.num_foreground_voxels_for_intensitystats = 10_000  # not 10^8, however small the images are

    def on_train_start(trainer):
        start(trainer)
        trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = N_TRAIN_STEPS, N_VALIDATION_STEPS
        trainer.save_every = 1

    n_threads = torch.get_num_threads()
    with nnunet_environment(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_extTrainer", str(trainers_folder()))
        patch.setenv("nnUNet_n_proc_DA", "0")  # augment in this process
        patch.setattr(multiprocessing, "get_context", lambda method=None: _ThreadsForProcesses(context_of(method)))
        patch.setattr(utils, "Pool", ThreadPool)
        patch.setattr(multiprocessing, "cpu_count", lambda: 1)  # as many threads as nnU-Net gives torch
        patch.setattr(nnUNetTrainer, "on_train_start", on_train_start)
        patch.setattr(nnUNetTrainerModalityDropoutImputed, "n_guess_steps", 3)
        patch.setattr(DatasetFingerprintExtractor, "__init__", init_extractor)
        yield root
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("nnunet")


@pytest.fixture(scope="module", autouse=True)
def _tiny_nnunet(root):
    with tiny_nnunet(root):
        yield


def plan(call, spec: RawDataset, *words) -> None:
    """Plan, and preprocess unless the words say otherwise; nnU-Net's planner needs to hear of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_n_proc_DA", "1")
        call("-d", spec.dataset_id, "-npfp", 1, "--no_pbar", *words)


def plan_stock(spec: RawDataset, *words) -> None:
    plan(lambda *given: nnunet(plan_and_preprocess_entry, *given), spec, *words)


def plan_d2net(spec: RawDataset, *words) -> None:
    def call(*given):
        assert d2net("plan_and_preprocess", *given) == 0

    plan(call, spec, *words)


def interrupted_after_first_epoch(call) -> None:
    """Train, but press Ctrl-C once the first epoch is over."""
    end = D2NetTrainer.on_epoch_end

    def on_epoch_end(trainer):
        end(trainer)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(D2NetTrainer, "on_epoch_end", on_epoch_end)
        with pytest.raises(KeyboardInterrupt):
            call()


def train_with_interruption(model: Model, train) -> Model:
    """Train one of two epochs, stop, and go on with --c up to the validation on whole cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(D2NetTrainer, "n_epochs", 2)
        interrupted_after_first_epoch(lambda: train(*model.train_words))
        assert not (model.fold / "checkpoint_final.pth").exists()
        train(*model.train_words, "--c", "--npz")
    return model


def train_stock(*words) -> None:
    nnunet(run_training_entry, *words)


def train_d2net(*words) -> None:
    status = d2net("train", *words)
    if status == 130:  # what it tells a shell
        raise KeyboardInterrupt
    assert status == 0


def read_plans(root, spec, name):
    return json.loads((root / "preprocessed" / spec.folder_name / f"{name}.json").read_text(encoding="utf-8"))


def make_trainer(root, spec, plans_name, configuration="3d_fullres", *, trainer=D2NetTrainer, fold=0, **changes):
    """Construct a trainer as nnU-Net does, on plans with some settings of the configuration changed."""
    plans = read_plans(root, spec, plans_name)
    plans["configurations"][configuration].update(changes)
    plans["continue_training"] = False
    dataset_json = json.loads((root / "preprocessed" / spec.folder_name / "dataset.json").read_text(encoding="utf-8"))
    return trainer(plans, configuration, fold, dataset_json, torch.device("cpu"))


@dataclass(frozen=True)
class StockData:
    """Stock nnU-Net's plans and preprocessed data, as they were before D2-Net's planning and after."""

    before: dict
    after: dict


@pytest.fixture(scope="session")
def regions_data(root) -> StockData:
    """REGIONS_3D, planned and preprocessed by stock nnU-Net and then by D2NetPlanner beside it."""
    folder = root / "preprocessed" / REGIONS_3D.folder_name
    with tiny_nnunet(root):
        write_raw_dataset(root / "raw", REGIONS_3D)
        plan_stock(REGIONS_3D, "-c", "3d_fullres", "-np", 1)
        before = file_states(folder)
        plan_d2net(REGIONS_3D, "-c", "3d_fullres", "-np", 1)
    return StockData(before, file_states(folder))


@pytest.fixture(scope="session")
def regions_model(root, regions_data) -> Model:
    """Plain nnUNetv2_train -tr D2NetTrainer on stock nnU-Net's plans and data."""
    with tiny_nnunet(root):
        model = Model(REGIONS_3D, "3d_fullres", "nnUNetPlans", "D2NetTrainer", root)
        return train_with_interruption(model, train_stock)


@pytest.fixture(scope="session")
def labels_model(root, tmp_path_factory) -> Model:
    """Our commands with a trainer that the user has derived from ours."""
    users = tmp_path_factory.mktemp("trainers")
    (users / "users_trainer.py").write_text(USERS_TRAINER, encoding="utf-8")
    with tiny_nnunet(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_extTrainer", str(users))
        write_raw_dataset(root / "raw", LABELS_2D)
        plan_d2net(LABELS_2D, "-c", "2d", "-np", 1)
        model = Model(LABELS_2D, "2d", "D2NetPlans", "UsersTrainer", root, str(users))
        return train_with_interruption(model, train_d2net)


@pytest.fixture(scope="session")
def anisotropic_model(root) -> Model:
    """Our commands and nothing else."""
    with tiny_nnunet(root):
        write_raw_dataset(root / "raw", ANISOTROPIC_3D)
        plan_d2net(ANISOTROPIC_3D, "-c", "3d_fullres", "-np", 1)
        model = Model(ANISOTROPIC_3D, "3d_fullres", "D2NetPlans", "D2NetTrainer", root)
        return train_with_interruption(model, train_d2net)
