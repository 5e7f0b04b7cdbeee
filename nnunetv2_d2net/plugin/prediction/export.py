"""Export a trained model for prediction alone, in the layout that nnU-Net reads and imports."""

import re
import shutil
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnunetv2_d2net.base.dataset import channels_of, subset_name
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import (
    explaining_disk_errors,
    locked_output,
    publish,
    read_json,
    read_json_or,
    sha256_of,
    unfinished_folder,
    write_json,
)
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.method.network.companion import STOCK, chosen_network
from nnunetv2_d2net.method.network.d2net import inference_weights
from nnunetv2_d2net.plugin.planning.plans import MISSING_IN_MODEL, read_plans
from nnunetv2_d2net.plugin.prediction.model_folder import read_model
from nnunetv2_d2net.plugin.prediction.note import EXPECTED_DICE, Measured
from nnunetv2_d2net.plugin.prediction.operating_point import with_thresholds
from nnunetv2_d2net.plugin.start import SEPARATOR

_NEEDED = ("dataset.json", "plans.json")
_DATASET = re.compile(r"Dataset[0-9]{3}_[\w.-]+")
_PATH = re.compile(r"(?<![\w.:/\\-])(?:/|~/|[A-Za-z]:[\\/])(?:[^\s/\\\"']+[\\/])+[^\s/\\\"']*")
"""An absolute path within a text: no URL, no fraction."""
_TRAINING_FILES = "dataset"
"""Where dataset.json lists images and labels of training cases, which prediction does not need."""
_KEPT = ("dataset_fingerprint.json", EXPECTED_DICE)
_NO_FOLDER = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".pth")  # but another kind of file


class ExportedCheckpoint(NamedTuple):
    """One checkpoint's size, in bytes, before and after."""

    name: str
    before: int
    after: int


