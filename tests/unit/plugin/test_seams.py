"""The contracts with nnU-Net: that it reads, at the moment of use, what we exchange. One probe for each seam."""

import inspect
import sys
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.experiment_planning import plan_and_preprocess_api
from nnunetv2.inference import data_iterators
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor, predict_entry_point
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_d2net.plugin import seams
from tests.conftest import SINGLE_CHANNEL, nnunet_environment, write_raw_dataset
from tests.unit.plugin.preprocessing.conftest import build_dataset_json, build_plans


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


def test_integrity(raw):
    checked = []

    class Extractor:
        def __init__(self, *args, **kwargs):
            pass

        def run(self, **kwargs):
            pass

    with seams.integrity_seam(lambda *given: checked.append(given)):
        plan_and_preprocess_api.extract_fingerprint_dataset(
            SINGLE_CHANNEL.dataset_id, Extractor, 3, check_dataset_integrity=True
        )
    assert checked == [(str(raw), 3)]


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


def test_preprocessor():
    """nnU-Net asks the configuration for the class, and a copy that goes to a worker still names ours."""
    plans = build_plans(["ZScoreNormalization"] * 2)
    configuration = plans.get_configuration("tiny")

    class Ours(ConfigurationManager):
        preprocessor_class = "ours"

    seams.preprocessor_seam(configuration, Ours)
    assert configuration.preprocessor_class == "ours"
    assert configuration.patch_size == [8, 8, 8]
    seams.preprocessor_seam(configuration, type("Other", (ConfigurationManager,), {}))
    assert configuration.preprocessor_class == "ours", "one that somebody has exchanged stays"
    source = inspect.getsource(data_iterators.preprocess_fromfiles_save_to_queue)
    assert "configuration_manager.preprocessor_class(" in source


def test_writer(tmp_path):
    """nnU-Net asks the plans for the writer where it writes, and hands it the case's properties."""
    plans, written = build_plans(["ZScoreNormalization"] * 2), []

    class Writer:
        def write_seg(self, *given):
            written.append(given)

    class Ours(PlansManager):
        image_reader_writer_class = Writer

    seams.writer_seam(plans, Ours)
    seams.writer_seam(plans, type("Other", (PlansManager,), {}))
    assert plans.image_reader_writer_class is Writer, "one that somebody has exchanged stays"
    shape = (3, 4, 5)
    properties = {
        "spacing": [1.0] * 3,
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
    }
    properties["shape_after_cropping_and_before_resampling"] = shape
    settings = (plans.get_configuration("tiny"), plans, build_dataset_json(2))
    export_prediction_from_logits(torch.zeros(3, *shape), properties, *settings, str(tmp_path / "a"))
    ((labels, file, given),) = written
    assert (labels.shape, file, given) == (shape, str(tmp_path / "a.nii.gz"), properties)


def test_dataset():
    """The final validation constructs ``self.dataset_class`` and predicts what its ``load_case`` returns."""
    source = inspect.getsource(nnUNetTrainer.perform_actual_validation)
    assert 0 < source.index("Pool(default_num_processes)") < source.index("= self.do_split()"), "who hears Ctrl-C"
    assert "dataset_val = self.dataset_class(" in source
    assert "data, _, seg_prev, properties = dataset_val.load_case(k)" in source
    assert "predictor.predict_sliding_window_return_logits(data)" in source
    trainer = SimpleNamespace(dataset_class=int)
    with seams.dataset_seam(trainer, float):
        assert trainer.dataset_class is float
    assert trainer.dataset_class is int


def test_loader():
    """The loaders are constructed by name, that of the training cases first."""
    source = inspect.getsource(nnUNetTrainer.get_dataloaders)
    assert source.count("nnUNetDataLoader(") == 2
    assert source.index("dl_tr = nnUNetDataLoader(dataset_tr,") < source.index("dl_val = nnUNetDataLoader(dataset_val,")
    module = sys.modules[nnUNetTrainer.__module__]
    theirs = module.nnUNetDataLoader
    with seams.loader_seam(dict):
        assert module.nnUNetDataLoader(a=1) == {"a": 1}
        with pytest.raises(TypeError, match="label_manager"):
            module.nnUNetDataLoader(None, 2, (8,) * 3, (8,) * 3)
    assert module.nnUNetDataLoader is theirs


def test_process_group():
    """Initializing wraps the network for the number of the process, where ``is_ddp`` says so."""
    source = inspect.getsource(nnUNetTrainer.initialize)
    assert "if self.is_ddp:" in source
    assert "DDP(self.network, device_ids=[self.local_rank])" in source


def test_sliding_window():
    """The window runs ``self.network`` and makes room for as many maps as ``self.label_manager`` has heads."""
    seen = []

    class Network(nn.Module):
        def forward(self, tile):
            seen.append(tuple(tile.shape))
            return tile.new_ones(1, 5, *tile.shape[2:])

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    plans = build_plans(["ZScoreNormalization"] * 2)
    settings = (plans, plans.get_configuration("tiny"), [{}], build_dataset_json(2), "nnUNetTrainer", None)
    predictor.manual_initialization(nn.Identity(), *settings)
    before = predictor.network, predictor.label_manager
    with seams.sliding_window_seam(predictor, Network(), SimpleNamespace(num_segmentation_heads=5)):
        logits = predictor.predict_logits_from_preprocessed_data(torch.zeros(2, 8, 8, 8))
    assert (seen, logits.shape) == ([(1, 2, 8, 8, 8)], (5, 8, 8, 8))
    assert (predictor.network, predictor.label_manager) == before
