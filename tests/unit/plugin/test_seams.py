"""The contracts with nnU-Net: that it reads, at the moment of use, what we exchange. One probe for each seam."""

import multiprocessing
import sys
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import pytest
from nnunetv2.experiment_planning import plan_and_preprocess_api
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.inference.predict_from_raw_data import predict_entry_point

from nnunetv2_d2net.plugin import seams
from tests.conftest import SINGLE_CHANNEL, nnunet_environment, write_raw_dataset


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Folder of a raw data set of one channel, below nnU-Net's variables."""
    with nnunet_environment(tmp_path_factory.mktemp("seams")) as root:
        yield write_raw_dataset(root / "raw", SINGLE_CHANNEL)


@pytest.mark.parametrize("had_one", [True, False])
def test_what_was_there_comes_back(had_one):
    owner = SimpleNamespace(**({"value": 1} if had_one else {}))
    with pytest.raises(KeyError), seams.replaced(owner, "value", 2):  # noqa: PT012
        assert owner.value == 2
        raise KeyError
    assert vars(owner) == ({"value": 1} if had_one else {})


def test_a_module_is_imported_by_its_name():
    with seams.replaced("nnunetv2.experiment_planning.plan_and_preprocess_api", "PlansManager", 7):
        assert plan_and_preprocess_api.PlansManager == 7


def test_planner():
    calls = []

    class Planner:
        plans_identifier = "ProbePlans"

        def __init__(self, *args, **kwargs):
            calls.append((args, kwargs))

        def plan_experiment(self):
            return {}

    with seams.planner_seam(Planner):
        assert plan_and_preprocess_api.plan_experiments([7], "Planner") == "ProbePlans"
        plan_and_preprocess_api.plan_experiments([7], "Planner", 4, overwrite_plans_name="Mine")
    given = {"preprocessor_name": "DefaultPreprocessor", "overwrite_target_spacing": None, "suppress_transpose": False}
    mine = {**given, "gpu_memory_target_in_gb": 4, "plans_name": "Mine"}
    assert calls == [((7,), given), ((7,), mine)]  # so a planner's own defaults hold unless the user says otherwise


def test_fingerprint(raw):
    calls = []

    class Extractor:
        show_progress_bar = True

        def __init__(self, *args, **kwargs):
            calls.append((args, kwargs))

        def run(self, *, overwrite_existing):
            calls.append((self.show_progress_bar, overwrite_existing))

    with seams.fingerprint_seam(Extractor):
        plan_and_preprocess_api.extract_fingerprints(
            [SINGLE_CHANNEL.dataset_id], "Extractor", 3, show_progress_bar=False
        )
    assert calls == [((SINGLE_CHANNEL.dataset_id, 3), {"verbose": True}), (False, True)]


def test_integrity(raw, monkeypatch):
    cases = []

    def check_case(images, label, n_modalities, reader):
        cases.append((len(images), n_modalities, hasattr(reader, "read_seg")))
        return label.endswith("case_Tr0.nii.gz")

    monkeypatch.setattr(multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
    with seams.integrity_seam(check_case), pytest.raises(RuntimeError, match="Some images have errors"):
        verify_dataset_integrity(str(raw), 1)
    assert cases == [(1, 1, True)] * SINGLE_CHANNEL.n_train


def test_plans(raw):
    asked = []

    class Preprocessor:
        def __init__(self, verbose):
            pass

        def run(self, *args, num_processes):
            asked.append((*args, num_processes))

    class Manager:
        available_configurations = ("2d",)

        def __init__(self, path):
            asked.append(path.rpartition("/")[2])

        def get_configuration(self, name):
            return SimpleNamespace(preprocessor_class=Preprocessor)

    with seams.plans_seam(Manager):
        plan_and_preprocess_api.preprocess([SINGLE_CHANNEL.dataset_id], "ProbePlans", ["2d"], [5])
    assert asked == ["ProbePlans.json", (SINGLE_CHANNEL.dataset_id, "2d", "ProbePlans", 5)]


@pytest.mark.parametrize(("n_processes", "method"), [(0, "predict_from_files_sequential"), (1, "predict_from_files")])
def test_predictor(raw, n_processes, method, tmp_path, monkeypatch):
    calls = []

    class Predictor:
        def __init__(self, **settings):
            calls.append(settings["use_mirroring"])

        def __getattr__(self, name):
            return lambda *args, **settings: calls.append((name, args))

    words = ["-i", "in", "-o", str(tmp_path), "-d", SINGLE_CHANNEL.dataset_id, "-c", "2d", "-f", 0, "-device", "cpu"]
    words += ["-npp", n_processes, "-nps", n_processes, "--disable_tta"]
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_predict", *map(str, words)])
    with seams.predictor_seam(Predictor):
        predict_entry_point()
    mirroring, (load, (model, folds)), (predict, files) = calls
    assert not mirroring
    assert (load, folds) == ("initialize_from_trained_model_folder", [0])
    assert model.endswith("nnUNetTrainer__nnUNetPlans__2d")
    assert (predict, files) == (method, ("in", str(tmp_path)))


# Training, preprocessing and prediction
