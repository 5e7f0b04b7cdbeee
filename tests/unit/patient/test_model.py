import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.patient import model
from nnunetv2_d2net.patient.model import find_model, folds_of, shipped_model


def write(folder, *folds):
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(parents=True)
        (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    (folder / "plans.json").touch()
    return folder


def test_a_model_is_found_as_it_is_and_below(tmp_path):
    one = write(tmp_path / "Dataset001_A" / "T__P__C", 0)
    assert find_model(one) == find_model(tmp_path) == one
    two = write(tmp_path / "Dataset002_B" / "T__P__C", 0)
    assert find_model(two) == two
    with pytest.raises(UserError, match="holds 2 models: pass the folder of one, such as"):
        find_model(tmp_path)
    for nothing in (tmp_path / "missing", one / "fold_0", one / "plans.json"):
        with pytest.raises(UserError, match="is no model"):
            find_model(nothing)


def test_the_shipped_model(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(
        UserError, match="weights holds no model: install a release of nnunetv2_d2net, or pass -m MODEL"
    ):
        shipped_model()
    one = write(tmp_path / "weights" / "Dataset001_A" / "T__P__C", 0)
    assert shipped_model() == one


def test_folds(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint_final\.pth does not exist: finish the training"):
        folds_of(tmp_path)
    write(tmp_path, "all")
    assert folds_of(tmp_path) == ["all"]
    write(tmp_path, 1, 0)
    assert folds_of(tmp_path) == ["0", "1"]
