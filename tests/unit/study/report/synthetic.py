"""A benchmark folder as d2net benchmark leaves it, made without any training: predictions are shifted references."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunetv2_d2net.study.report.results import Benchmark
from nnunetv2_d2net.study.scores.comparison import compare_arms, write_comparison
from nnunetv2_d2net.study.scores.evaluate import evaluate_folder
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import subset_order

ARMS = ("nnUNetTrainer", "nnUNetTrainerModalityDropout", "D2NetTrainer")
MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
REGIONS = {"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,)}


@dataclass(frozen=True)
class Synthetic:
    """What the folder holds."""

    arms: Sequence[str] = ARMS
    modalities: Sequence[str] = MODALITIES
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: REGIONS)
    cases: Sequence[str] = ("case_0", "case_1", "case_2")
    subsets: Sequence[str] = ()  # all of them
    shape: tuple[int, int, int] = (8, 24, 20)
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0)  # z, y, x in mm
    direction: Sequence[float] = (-1, 0, 0, 0, -1, 0, 0, 0, 1)  # x to the right, y forward, as NIfTI likes it


def write_benchmark(root: Path, spec: Synthetic | None = None) -> Path:
    """Write images, references, predictions and scores below root; return the benchmark's folder."""
    spec = spec or Synthetic()
    rng = np.random.default_rng(0)
    out = root / "bench"
    for kind in ("images", "references"):
        (root / kind).mkdir(parents=True)
    for number, case in enumerate(spec.cases):
        labels = _labels(spec, number)
        _write(labels, spec, root / "references" / f"{case}.nii.gz")
        for channel in range(len(spec.modalities)):
            image = 100 * (labels + 1) * (channel + 1) + rng.normal(scale=15, size=labels.shape)
            _write(image.astype(np.float32), spec, root / "images" / f"{case}_{channel:04d}.nii.gz")
        for strength, arm in enumerate(spec.arms):
            for subset in spec.subsets or subset_order(spec.modalities):
                missing = len(spec.modalities) - len(subset.split("+"))
                shift = max(0, missing + (number % 2) - strength)
                path = out / arm / "predictions" / subset / f"{case}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(np.roll(labels, shift, axis=2), spec, path)
    _score(root, out, spec)
    return out


def made_up(
    dice: Mapping[str, Sequence[float]], *, complete: Mapping[str, Sequence[float]] | None = None, **setup: Any
) -> Benchmark:
    """Make a benchmark of two modalities from the Dice of each arm's cases; the complete subset may differ."""
    scores = {
        arm: [
            CaseScore(f"c{case}", subset, "tumor", (complete or dice)[arm][case] if "+" in subset else value, *_REST)
            for case, value in enumerate(values)
            for subset in ("A", "B", "A+B")
        ]
        for arm, values in dice.items()
    }
    return from_scores(scores, **setup)


def from_scores(scores: dict[str, list[CaseScore]], **setup: Any) -> Benchmark:
    """Make a benchmark of two modalities from the rows of each arm."""
    modalities = ["A", "B"]
    content = {
        "dataset": "Dataset001_Made",
        "arms": [{"name": arm} for arm in scores],
        "modalities": modalities,
        "regions": {"tumor": [1]},
        "images": "images",
        "references": "references",
        "file_ending": ".nii.gz",
    }
    costs, checkpoints = {arm: {} for arm in scores}, {arm: set() for arm in scores}
    compared = _compare(scores, modalities, setup.get("subsets", {}))
    return Benchmark(Path("bench"), content | setup, scores, compared, costs, checkpoints)


_REST = (1.0, 1.0, 0.9, 10, 10)


def _compare(
    scores: Mapping[str, Sequence[CaseScore]], modalities: Sequence[str], weights: Mapping[str, float] | None = None
):
    settings: Any = {"modalities": modalities, "weights": weights or {}, "resamples": 49}
    return [
        row
        for rival, arm in combinations(scores, 2)
        for row in compare_arms(scores[arm], scores[rival], arm=arm, rival=rival, **settings)
    ]


def _score(root: Path, out: Path, spec: Synthetic) -> None:
    description = {
        "channel_names": {str(i): name for i, name in enumerate(spec.modalities)},
        "labels": {"background": 0, **{name: list(values) for name, values in spec.regions.items()}},
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    scores = {}
    for arm in spec.arms:
        for folder in (out / arm / "predictions").iterdir():
            (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
        found = evaluate_folder(out / arm / "predictions", root / "references", out / arm)
        assert not found.failures
        scores[arm] = found.scores
        cost = {"training_seconds": 1234.0, "step_seconds": 0.5, "parameters": 1000, "inference_gflops": None}
        (out / arm / "cost.json").write_text(json.dumps(cost), encoding="utf-8")
    write_comparison(_compare(scores, spec.modalities), out / "comparison.csv")
    setup = {
        "dataset": "Dataset001_Synthetic",
        "configuration": "3d_fullres",
        "plans": "D2NetPlans",
        "folds": ["all"],
        "cases": "test",
        "mirroring": True,
        "subsets": dict.fromkeys(spec.subsets, 1.0),
        "arms": [{"name": arm, "epochs": 10, "patch_size": [8, 16, 16]} for arm in spec.arms],
        "modalities": list(spec.modalities),
        "regions": {name: list(values) for name, values in spec.regions.items()},
        "images": str(root / "images"),
        "references": str(root / "references"),
        "file_ending": ".nii.gz",
        "command": "d2net benchmark -d Dataset001_Synthetic -c 3d_fullres",
        "versions": {"nnunetv2": "2.8.1"},
        "machine": {"cpu": "a processor", "cores": 2, "gpu": None},
        "started": "2030-01-01T00:00:00",
        "differences": [],
    }
    (out / "setup.json").write_text(json.dumps(setup), encoding="utf-8")
    (out / "gathered.json").write_text("{}", encoding="utf-8")


def _labels(spec: Synthetic, number: int) -> np.ndarray:
    """Nested balls that lie forward and to the patient's left, larger from case to case; air around them."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in spec.shape), indexing="ij")
    distance = np.sqrt(z**2 + (y - 0.3) ** 2 + (x + 0.2) ** 2)
    labels = np.zeros(spec.shape, np.uint8)
    for label, radius in ((2, 0.6), (1, 0.4), (3, 0.25)):
        labels[distance < radius + 0.04 * number] = label
    highest = max(value for values in spec.regions.values() for value in values)
    return np.minimum(labels, highest)


def _write(array: np.ndarray, spec: Synthetic, path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spec.spacing[::-1])
    image.SetDirection(spec.direction)
    sitk.WriteImage(image, str(path))
