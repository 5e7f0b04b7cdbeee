"""What D2NetPaperPlanner plans, whatever the data; it counts on tensors without data."""

import json
import logging

import numpy as np
import pytest

from nnunetv2_d2net.plugin.planning.planner import D2NetPaperPlanner, D2NetPlanner, D2NetWholeHeadPlanner

DATASET_JSON = {
    "channel_names": {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"},
    "labels": {"background": 0, "NET": 1, "ED": 2, "ET": 3},
    "file_ending": ".nii.gz",
    "numTraining": 285,
}
BRATS = np.array([155, 240, 240])


@pytest.fixture
def planner_of(tmp_path, monkeypatch):
    """A planner of a data set of which there is nothing but its description."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        folder = tmp_path / name / "Dataset007_Tiny"
        folder.mkdir(parents=True)
    modules = ("nnunetv2.experiment_planning.experiment_planners.default_experiment_planner", "nnunetv2.paths")
    for module in modules:
        for name in ("raw", "preprocessed"):
            monkeypatch.setattr(f"{module}.nnUNet_{name}", str(tmp_path / name), raising=False)
    monkeypatch.setattr("nnunetv2.utilities.dataset_name_id_conversion.nnUNet_raw", str(tmp_path / "raw"))
    raw = tmp_path / "raw" / "Dataset007_Tiny"
    (raw / "imagesTr").mkdir()
    (raw / "labelsTr").mkdir()
    (raw / "dataset.json").write_text(json.dumps(DATASET_JSON), encoding="utf-8")
    (tmp_path / "preprocessed" / "Dataset007_Tiny" / "dataset_fingerprint.json").write_text(
        json.dumps({"median_relative_size_after_cropping": 1.0, "spacings": [[1, 1, 1]], "shapes_after_crop": []}),
        encoding="utf-8",
    )
    return lambda kind, **settings: kind("Dataset007_Tiny", **settings)


def plan_of(planner, dim=3):
    spacing, shape = np.ones(dim), BRATS[-dim:]
    return planner.get_plans_for_configuration(spacing, shape, "data", 285 * float(BRATS.prod()), {})


@pytest.mark.parametrize("target", [2.0, None, 40.0])
def test_the_papers_sizes_are_planned_whatever_memory_there_is(planner_of, target, caplog):
    with caplog.at_level(logging.WARNING, "nnunetv2_d2net"):
        plan = plan_of(planner_of(D2NetPaperPlanner, gpu_memory_target_in_gb=target))
    assert (plan["patch_size"], plan["batch_size"]) == ([128] * 3, 2)
    network = plan["architecture"]["arch_kwargs"]
    assert network["features_per_stage"] == (4, 8, 16, 32, 64, 128)
    assert (network["n_stages"], network["n_conv_per_stage"], network["n_conv_per_stage_decoder"]) == (
        6,
        [1] * 6,
        [2] * 5,
    )
    assert network["strides"] == [[1] * 3, *[[2] * 3] * 5]
    assert network["norm_op"].endswith("BatchNorm3d")
    assert ("the paper's batches need about" in caplog.text) == (target == 2)


def test_two_dimensions_are_planned_as_by_our_planner(planner_of):
    paper, ours = (plan_of(planner_of(kind), dim=2) for kind in (D2NetPaperPlanner, D2NetPlanner))
    assert paper["architecture"] == ours["architecture"]
    assert planner_of(D2NetPaperPlanner).plans_identifier == "D2NetPaperPlans"


def test_the_papers_network_is_counted_with_its_options(planner_of):
    """Wider branches and full resolution take more than D2NetTrainer's, which D2NetPlanner counts."""
    plan = plan_of(planner_of(D2NetPaperPlanner))
    network = plan["architecture"]
    words = (plan["patch_size"], 4, 4, network["network_class_name"], network["arch_kwargs"])
    counted = [kind.static_estimate_VRAM_usage(*words, network["_kw_requires_import"]) for kind in KINDS]
    assert counted[0] > 1.2 * counted[1]


KINDS = (D2NetPaperPlanner, D2NetPlanner)


@pytest.mark.parametrize("shape", [(48, 70, 56), (65, 73, 59), (100, 100, 100)])
def test_one_network_for_whole_heads_whatever_the_data(planner_of, shape):
    planner = planner_of(D2NetWholeHeadPlanner)
    plan = planner.get_plans_for_configuration(np.full(3, 2.4), np.array(shape), "data", 1e8, {})
    assert (list(plan["patch_size"]), plan["batch_size"]) == ([64, 80, 64], 1)
    assert plan["median_image_size_in_voxels"] == list(shape)
    network = plan["architecture"]["arch_kwargs"]
    assert network["features_per_stage"] == (16, 32, 64, 128, 160)
    assert [list(stride) for stride in network["strides"]] == [[1] * 3, *[[2] * 3] * 4]
    assert planner.determine_normalization_scheme_and_whether_mask_is_used_for_norm()[1] == [True] * 4
    assert planner.get_plans_for_configuration(np.ones(2), BRATS[-2:], "data", 1e8, {})["batch_size"] > 1
