"""A data set and a benchmark of it, on paper."""

import json
import zipfile

import pytest
import torch

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.study.benchmark.setup import Setup
from tests.unit.conftest import whole_plans


@pytest.fixture
def setup(tmp_path):
    raw = tmp_path / "raw" / "Dataset007_Paper"
    for kind, split, count in (("images", "Tr", 5), ("labels", "Tr", 5), ("images", "Ts", 2), ("labels", "Ts", 2)):
        (raw / f"{kind}{split}").mkdir(parents=True)
        for case in range(count):
            endings = ("_0000", "_0001") if kind == "images" else ("",)
            for ending in endings:
                (raw / f"{kind}{split}" / f"case_{split}{case}{ending}.nii.gz").touch()
    labels = {"background": 0, "lesion": 1}
    description = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    preprocessed = tmp_path / "preprocessed" / raw.name
    (preprocessed / "data").mkdir(parents=True)
    plans = whole_plans({"2d": {}, "2d_child": {"inherits_from": "2d"}})
    (preprocessed / "D2NetPlans.json").write_text(json.dumps(plans), encoding="utf-8")
    for case in range(5):
        (preprocessed / "data" / f"case_Tr{case}.pkl").touch()
    return Setup(
        Dataset.of(description),
        raw,
        preprocessed,
        tmp_path / "results" / raw.name,
        tmp_path / "out",
        "2d",
        "D2NetPlans",
        ("nnUNetTrainer", "D2NetTrainer"),
        ("all",),
        "test",
    )


@pytest.fixture
def write_checkpoint():
    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights", str(path))

    return write


def save_weights(path, epochs, **weights):
    path.parent.mkdir(parents=True, exist_ok=True)
    network = {name.replace("__", "."): torch.tensor(float(value)) for name, value in weights.items()}
    content = {"trainer_name": "X", "init_args": {"configuration": "2d"}, "inference_allowed_mirroring_axes": None}
    torch.save(content | {"network_weights": network, "current_epoch": epochs}, path)
