"""Whether the network of a model sees and segments by other plans what it has learned on."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.plugin.training.same_plans import check_other_folds, check_same_plans, differing_settings
from tests.unit.plugin.planning.test_plans import OLD
from tests.unit.plugin.preprocessing.conftest import architecture, build_plans

BY_INTENSITIES = ["CTNormalization", "ZScoreNormalization"]
INTENSITIES = "foreground_intensity_properties_per_channel"


def plans_of(schemes=("ZScoreNormalization",) * 2, **changes):
    plans = deepcopy(build_plans(schemes).plans)
    of_configuration = plans["configurations"]["tiny"]
    for key, value in changes.items():
        (of_configuration if key in of_configuration else plans)[key] = value
    return plans


def differing(others, ours=None, order=(0, 1), configuration="tiny"):
    return differing_settings(ours or plans_of(), others, configuration, order, "x.pth")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"batch_size": 99}, []),
        ({"spacing": [9.0, 1.0, 1.0]}, ["spacing"]),
        ({"patch_size": [16, 8, 8], "batch_size": 1}, ["patch_size"]),
        ({"use_mask_for_norm": [True, False]}, ["use_mask_for_norm"]),
        ({"resampling_fn_data": "other"}, ["resampling_fn_data"]),
        ({"resampling_fn_probabilities_kwargs": {}}, ["resampling_fn_probabilities_kwargs"]),
        ({"resampling_fn_seg_kwargs": {}}, []),
        ({"transpose_forward": [2, 1, 0]}, ["transpose_forward"]),
        ({"image_reader_writer": "NibabelIOWithReorient"}, ["image_reader_writer"]),
        ({INTENSITIES: {"0": {"mean": 1.0}, "1": {}}}, []),  # each image is normalized by itself
        ({"continue_training": True, "experiment_planner_used": "Mine"}, []),
    ],
)
def test_what_makes_a_network_segment_otherwise_is_named(changes, names):
    assert differing(plans_of(**changes)) == names


def test_tuples_and_numpys_numbers_are_the_same():
    others = plans_of(spacing=(1.0, np.float64(1.0), 1.0), patch_size=np.array([8, 8, 8]))
    assert differing(others) == differing(plans_of(), others) == []


def test_strides_that_leave_the_weights_shapes_are_seen():
    others = plans_of()
    others["configurations"]["tiny"]["architecture"]["arch_kwargs"]["norm_op_kwargs"]["eps"] = 1.0
    assert differing(others) == ["architecture"]


def test_intensities_matter_where_images_are_normalized_by_them_and_under_their_old_name_too():
    ours, others = plans_of(BY_INTENSITIES), plans_of(BY_INTENSITIES)
    assert differing(others, ours) == []
    others["foreground_intensity_properties_by_modality"] = others.pop(INTENSITIES)
    assert differing(others, ours) == []
    others["foreground_intensity_properties_by_modality"]["0"]["mean"] = 7.0
    assert differing(others, ours) == [INTENSITIES]


def test_what_is_of_a_channel_goes_with_its_modality():
    ours, others = plans_of(BY_INTENSITIES), plans_of(BY_INTENSITIES[::-1])
    others[INTENSITIES] = {"0": ours[INTENSITIES]["1"], "1": ours[INTENSITIES]["0"]}
    assert differing(others, ours, order=(1, 0)) == []
    assert differing(others, ours, order=(0, 1)) == ["normalization_schemes", INTENSITIES]
    assert differing(ours, ours, order=(1, 0)) == ["normalization_schemes", INTENSITIES]


def test_an_old_form_of_the_same_network_is_the_same():
    others, ours = plans_of(), plans_of()
    del others["configurations"]["tiny"]["architecture"]
    others["configurations"]["tiny"] |= OLD
    ours["configurations"]["tiny"]["architecture"]["arch_kwargs"] = architecture()["arch_kwargs"] | {
        "features_per_stage": [4, 8],
        "strides": OLD["pool_op_kernel_sizes"],
    }
    assert differing(others, ours) == []
    assert "architecture" not in others["configurations"]["tiny"]
    assert differing(plans_of(), others) == ["architecture"]


def test_inherited_settings_count():
    others = plans_of()
    others["configurations"]["child"] = {"inherits_from": "tiny", "spacing": [2.0, 2.0, 2.0]}
    ours = deepcopy(others)
    assert differing(others, ours, configuration="child") == []
    others["configurations"]["tiny"]["patch_size"] = [4, 4, 4]
    assert differing(others, ours, configuration="child") == ["patch_size"]


@pytest.mark.parametrize("change", [{"configurations": {}}, {"transpose_forward": 5}, {"spacing": "wide"}])
def test_plans_that_are_none_are_refused(change):
    with pytest.raises(UserError, match=r"^x\.pth"):
        differing(plans_of(**change))


def check(plans, made_for):
    content = {"channel_names": {"0": "FLAIR", "1": "T1"}}
    check_same_plans(Path("x.pth"), {"configuration": "tiny", **made_for}, plans, content, "do this")


@pytest.mark.parametrize(
    ("made_for", "problem"),
    [
        ({}, None),  # as it was exported
        ({"plans": plans_of(), "dataset_json": {"channel_names": {"0": "Flair", "1": "T1w"}}}, None),
        ({"plans": plans_of(patch_size=[4, 4, 4])}, None),
        ({"plans": plans_of(spacing=[9.0, 1.0, 1.0])}, r"by other plans than those of now \(spacing\): do this$"),
        (
            {"dataset_json": {"channel_names": {"0": "T1", "1": "FLAIR"}}},
            "with T1, FLAIR, in this order, and .* FLAIR, T1 now",
        ),
        ({"dataset_json": {"channel_names": {"0": "first", "1": "second"}}}, None),  # they have got better names
        ({"plans": plans_of() | {ORIENTATION: "RAS"}}, ORIENTATION),
        ({"plans": plans_of() | {ORIENTATION: "LPS"}}, None),
    ],
)
def test_a_checkpoint_of_other_plans_is_refused(made_for, problem):
    plans = plans_of() | {ORIENTATION: "LPS"}
    if problem is None:
        check(plans, made_for)
        return
    with pytest.raises(UserError, match=f"^x.pth was trained .*{problem}"):
        check(plans, made_for)


def test_training_does_not_know_yet_how_its_cases_lie():
    check(plans_of(), {"plans": plans_of() | {ORIENTATION: "RAS"}})


def write_checkpoint(path, plans):
    path.parent.mkdir(parents=True, exist_ok=True)
    made_for = {"plans": plans, "configuration": "tiny", "dataset_json": DATASET_JSON}
    torch.save({"network_weights": {"w": torch.ones(1)}, "trainer_name": "A", "init_args": made_for}, path)


DATASET_JSON = {"channel_names": {"0": "FLAIR", "1": "T1"}}


@pytest.mark.parametrize("name", ["final", "latest", "best"])
def test_a_fold_is_not_trained_beside_folds_of_other_plans(tmp_path, name):
    ours, others = plans_of(), plans_of(spacing=[9.0, 1.0, 1.0])
    write_checkpoint(tmp_path / "fold_0" / "checkpoint_final.pth", others)  # of this fold: it is trained anew
    write_checkpoint(tmp_path / "fold_1" / f"checkpoint_{name}.pth", plans_of(patch_size=[4, 4, 4]))
    (tmp_path / "fold_2").mkdir()
    (tmp_path / "fold_2" / "checkpoint_latest.pth").write_bytes(b"being written")
    check_other_folds(tmp_path / "fold_0", ours, DATASET_JSON)
    check_other_folds(tmp_path / "nowhere" / "fold_0", ours, DATASET_JSON)
    write_checkpoint(tmp_path / "fold_all" / f"checkpoint_{name}.pth", others)
    words = (
        rf"fold_all/checkpoint_{name}\.pth was trained by other plans .*\(spacing\): put .*/plans\.json in their place"
    )
    with pytest.raises(UserError, match=words):
        check_other_folds(tmp_path / "fold_0", ours, DATASET_JSON)
