"""Writing a segmentation whole or not at all."""

import contextlib
import errno
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.damage import check_whole

NOTE = ".modalities.json"
"""Ending of the note beside each segmentation."""

_UNFINISHED = ".unfinished"


def segmentation_of(
    predictor: nnUNetPredictor, logits: Tensor, properties: dict[str, Any], *, probabilities: bool
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Turn logits into a segmentation on the image's own grid, by nnU-Net's function.

    Args:
        predictor: Knows plans and labels.
        logits: ``(C, *spatial)`` on the preprocessed grid.
        properties: What preprocessing noted about the case.
        probabilities: Return these, too.

    Returns:
        Labels ``(z, y, x)``; with ``probabilities`` also these, ``(C, z, y, x)``.
    """
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        predictor.plans_manager,  # pyright: ignore[reportArgumentType]
        predictor.configuration_manager,  # pyright: ignore[reportArgumentType]
        # not the predictor's own, which stands for several subsets while another case goes through the network
        predictor.plans_manager.get_label_manager(predictor.dataset_json),  # pyright: ignore
        properties,
        return_probabilities=probabilities,
        num_threads_torch=torch.get_num_threads(),
    )


def write_segmentation(
    predictor: nnUNetPredictor,
    logits: Tensor,
    properties: dict[str, Any],
    target: Path,
    note: dict[str, Any],
    *,
    probabilities: bool,
) -> None:
    """Write a segmentation, by nnU-Net's function, whose files appear under their names only when they are complete.

    Args:
        predictor: Knows plans, labels and the file format.
        logits: ``(C, *spatial)`` on the preprocessed grid.
        properties: What preprocessing noted about the case.
        target: Output file without its ending.
        note: What to write beside it, as ``.modalities.json``.
        probabilities: Write nnU-Net's ``.npz`` and ``.pkl`` with the probabilities, too.

    Raises:
        OSError: The disk is full or the folder cannot be written. Some of ITK's writers raise a RuntimeError instead.
    """
    ending = (predictor.dataset_json or {})["file_ending"]
    # a folder of its own, so that another process that has finished cannot remove it
    unfinished = target.parent / _UNFINISHED / target.name / target.name
    _make_inside(unfinished.parent)
    try:
        export_prediction_from_logits(
            logits,
            properties,
            predictor.configuration_manager,  # pyright: ignore[reportArgumentType]
            predictor.plans_manager,  # pyright: ignore[reportArgumentType]
            predictor.dataset_json,  # pyright: ignore[reportArgumentType]
            str(unfinished),
            probabilities,
            num_threads_torch=torch.get_num_threads(),
        )
        _check_written(f"{unfinished}{ending}")
        Path(f"{unfinished}{NOTE}").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        # the segmentation comes last: its presence tells a resumed run that the case is done
        for kind in (*((".npz", ".pkl") if probabilities else ()), NOTE, ending):
            Path(f"{unfinished}{kind}").replace(f"{target}{kind}")
    finally:
        shutil.rmtree(unfinished.parent, ignore_errors=True)


def make_output_folder(folder: Path) -> None:
    """Make a folder for segmentations.

    Raises:
        UserError: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): pass another output folder") from error


def remove_unfinished(folder: Path) -> None:
    """Remove the folder of unfinished files unless another process still writes there."""
    with contextlib.suppress(OSError):
        (folder / _UNFINISHED).rmdir()


def _make_inside(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # another process that has finished has just removed the parent
        folder.mkdir(parents=True, exist_ok=True)


def _check_written(file: str) -> None:
    """Read back what is compressed: on a full disk ITK cuts NIfTI files short and says nothing."""
    try:
        check_whole(file)
    except EOFError as error:
        raise OSError(errno.EIO, "the file was cut short, is the disk full?") from error
