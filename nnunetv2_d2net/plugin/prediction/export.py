"""Export a trained model for prediction alone, in the layout that nnU-Net reads and imports."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.network.d2net import inference_weights
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from nnunetv2_d2net.plugin.prediction.used import EXPECTED_DICE
from nnunetv2_d2net.plugin.preprocessing.reading import last_line

_NEEDED = ("dataset.json", "plans.json")
_KEPT = ("dataset_fingerprint.json", EXPECTED_DICE)


class ExportedCheckpoint(NamedTuple):
    """One checkpoint's size, in bytes, before and after."""

    name: str
    before: int
    after: int


def export_model(
    model: Path, output: Path, folds: Sequence[str] | None = None, checkpoint_name: str = "checkpoint_final.pth"
) -> list[ExportedCheckpoint]:
    """Write what prediction needs of a model: no branches, optimizer states or logs of the training.

    nnU-Net predicts with the result as with the original, where this package is installed. Its checkpoints load with
    ``torch.load(weights_only=True)``.

    Args:
        model: The model's folder, ``DatasetXXX_NAME/TRAINER__PLANS__CONFIGURATION``.
        output: A new file that ends in ``.zip``, for ``nnUNetv2_install_pretrained_model_from_zip``; or a new or empty
            folder, to be used as ``nnUNet_results``.
        folds: Which folds; None for all that have the checkpoint.
        checkpoint_name: Which checkpoint.

    Raises:
        UserError: The model lacks a file, a checkpoint cannot be read, or the output exists or cannot be written.
    """
    checkpoints = _checkpoints(model, folds, checkpoint_name)
    for name in _NEEDED:
        if not (model / name).is_file():
            raise UserError(f"{model / name} does not exist: pass the folder of a trained model")
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise UserError(f"{output} exists: pass another -o, or remove it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export_") as temporary:
            sizes = _write(model, checkpoints, Path(temporary) / "results")
            _publish(Path(temporary), output)
    except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk
        what = getattr(error, "strerror", None) or last_line(error)
        raise UserError(f"{output} cannot be written ({what}): free space or pass another -o") from error
    return sizes


def _checkpoints(model: Path, folds: Sequence[str] | None, name: str) -> list[Path]:
    found = sorted(model.glob(f"fold_*/{name}")) if folds is None else [model / f"fold_{f}" / name for f in folds]
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        wanted = missing[0] if missing else model / "fold_*" / name
        raise UserError(f"{wanted} does not exist: pass the folder of a trained model, and folds that it has")
    return found


def _write(model: Path, checkpoints: Sequence[Path], results: Path) -> list[ExportedCheckpoint]:
    plans = json.loads((model / "plans.json").read_text(encoding="utf-8"))
    dataset = model.resolve().parent.name
    target = results / (dataset if dataset.startswith("Dataset") else plans["dataset_name"]) / model.resolve().name
    target.mkdir(parents=True)
    for name in (*_NEEDED, *_KEPT):
        if (model / name).is_file():
            shutil.copyfile(model / name, target / name)
    sizes = []
    for path in tqdm(checkpoints, desc="export", unit="fold"):
        written = target / path.parent.name / path.name
        written.parent.mkdir()
        torch.save(_for_prediction(read_checkpoint(path)), written)
        sizes.append(ExportedCheckpoint(f"{path.parent.name}/{path.name}", path.stat().st_size, written.stat().st_size))
    return sizes


def _for_prediction(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Keep the entries that nnU-Net's predictor reads."""
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    return {
        "network_weights": inference_weights(checkpoint["network_weights"]),
        "trainer_name": checkpoint["trainer_name"],
        "init_args": {"configuration": checkpoint["init_args"]["configuration"]},
        "inference_allowed_mirroring_axes": None if axes is None else tuple(int(axis) for axis in axes),
    }


def _publish(temporary: Path, output: Path) -> None:
    """Give the complete result its name."""
    results = temporary / "results"
    if output.suffix != ".zip":
        if output.is_dir():
            output.rmdir()
        results.replace(output)
        return
    archive = temporary / output.name
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(p for p in results.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(results))
    archive.replace(output)
