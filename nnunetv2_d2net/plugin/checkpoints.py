"""Reading nnU-Net's checkpoints without running what they may contain."""

import operator
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import check_key
from nnunetv2_d2net.base.text import reason_of
from nnunetv2_d2net.method.network.d2net import inference_weights

_NUMPY_SCALARS = [
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
]
"""What nnU-Net's log holds beside plain Python."""

_NO_CHECKPOINT = "is no checkpoint of nnU-Net's: pass one that a training has written"
_DAMAGE = (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, AssertionError)
"""What torch raises where bytes are missing or changed."""
_ZIP = b"PK\x03\x04"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net's as data.

    Args:
        path: The file.

    Returns:
        Its content, tensors on the CPU.

    Raises:
        UserError: It cannot be read, or not without running code in it, or holds something else.
    """
    content = _content_of(path)
    if not isinstance(content, dict) or not {"network_weights", "trainer_name", "init_args"} <= set(content):
        raise UserError(f"{path} {_NO_CHECKPOINT}")
    remedy = "pass one that a training has written"
    for key, kind in (("network_weights", dict), ("trainer_name", str), ("init_args", dict)):
        check_key(content, key, kind, str(path), remedy)
    weights = content["network_weights"]
    if not weights or not all(isinstance(n, str) and isinstance(w, Tensor) for n, w in weights.items()):
        raise UserError(f'{path}: "network_weights" holds something else than tensors: {remedy}')
    try:
        [operator.index(axis) for axis in content.get("inference_allowed_mirroring_axes") or ()]
    except TypeError as error:
        raise UserError(f'{path}: "inference_allowed_mirroring_axes" holds no whole numbers: {remedy}') from error
    return content


def read_folds(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the checkpoints of one model's folds, with which something can be predicted.

    Args:
        paths: One for each fold.

    Returns:
        Their content.

    Raises:
        UserError: One cannot be read, holds NaN or infinite weights, or is another model's than the first one.
    """
    folds = [read_checkpoint(path) for path in paths]
    for path, fold in zip(paths, folds, strict=True):
        check_key(
            fold["init_args"], "configuration", str, f'{path}: "init_args"', "pass one that a training has written"
        )
        check_finite(path, inference_weights(fold["network_weights"]))
        if _identity(fold) != _identity(folds[0]):
            raise UserError(
                f"{path} is of another model than {paths[0]}: put the fold of this model there, or leave it out"
            )
    return folds


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are NaN or infinite: all that comes of them is NaN, or background.

    Args:
        path: Where they come from.
        weights: By name.

    Raises:
        UserError: One is.
    """
    broken = next((n for n, weight in weights.items() if not torch.isfinite(weight).all()), None)
    if broken:
        raise UserError(
            f"{path} holds NaN or infinite weights ({broken}), the training has failed: "
            "take checkpoint_best.pth if that holds none, or train again"
        )


def _identity(checkpoint: Mapping[str, Any]) -> tuple[object, ...]:
    weights = inference_weights(checkpoint["network_weights"])
    shapes = {name: weight.shape for name, weight in weights.items()}
    return checkpoint["trainer_name"], checkpoint["init_args"]["configuration"], shapes


def _content_of(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        with path.open("rb") as file:
            begins_as_zip = _ZIP.startswith(file.read(len(_ZIP)))  # or is empty
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}): check the path and its permissions") from error
    is_whole_zip = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            # torch before 1.6 wrote no zip files, and can map only those
            return torch.load(path, map_location="cpu", mmap=is_whole_zip, weights_only=True)
    except (pickle.UnpicklingError, *_DAMAGE) as error:
        if is_whole_zip and (isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error)):
            problem = "holds more than weights and numbers, or is no checkpoint: take it only from someone you trust"
        elif begins_as_zip:
            problem = "is cut short or damaged: copy it again"
        else:
            problem = _NO_CHECKPOINT
        raise UserError(f"{path} {problem}") from error
