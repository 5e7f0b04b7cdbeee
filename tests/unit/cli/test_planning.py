import logging

import pytest

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.cli._planning import writing_preprocessed


def test_one_process_at_a_time_plans_and_preprocesses_a_data_set_and_counts_its_cases(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0}, "file_ending": ".nii"}
    raw = {tmp_path / "raw" / name: Dataset.of(content) for name in ("Dataset001_A", "Dataset002_B")}
    for folder in raw:
        for path in (folder / "imagesTr" / "a_0000.nii", folder / "labelsTr" / "a.nii"):
            path.parent.mkdir(parents=True)
            path.touch()
    caplog.set_level(logging.INFO, "nnunetv2_d2net")
    with locked_folder(tmp_path / "preprocessed" / "Dataset002_B"):
        with pytest.raises(UserError, match=r"another process holds .*Dataset002_B"), writing_preprocessed(raw, "x"):
            pytest.fail("two write one folder")
        with writing_preprocessed({folder: raw[folder] for folder in list(raw)[:1]}, "planned for"):
            pass
    assert caplog.messages == ["Dataset001_A: 1 training case planned for"]
    assert not list((tmp_path / "preprocessed").iterdir())
