"""Tiny data sets and the nnU-Net environment that the integration tests share."""

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several, each of which would take all cores
    torch.set_num_threads(1)


@dataclass(frozen=True)
class RawDataset:
    """What a tiny raw data set of nnU-Net's looks like."""

    dataset_id: int
    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]  # z, y, x in mm
    channels: tuple[str, ...]
    labels: dict = field(default_factory=dict)
    regions_class_order: tuple[int, ...] | None = None
    n_train: int = 5
    n_test: int = 2

    @property
    def folder_name(self) -> str:
        return f"Dataset{self.dataset_id:03d}_{self.name}"


REGIONS_3D = RawDataset(
    801,
    "Regions3D",
    (20, 24, 20),
    (1.0, 1.0, 1.0),
    ("FLAIR", "T1", "T1ce", "T2"),
    {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": 3},
    (2, 1, 3),
)
LABELS_2D = RawDataset(
    802, "Labels2D", (1, 40, 48), (999.0, 1.0, 1.0), ("a", "b", "c"), {"background": 0, "inner": 1, "outer": 2}
)
ANISOTROPIC_3D = RawDataset(
    803, "Anisotropic", (8, 40, 40), (5.0, 1.0, 1.0), ("T2", "ADC"), {"background": 0, "lesion": 1, "ignore": 2}
)
REGIONS_M5 = RawDataset(
    804, "Five", (16, 20, 16), (1.0, 1.0, 1.0), ("a", "b", "c", "d", "e"), {"background": 0, "inner": 1, "outer": 2}
)
LARGE_3D = RawDataset(806, "Large", (32, 36, 32), (1.0, 1.0, 1.0), ("T1", "T2"), {"background": 0, "lesion": 1})
SINGLE_CHANNEL = RawDataset(805, "Single", (16, 20, 16), (1.0, 1.0, 1.0), ("CT",), {"background": 0, "lesion": 1})


def write_raw_dataset(raw_folder: Path, spec: RawDataset) -> Path:
    """Write images of nested blobs in noise; every modality shows the labels with a contrast of its own."""
    folder = raw_folder / spec.folder_name
    rng = np.random.default_rng(spec.dataset_id)
    for split, n_cases in (("Tr", spec.n_train), ("Ts", spec.n_test)):
        for kind in ("images", "labels"):
            (folder / f"{kind}{split}").mkdir(parents=True)
        for case in range(n_cases):
            label = _nested_blobs(spec, rng)
            _write(label, spec, folder / f"labels{split}" / f"case_{split}{case}.nii.gz")
            for channel in range(len(spec.channels)):
                contrast = rng.normal(size=label.max() + 1) + np.arange(label.max() + 1) * (channel + 1)
                image = contrast[label] + rng.normal(scale=0.3, size=label.shape)
                name = f"case_{split}{case}_{channel:04d}.nii.gz"
                _write(image.astype(np.float32), spec, folder / f"images{split}" / name)
    description = {
        "channel_names": {str(i): name for i, name in enumerate(spec.channels)},
        "labels": spec.labels,
        "numTraining": spec.n_train,
        "file_ending": ".nii.gz",
    }
    if spec.regions_class_order is not None:
        description["regions_class_order"] = list(spec.regions_class_order)
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def _nested_blobs(spec: RawDataset, rng: np.random.Generator) -> np.ndarray:
    center = np.array(spec.shape) / 2 + rng.uniform(-1, 1, 3)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in spec.shape), indexing="ij"), -1)
    scaled = (grid - center) / (np.array(spec.shape) / 2)
    if spec.shape[0] == 1:
        scaled[..., 0] = 0
    distance = np.linalg.norm(scaled, axis=-1)
    n_labels = max(max(v) if isinstance(v, list) else v for v in spec.labels.values())
    label = np.zeros(spec.shape, np.uint8)
    for value in range(1, n_labels + 1):
        label[distance < 0.75 - 0.18 * value] = value
    return label


def _write(array: np.ndarray, spec: RawDataset, path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spec.spacing[::-1])
    sitk.WriteImage(image, str(path))


@contextmanager
def nnunet_environment(root: Path):
    """Point nnU-Net's variables at folders below ``root``; no variable of the caller's survives."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir(exist_ok=True)
            patch.setenv(f"nnUNet_{name}", str(root / name))
        patch.setenv("nnUNet_n_proc_DA", "1")
        patch.setenv("nnUNet_def_n_proc", "1")
        patch.setenv("nnUNet_compile", "f")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("nnUNet_extTrainer", raising=False)
        patch.delenv("D2NET_DEBUG", raising=False)
        patch.delenv("D2NET_CPU_BFLOAT16", raising=False)
        yield root