def export_model(  # noqa: PLR0913 - settings have defaults
    model: Path,
    output: Path,
    folds: Sequence[str] | None = None,
    checkpoint_name: str = "checkpoint_final.pth",
    *,
    stock: bool = True,
    half: bool = False,
    thresholds: Sequence[float] | None = None,
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
        stock: Keep the stock network of a companion; without it the student predicts with all modalities, too.
        half: Write the weights in half precision; they are loaded into a network of single precision, as always.
        thresholds: The probability at which each region begins, where it is not one half: written into the last bias.

    Raises:
        UserError: The model lacks a file, one of them cannot be used, names code from elsewhere or is a link, or its
            folder has another name; or the output exists, cannot be written or is called as something else.
    """
    checkpoints = _checkpoints(model, folds, checkpoint_name)
    for path in (*(model / name for name in (*_NEEDED, *_KEPT)), *checkpoints, *(p.parent for p in checkpoints)):
        if path.is_symlink():
            raise UserError(f"{path} is a link, which export does not follow: put the file itself there")
    for name in _NEEDED:
        if not (model / name).is_file():
            raise UserError(f"{model / name} does not exist: pass the folder of a trained model")
    settings = {"stock": stock, "half": half, "thresholds": thresholds}
    originals = read_model(model, checkpoints)
    contents = [_for_prediction(content, **settings) for content in originals]
    place = Path(_dataset_name(model), _model_name(model, originals[0]))
    remedy = "free space or pass another -o"
    with locked_output(output), explaining_disk_errors(output, remedy), unfinished_folder(output.parent) as temporary:
        _check_output(output)
        results = temporary / "results"
        target = results / place
        sizes = _write(model, dict(zip(checkpoints, contents, strict=True)), target)
        if thresholds is None:
            others = () if stock else _by_stock(model, originals)
            _keep_measured(model, target, [checkpoint.name for checkpoint in sizes], others)
        else:  # measured of regions that began elsewhere
            (target / EXPECTED_DICE).unlink(missing_ok=True)
        if output.suffix.lower() == ".zip":
            publish(_zipped(results, temporary / output.name), output)
        else:
            publish(results, output)  # takes the place of an empty folder
    return sizes


def _checkpoints(model: Path, folds: Sequence[str] | None, name: str) -> list[Path]:
    foreign = [fold for fold in folds or () if str(fold) != "all" and not str(fold).isdecimal()]
    if foreign:
        raise UserError(f"{foreign[0]} is no fold: give a number such as 0, or all")
    found = sorted(model.glob(f"fold_*/{name}")) if folds is None else [model / f"fold_{f}" / name for f in folds]
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        wanted = missing[0] if missing else model / "fold_*" / name
        remedy = "pass the folder of a trained model, and folds that it has"
        if any(model.glob(f"fold_*/{name}.pth")):
            remedy = f"pass -chk {name}.pth"
        raise UserError(f"{wanted} does not exist: {remedy}")
    return found


def _dataset_name(model: Path) -> str:
    """Return the data set's name: that of the model's parent folder, or else that of its plans."""
    name = model.resolve().parent.name
    if not name.startswith("Dataset"):
        name = read_plans(model / "plans.json")["dataset_name"]
    if not _DATASET.fullmatch(name):
        raise UserError(f"{model}: {name!r} is no name of a data set such as Dataset007_Name: rename it")
    return name


def _model_name(model: Path, checkpoint: Mapping[str, Any]) -> str:
    """Return the folder's name, by which nnU-Net looks for trainer, plans and configuration; no other will do."""
    parts = model.resolve().name.split(SEPARATOR)
    trainer, last = checkpoint["trainer_name"], checkpoint["init_args"]["configuration"]
    if parts[:1] + parts[2:] != [trainer, last]:
        needed = SEPARATOR.join((trainer, read_plans(model / "plans.json")["plans_name"], last))
        raise UserError(f"{model} is not named as nnU-Net looks for it: rename it to {needed}, then export it")
    return model.resolve().name


def _check_output(output: Path) -> None:
    if output.suffix.lower() in _NO_FOLDER:
        raise UserError(f"{output}: export writes a .zip or a folder, no {output.suffix}: pass another -o")
    if output.exists() and (output.is_file() or any(output.iterdir())):  # a folder may be nnUNet_results itself
        raise UserError(f"{output} exists: pass another -o{', or remove it' if output.is_file() else ''}")


def _write(model: Path, checkpoints: Mapping[Path, dict[str, Any]], target: Path) -> list[ExportedCheckpoint]:
    target.mkdir(parents=True)
    for name in (*_NEEDED, *_KEPT):
        if (model / name).is_file():
            _copy_json(model / name, target / name)
    sizes = []
    for path, content in Bar(checkpoints.items(), title="export", total=len(checkpoints), unit="fold"):
        written = target / path.parent.name / path.name
        written.parent.mkdir()
        torch.save(content, written)
        sizes.append(ExportedCheckpoint(f"{path.parent.name}/{path.name}", path.stat().st_size, written.stat().st_size))
    return sizes


def _by_stock(model: Path, folds: Sequence[Mapping[str, Any]]) -> set[str]:
    """Name the subsets with which the stock network of a companion predicts, in any fold; none of another model."""
    companions = [fold["network_weights"] for fold in folds if "by_stock" in fold["network_weights"]]
    names = channels_of(read_json(model / "dataset.json", MISSING_IN_MODEL)) if companions else ()
    return {
        subset_name(subset, names)
        for subset in (modality_subsets(len(names)).tolist() if companions else ())
        if any(chosen_network(weights, subset) == STOCK for weights in companions)
    }


def _keep_measured(model: Path, target: Path, names: Sequence[str], otherwise: Collection[str]) -> None:
    """Let what was measured with the model's checkpoints hold for the exported ones.

    Args:
        model: The model's folder.
        target: That of the exported one.
        names: Of the checkpoints, below either.
        otherwise: Subsets with which the exported ones segment otherwise, of which nothing is kept.
    """
    path = target / EXPECTED_DICE
    content = read_json_or(path, {})
    for key in Measured._fields:
        if isinstance(content.get(key), dict):
            content[key] = {subset: value for subset, value in content[key].items() if subset not in otherwise}
    of = content.get("checkpoints")
    if isinstance(of, dict):
        same = [name for name in names if name in of and of[name] == sha256_of(model / name)]
        content["checkpoints"] = of | {name: sha256_of(target / name) for name in same}
    if otherwise and not content.get("dice"):
        path.unlink(missing_ok=True)
    elif content:
        write_json(path, content, indent=4)


def _copy_json(source: Path, target: Path) -> None:
    """Copy a file, byte by byte unless it names files of this machine: of these the last part of the name stays."""
    content = read_json(source, MISSING_IN_MODEL)
    shareable = _without_paths({key: value for key, value in content.items() if key != _TRAINING_FILES})
    if shareable == content:
        shutil.copyfile(source, target)
    else:
        write_json(target, shareable, indent=4)


def _without_paths(content: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(content, dict):
        return {_without_paths(key): _without_paths(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_paths(value) for value in content]
    if not isinstance(content, str):
        return content
    if Path(content).is_absolute() or PureWindowsPath(content).is_absolute():
        return PureWindowsPath(content).name  # which takes / for \\, too
    return _PATH.sub(lambda match: PureWindowsPath(match[0]).name, content)


def _for_prediction(
    checkpoint: dict[str, Any], *, stock: bool, half: bool, thresholds: Sequence[float] | None
) -> dict[str, Any]:
    """Keep the entries that nnU-Net's predictor reads."""
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    weights = inference_weights(checkpoint["network_weights"])
    if not stock:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(f"{STOCK}.")}
    if thresholds is not None:
        weights = with_thresholds(weights, thresholds)
    if half:
        weights = _halved(weights)
    return {
        "network_weights": weights,
        "trainer_name": checkpoint["trainer_name"],
        "init_args": {"configuration": checkpoint["init_args"]["configuration"]},
        "inference_allowed_mirroring_axes": None if axes is None else tuple(int(axis) for axis in axes),
    }


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in half precision; what one network has under several names is written once, as before."""
    halved = {(t.data_ptr(), t.shape): t.half() for t in weights.values() if t.is_floating_point()}
    return {name: halved.get((tensor.data_ptr(), tensor.shape), tensor) for name, tensor in weights.items()}


def _zipped(results: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(p for p in results.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(results))
    return archive
