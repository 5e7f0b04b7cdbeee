import re
from pathlib import Path

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.start import check_begun, companion_of, find_stock, start_checkpoint


@pytest.fixture
def results(tmp_path):
    for name in ("A__PlansX__3d_fullres", "A__PlansY__3d_fullres", "A__PlansX__2d", "B__PlansX__3d_fullres"):
        fold = tmp_path / "results" / name / "fold_0"
        fold.mkdir(parents=True)
        (fold / "checkpoint_final.pth").touch()
    return tmp_path / "results"


def test_name_of_the_companion():
    assert companion_of("nnUNetTrainerModalityDropout_20epochs") == "nnUNetTrainerModalityDropoutCompanion_20epochs"
    assert companion_of(companion_of("D2NetTrainer")) == "D2NetTrainerCompanion"


def test_a_trainers_name_means_its_model_and_plans(results):
    assert find_stock(results, "B", "3d_fullres") == (results / "B__PlansX__3d_fullres", "PlansX")
    assert find_stock(results, "A", "3d_fullres", "PlansY") == (results / "A__PlansY__3d_fullres", "PlansY")
    assert find_stock(results, "A", "2d") == (results / "A__PlansX__2d", "PlansX")


def test_a_folder_or_a_checkpoint_is_taken_as_it_is(results, tmp_path):
    model = results / "A__PlansY__3d_fullres"
    assert find_stock(tmp_path, str(model), "3d_fullres") == (model, "PlansY")
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    assert find_stock(tmp_path, str(checkpoint), "3d_fullres") == (checkpoint, "PlansY")
    assert find_stock(tmp_path, str(checkpoint), "3d_fullres", "Others") == (checkpoint, "Others")
    assert find_stock(tmp_path, str(checkpoint.parent), "3d_fullres") == (checkpoint, "PlansY")


def test_a_checkpoint_directly_below_the_root_has_no_model(results, monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: str(path) == "/model.pth")
    with pytest.raises(UserError, match="/ is not named TRAINER__PLANS__3d_fullres: pass the plans with -p"):
        find_stock(results, "/model.pth", "3d_fullres")
    assert find_stock(results, "/model.pth", "3d_fullres", "P") == (Path("/model.pth"), "P")


@pytest.mark.parametrize("plans", ["", "PlansX"])
def test_a_folder_that_is_no_models_is_told(results, plans):
    words = f"no model of {results}, a folder without folds, for 3d_fullres in .*(there: A__PlansX__3d_fullres.*)"
    with pytest.raises(UserError, match=words):
        find_stock(results, str(results), "3d_fullres", plans)
    (results / "A__PlansX__2d" / "fold_1").mkdir()
    with pytest.raises(UserError, match=r"no model of .*fold_1/checkpoint_final\.pth for 2d .*: train it first"):
        find_stock(results, str(results / "A__PlansX__2d" / "fold_1"), "2d", plans)


@pytest.mark.parametrize(
    ("start", "configuration", "plans", "message"),
    [
        ("A", "3d_fullres", "", r"several plans \(A__PlansX__3d_fullres, A__PlansY__3d_fullres\): choose with -p"),
        ("C", "3d_fullres", "", r"no model of C for 3d_fullres in .* \(there: A__PlansX__3d_fullres, "),
        ("B", "2d", "", r"no model of B for 2d in .* \(there: A__PlansX__2d\)"),
        ("A", "3d_lowres", "", r"no model of A for 3d_lowres in .* \(there: A__PlansX__2d, .*\): train it first"),
        ("A", "3d_fullres", "PlansZ", "A was trained with PlansX, PlansY, not with PlansZ: pass one of these with -p"),
        ("/no/such", "2d", "", r"no model of /no/such for 2d in .*; /no/such does not exist: train it first"),
    ],
)
def test_what_is_not_there(results, start, configuration, plans, message):
    with pytest.raises(UserError, match=message):
        find_stock(results, start, configuration, plans)


def test_a_folder_of_another_configuration(results):
    model = results / "A__PlansX__2d"
    with pytest.raises(UserError, match=re.escape(f"{model} is not named TRAINER__PLANS__3d_fullres: pass the plans")):
        find_stock(results, str(model), "3d_fullres")


@pytest.mark.parametrize("start", ["/no/such/model", "*", "../A", "A__PlansX"])
def test_what_is_neither_there_nor_a_trainers_name_is_one_line(results, start):
    with pytest.raises(UserError, match=f"no model of {re.escape(start)} for 3d_fullres"):
        find_stock(results, start, "3d_fullres")


def test_a_companion_that_was_begun_by_another_trainer_is_named(tmp_path):
    check_begun(tmp_path, "ACompanion", "P__2d", "0")
    for model in ("BCompanion_5epochs__P__2d", "nnUNetTrainer__P__2d", "CCompanion__P__3d_fullres"):
        (tmp_path / model / "fold_0").mkdir(parents=True)
        (tmp_path / model / "fold_0" / "checkpoint_latest.pth").touch()
    check_begun(tmp_path, "BCompanion_5epochs", "P__2d", "0")
    check_begun(tmp_path, "ACompanion", "P__2d", "1")
    words = r"^fold 0 of ACompanion has not been begun in .* BCompanion_5epochs: go on with -tr BCompanion_5epochs$"
    with pytest.raises(UserError, match=words):
        check_begun(tmp_path, "ACompanion", "P__2d", "0")


def test_a_fold_starts_from_its_own_fold_or_leaves_no_case_out(tmp_path):
    checkpoint = tmp_path / "fold_1" / "checkpoint_final.pth"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert start_checkpoint(tmp_path, "1") == start_checkpoint(checkpoint, "1") == checkpoint
    assert start_checkpoint(checkpoint, "all") == checkpoint
    with pytest.raises(UserError, match="has seen validation cases of fold 0"):
        start_checkpoint(checkpoint, "0")
    with pytest.raises(UserError, match="does not exist: train fold 0"):
        start_checkpoint(tmp_path, "0")
