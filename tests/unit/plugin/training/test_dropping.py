"""What trainers do beside their steps: checks before training, notes, folds and the final validation."""

import json
import signal
from collections import Counter
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.orientation import mixed_line
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.plugin.preprocessing.preprocessor import MissingModalityConfiguration, MissingModalityPlansManager
from nnunetv2_d2net.plugin.training import dropping
from nnunetv2_d2net.plugin.training.dropping import (
    ResumingTrainer,
    nnUNetTrainerModalityDropout,
    nnUNetTrainerModalityDropoutModulated,
)
from nnunetv2_d2net.plugin.training.splits import balanced_splits
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer

FOLDER = Path("preprocessed") / "Dataset007_Tiny" / "tiny"


@pytest.fixture
def started(trainer_of, training_folders, monkeypatch):
    """Start the training of a cohort whose cases lie like this; nnU-Net's own start is left out."""

    def started(lying=("LPS",), *, rank=0, noted="RAI"):
        trainer = trainer_of(nnUNetTrainerModalityDropout)
        trainer.said, trainer.checked = [], []
        trainer.print_to_log_file = trainer.said.append
        if noted:
            trainer.plans_manager.plans[ORIENTATION] = noted
        trainer.local_rank = rank
        monkeypatch.setattr(dropping, "check_preprocessed", lambda *asked: trainer.checked.append(asked))
        monkeypatch.setattr(
            dropping, "orientations_of", lambda folder: Counter(lying) if folder == training_folders / FOLDER else None
        )
        monkeypatch.setattr(dropping, "note_subsets", lambda *noted: trainer.said.append(noted))
        monkeypatch.setattr(ResumingTrainer, "on_train_start", lambda of: of.said.append("nnU-Net starts"))
        trainer.on_train_start()
        return trainer

    return started


# --- before training ---


def test_preprocessed_data_are_checked_before_anything_is_noted(started, training_folders):
    trainer = started()
    remedy = "run d2net preprocess -d 7 -plans_name TinyPlans -c tiny"
    ((*asked, shape_of),) = trainer.checked
    assert asked == [training_folders / FOLDER, ("FLAIR", "T1", "T1ce"), remedy]
    case = {"spacing": [1.0, 2.0, 3.0], "shape_after_cropping_and_before_resampling": (4, 5, 6)}
    assert shape_of(case) == [4, 10, 18]  # at 1 mm
    assert trainer.said == [(Path(trainer.output_folder), {}), "nnU-Net starts"]


def test_one_process_of_several_notes_the_subsets(started):
    assert started(rank=1).said == ["nnU-Net starts"]


@pytest.mark.parametrize(
    ("lying", "noted", "expected"),
    [
        (("LPS", "LPS"), "RAI", "LPS"),
        (("LPS", "LPS"), None, "LPS"),
        (("LPS", "RAS"), "RAI", None),
        (("LPS", ""), None, None),
        (("", ""), "RAI", "RAI"),
    ],
)
def test_the_models_plans_say_how_all_its_cases_lie(started, lying, noted, expected):
    trainer = started(lying, noted=noted)
    assert trainer.plans_manager.plans.get(ORIENTATION) == expected
    assert (mixed_line(Counter(lying)) in trainer.said) == (len(set(lying)) == 2)


def test_a_class_mixed_in_before_ours_that_builds_its_own_network_is_refused(trainer_of):
    class Between(nnUNetTrainer):
        pass

    class Silencing(Between):
        @staticmethod
        def build_network_architecture(*_, **__):
            return nn.Conv3d(3, 3, 1)

    trainer = trainer_of(type("Mine", (Silencing, nnUNetTrainerModalityDropout), {}), n_stages=3)
    words = (
        "^Mine: build_network_architecture is Silencing's, which leaves missing modalities out: name Silencing behind "
        "the trainer of this package among the base classes$"
    )
    with pytest.raises(UserError, match=words):
        trainer.initialize()


def test_a_loss_mixed_in_before_ours_is_refused(trainer_of):
    class CrossEntropy(nnUNetTrainer):
        def _build_loss(self):
            return nn.CrossEntropyLoss()

    with pytest.raises(UserError, match=r"^Mine: _build_loss is CrossEntropy's, which leaves missing modalities out"):
        trainer_of(type("Mine", (CrossEntropy, D2NetTrainer), {})).initialize()


