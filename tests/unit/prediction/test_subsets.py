import numpy as np
import pytest
import torch

from nnunetv2_d2net.prediction import subsets
from nnunetv2_d2net.prediction.subsets import cases_in, predict_every_subset, subset_name


class Predictor:
    """Stands for a model: its logits tell which modalities it was allowed to see."""

    dataset_json = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".txt"}  # noqa: RUF012
    available = None

    def predict_logits_from_preprocessed_data(self, data):
        return torch.tensor([float(flag) for flag in self.available]) * data


@pytest.fixture
def preprocessed(monkeypatch):
    read = []

    def preprocess(_predictor, files):
        read.append(files)
        return torch.tensor([1.0, 2.0]), {"spacing": 1}

    def export(logits, _properties, _configuration, _plans, _dataset_json, target, _probabilities):
        with open(f"{target}.txt", "w") as file:  # noqa: PTH123 - nnU-Net hands over a string
            file.write(str(np.asarray(logits).tolist()))

    monkeypatch.setattr(subsets, "_preprocess", preprocess)
    monkeypatch.setattr(subsets, "export_prediction_from_logits", export)
    Predictor.configuration_manager = Predictor.plans_manager = None
    return read


def test_every_subset_of_every_case_from_one_preprocessing(preprocessed, tmp_path):
    predictor = Predictor()
    predict_every_subset(predictor, {"a": ["a0", "a1"], "b": ["b0", "b1"]}, tmp_path, show_progress=False)
    assert preprocessed == [["a0", "a1"], ["b0", "b1"]]
    texts = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.txt")}
    expected = {"T1": "[1.0, 0.0]", "T2": "[0.0, 2.0]", "T1+T2": "[1.0, 2.0]"}
    assert texts == {f"{subset}/{case}.txt": text for subset, text in expected.items() for case in "ab"}
    assert predictor.available is None


def test_what_is_there_is_not_done_again(preprocessed, tmp_path):
    (tmp_path / "T1").mkdir()
    (tmp_path / "T1" / "a.txt").write_text("kept")
    predict_every_subset(Predictor(), {"a": ["a0", "a1"]}, tmp_path, show_progress=False)
    assert (tmp_path / "T1" / "a.txt").read_text() == "kept"
    predict_every_subset(Predictor(), {"a": ["a0", "a1"]}, tmp_path, show_progress=False)
    assert len(preprocessed) == 1


def test_an_interrupted_export_leaves_nothing_that_counts(preprocessed, tmp_path, monkeypatch):
    def half_written(_logits, *arguments):
        (tmp_path / "T1" / (arguments[4].split("/")[-1] + ".txt")).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(subsets, "export_prediction_from_logits", half_written)
    with pytest.raises(KeyboardInterrupt):
        predict_every_subset(Predictor(), {"a": ["a0", "a1"]}, tmp_path, show_progress=False)
    assert not (tmp_path / "T1" / "a.txt").exists()


def test_cases_and_names(tmp_path):
    for name in ("x_0001.nii.gz", "x_0000.nii.gz", "y_1_0000.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    cases = cases_in(tmp_path, ".nii.gz")
    assert {case: [path[-11:] for path in files] for case, files in cases.items()} == {
        "x": ["0000.nii.gz", "0001.nii.gz"],
        "y_1": ["0000.nii.gz"],
    }
    assert subset_name([False, True], ["T1", "T2"]) == "T2"
