import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.cli._planning import writing_preprocessed


def test_one_process_at_a_time_plans_and_preprocesses_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    raw = [tmp_path / "raw" / name for name in ("Dataset001_A", "Dataset002_B")]
    with locked_folder(tmp_path / "preprocessed" / "Dataset002_B"):
        with pytest.raises(UserError, match=r"another process holds .*Dataset002_B"), writing_preprocessed(raw):
            pytest.fail("two write one folder")
        with writing_preprocessed(raw[:1]):
            pass
    assert not list((tmp_path / "preprocessed").iterdir())