def test_on_cuda_it_computes_in_half_precision_and_elsewhere_as_it_is(trainer_of):
    on_cuda = trainer_of(nnUNetTrainerModalityDropout, device="cuda").autocast()
    assert (type(on_cuda), on_cuda.device, on_cuda.fast_dtype) == (torch.autocast, "cuda", torch.float16)
    assert type(trainer_of(nnUNetTrainerModalityDropout).autocast()) is nullcontext


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_another_trainers_schedule_is_kept_unless_complete_input_comes_first(trainer_of, share):
    class Scheduling(nnUNetTrainer):
        def configure_optimizers(self):
            return torch.optim.SGD(self.network.parameters(), 0.1), "a schedule"

    trainer = trainer_of(type("Mine", (nnUNetTrainerModalityDropout, Scheduling), {"complete_share": share}))
    trainer.initialize()
    assert (trainer.lr_scheduler == "a schedule") == (share == 0)


@pytest.mark.parametrize("continues", [True, False])
def test_how_a_training_begins_and_ends(trainer_of, continues):
    kind = type("Short", (nnUNetTrainerModalityDropout,), {"n_epochs": 7})
    trainer = trainer_of(kind, continues=continues)
    assert (trainer.continues, trainer.num_epochs) == (continues, 7)
    assert trainer_of(nnUNetTrainerModalityDropout).num_epochs == 1000


@pytest.mark.parametrize(("limit", "expected"), [("3", 3), ("0", 5), ("", 5), ("many", 5), ("1", 1)])
def test_as_many_threads_as_asked_for(trainer_of, monkeypatch, limit, expected):
    asked = [5]  # nnU-Net's number, which nnUNetv2_train has set before
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    trainer_of(nnUNetTrainerModalityDropout)
    assert asked[-1] == expected
    asked[1:] = []
    trainer_of(nnUNetTrainerModalityDropout, device="cuda")
    monkeypatch.delenv("OMP_NUM_THREADS")
    trainer_of(nnUNetTrainerModalityDropout)
    assert asked == [5]


@pytest.mark.parametrize("kind", [nnUNetTrainerModalityDropout, nnUNetTrainerModalityDropoutModulated, D2NetTrainer])
def test_networks_have_deep_supervision_as_asked_for(trainer_of, kind):
    trainer = trainer_of(kind)
    shared = (trainer.plans_manager, trainer.configuration_manager, 3, 5)
    for asked, expected in (((), True), ((True,), True), ((False,), False)):
        network = kind.build_network_architecture(*shared, *asked)
        assert network.decoder.deep_supervision is expected
    assert network.eval()(torch.randn(2, 3, 8, 8, 8)).shape == (2, 5, 8, 8, 8)


def test_a_class_behind_ours_builds_the_network_and_plans_take_what_lacks_files(trainer_of):
    class Building(nnUNetTrainer):
        @staticmethod
        def build_network_architecture(*given):
            return given

    trainer = trainer_of(type("Mine", (nnUNetTrainerModalityDropout, Building), {}))
    given = (trainer.plans_manager, trainer.configuration_manager, 3, 5, False)
    assert trainer.build_network_architecture(*given) == given
    assert type(trainer.plans_manager) is MissingModalityPlansManager
    assert type(trainer.configuration_manager) is MissingModalityConfiguration
    architecture = trainer.configuration_manager.configuration["architecture"]
    architecture["network_class_name"] = "elsewhere.Network"
    with pytest.raises(UserError, match=r"^plans TinyPlans names code from elsewhere, elsewhere\.Network"):
        trainer.build_network_architecture(*given)


def test_plans_that_describe_no_network_for_d2net_are_refused(trainer_of):
    trainer = trainer_of(D2NetTrainer)
    shared = (trainer.plans_manager, trainer.configuration_manager)
    with pytest.raises(UserError, match=r"^plans TinyPlans: D2-Net needs at least 2 modalities, this data set has 1"):
        D2NetTrainer.build_network_architecture(*shared, 1, 3)
    name = "dynamic_network_architectures.architectures.vgg.VGG16"
    trainer.configuration_manager.configuration["architecture"]["network_class_name"] = name
    words = r"^plans TinyPlans: VGG16.* argument.*: plan again with D2NetPlanner or nnU-Net's default planner$"
    with pytest.raises(UserError, match=words):
        D2NetTrainer.build_network_architecture(*shared, 3, 3)


# --- folds ---


@pytest.fixture
def splitting(trainer_of, training_folders):
    """Split a cohort into folds; return nnU-Net's lists and the file's content, None where there is no file."""

    def splitting(n_cases=10, cohort=None, *, fold=0, before=None, kind=nnUNetTrainerModalityDropout):
        folder = training_folders / FOLDER
        for path in folder.iterdir():
            path.unlink()
        for name in cohort or [f"c{i}" for i in range(n_cases)]:
            for ending in ("npz", "pkl"):
                (folder / f"{name}.{ending}").touch()
        path = folder.parent / "splits_final.json"
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_text(json.dumps(before), encoding="utf-8")
        trainer = trainer_of(kind)
        trainer.print_to_log_file = lambda *_, **__: None
        trainer.fold, trainer.dataset_class = fold, None
        if cohort is not None:
            trainer.cohort = cohort
        train, val = trainer.do_split()
        return list(train), list(val), load_json(str(path)) if path.exists() else None

    return splitting


