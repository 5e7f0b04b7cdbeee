"""Trainers on the plans of a tiny configuration, without data."""

import numpy as np
import pytest
import torch

from tests.unit.plugin.preprocessing.conftest import build_dataset_json, build_plans


@pytest.fixture
def training_folders(tmp_path, monkeypatch):
    """nnU-Net's variables, and the folder of a preprocessed data set, in which nothing is but a name."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.delenv("D2NET_CPU_BFLOAT16", raising=False)
    (tmp_path / "preprocessed" / "Dataset007_Tiny" / "tiny").mkdir(parents=True)
    (tmp_path / "preprocessed" / "Dataset007_Tiny" / "tiny" / "a.npz").touch()
    return tmp_path


@pytest.fixture
def trainer_of(training_folders):
    def trainer_of(kind, *, n_stages=2, dataset_json=None, device="cpu", continues=False):
        dataset_json = dataset_json or build_dataset_json(3)
        plans = build_plans(["ZScoreNormalization"] * len(dataset_json["channel_names"])).plans
        plans["continue_training"] = continues
        network = plans["configurations"]["tiny"]["architecture"]["arch_kwargs"]
        network.update(
            n_stages=n_stages,
            features_per_stage=[4, 6, 8][:n_stages],
            kernel_sizes=[[3] * 3] * n_stages,
            strides=[[1] * 3, *[[2] * 3] * (n_stages - 1)],
            n_conv_per_stage=[1] * n_stages,
            n_conv_per_stage_decoder=[1] * (n_stages - 1),
        )
        return kind(plans, "tiny", 0, dataset_json, torch.device(device))

    return trainer_of


@pytest.fixture
def make_batch():
    """What nnU-Net's loaders hand over for a U-Net of three stages: noise, labels at two resolutions, names."""

    def make_batch(seed=0, names=("a", "b")):
        rng = np.random.default_rng(seed)
        data = torch.from_numpy(rng.normal(size=(len(names), 3, 8, 8, 8)).astype(np.float32))
        target = torch.from_numpy(rng.integers(0, 3, (len(names), 1, 8, 8, 8)).astype(np.int16))
        return {"data": data, "target": [target, target[..., ::2, ::2, ::2]], "keys": list(names)}

    return make_batch