INCOMPLETE = {f"c{i}": [True, i % 2 == 0, True] for i in range(10)}


def test_folds_of_complete_cases_are_nnunets(splitting, monkeypatch):
    nnunets = splitting(kind=nnUNetTrainer)
    assert splitting() == nnunets
    assert splitting(cohort={name: [True, False, True] for name in INCOMPLETE}) == nnunets  # one pattern is no reason
    assert len(nnunets[2]) == 5


@pytest.mark.parametrize("n_cases", [10, 5])
def test_folds_of_incomplete_cases_have_each_pattern(splitting, training_folders, n_cases):
    cohort = dict(list(INCOMPLETE.items())[:n_cases])
    train, val, splits = splitting(cohort=cohort)
    assert splits == balanced_splits(cohort, 5)
    assert (train, val) == (splits[0]["train"], splits[0]["val"])
    text = (training_folders / FOLDER.parent / "splits_final.json").read_text(encoding="utf-8")
    assert text.strip() == json.dumps(splits, indent=4)  # as nnU-Net writes it


def test_folds_that_there_are_stay(splitting):
    before = [{"train": ["c0", "c2"], "val": ["c1"]}]
    assert splitting(cohort=INCOMPLETE, before=before) == (["c0", "c2"], ["c1"], before)
    with pytest.raises(UserError, match='fold 0 has no list of cases under "val"'):
        splitting(before=[{"train": ["c0"]}])


def test_fold_all_needs_no_folds(splitting):
    train, val, splits = splitting(cohort=INCOMPLETE, fold="all")
    assert sorted(train) == sorted(val) == sorted(INCOMPLETE)
    assert splits is None


# --- the final validation ---


@pytest.mark.parametrize(("kind", "voxel"), [(nnUNetTrainerModalityDropout, 0.0), (D2NetTrainer, np.nan)])
@pytest.mark.parametrize("known", [False, True])
def test_whole_cases_are_validated_with_what_they_have(trainer_of, monkeypatch, kind, voxel, known):
    trainer, seen = trainer_of(kind), []
    own = type("Own", (nnUNetDatasetNumpy,), {}) if known else nnUNetDatasetNumpy
    trainer.dataset_class = own if known else None
    case = np.ones((3, 2, 2, 2)), "labels", None, {"available_modalities": [True, False, True]}
    monkeypatch.setattr(nnUNetDatasetNumpy, "load_case", lambda *_: case)

    def perform_actual_validation(self, *asked):
        seen.append((asked, self.dataset_class.__mro__[1], self.dataset_class(".", ["a"]).load_case("a")[0]))

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", perform_actual_validation)
    trainer.perform_actual_validation()
    trainer.perform_actual_validation(save_probabilities=True)
    assert [(asked, kind) for asked, kind, _ in seen] == [((False,), own), ((True,), own)]
    assert np.array_equal(seen[0][2][:, 0, 0, 0], [1, voxel, 1], equal_nan=True)
    assert trainer.dataset_class is (own if known else None)


def test_processes_that_the_final_validation_starts_never_hear_ctrl_c_and_their_parent_does(trainer_of, monkeypatch):
    trainer, deaf, handler = trainer_of(nnUNetTrainerModalityDropout), [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda self: ([], []))

    def perform_actual_validation(self, *_):
        for _ in ("where nnU-Net starts its pool", "once it has"):
            deaf.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            self.do_split()

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", perform_actual_validation)
    trainer.dataset_class, trainer.fold = nnUNetDatasetNumpy, "all"
    trainer.perform_actual_validation()
    trainer.perform_actual_validation()
    assert deaf == [True, False] * 2
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_fold_is_not_begun_beside_one_of_other_plans_whoever_starts_it(trainer_of, monkeypatch):
    trainer = trainer_of(nnUNetTrainerModalityDropout)
    monkeypatch.setattr(dropping, "check_preprocessed", lambda *_: None)
    monkeypatch.setattr(trainer, "_note_orientation", lambda: None)
    others = deepcopy(trainer.plans_manager.plans)
    others["configurations"]["tiny"]["spacing"] = [9.0, 1.0, 1.0]
    made_for = {"plans": others, "configuration": "tiny"}
    (Path(trainer.output_folder).parent / "fold_1").mkdir(parents=True)
    path = Path(trainer.output_folder).parent / "fold_1" / "checkpoint_final.pth"
    torch.save({"network_weights": {"w": torch.ones(1)}, "trainer_name": "A", "init_args": made_for}, path)
    with pytest.raises(UserError, match=r"fold_1/checkpoint_final\.pth was trained by other plans .*\(spacing\)"):
        trainer.on_train_start()
