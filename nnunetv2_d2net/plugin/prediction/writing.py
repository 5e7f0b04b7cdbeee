"""Writing a segmentation and what belongs to it, whole or not at all."""

import json
import logging
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import save_pickle
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import content_state, explaining_disk_errors, publish, read_json_or, unfinished_folder
from nnunetv2_d2net.base.images import check_whole, check_written, is_planar, keep_place, label_counts, read_image
from nnunetv2_d2net.base.orientation import TURNED, own_place, turned_back
from nnunetv2_d2net.base.text import last_line
from nnunetv2_d2net.plugin.prediction.note import VOLUMES

NOTE = ".modalities.json"
"""Ending of the note beside each segmentation."""

FILES = "files"
"""Key of the note under which size and SHA-256 of each file stand, by its ending."""

_LOG = logging.getLogger("nnunetv2_d2net")
PLACE_OF = "d2net_place_of"
"""Key of a case's properties: the image on whose place its segmentation lies."""


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
    result = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        predictor.plans_manager,  # pyright: ignore[reportArgumentType]
        predictor.configuration_manager,  # pyright: ignore[reportArgumentType]
        # not the predictor's own, which stands for several subsets while another case goes through the network
        predictor.plans_manager.get_label_manager(predictor.dataset_json),  # pyright: ignore
        properties,
        return_probabilities=probabilities,
        num_threads_torch=torch.get_num_threads(),
    )
    arrays = result if isinstance(result, tuple) else (result,)
    labels, *maps = (turned_back(array, properties) for array in arrays)
    return (labels, maps[0]) if maps else labels


def write_segmentation(
    predictor: nnUNetPredictor,
    logits: Tensor,
    properties: dict[str, Any],
    target: Path,
    note: dict[str, Any],
    *,
    probabilities: bool,
) -> dict[str, Any]:
    """Write a segmentation, by nnU-Net's function, whose files appear under their names only when they are complete.

    Args:
        predictor: Knows plans, labels and the file format.
        logits: ``(C, *spatial)`` on the preprocessed grid.
        properties: What preprocessing noted about the case.
        target: Output file without its ending.
        note: What to write beside it, as ``.modalities.json``.
        probabilities: Write nnU-Net's ``.npz`` and ``.pkl`` with the probabilities, too.

    Returns:
        The note with the volume of each region, as it was written.

    Raises:
        UserError: The disk is full or the folder cannot be written.
        RuntimeError: Torch has failed, for want of memory for instance.
    """
    ending = (predictor.dataset_json or {})["file_ending"]
    place_of, properties = properties.get(PLACE_OF), {k: v for k, v in properties.items() if k != PLACE_OF}
    with explaining_disk_errors(target, "free space or pass another -o"), unfinished_folder(target.parent) as folder:
        unfinished = folder / target.name
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
        check_written(Path(f"{unfinished}{ending}"))
        if probabilities and TURNED in properties:
            _turn_probabilities_back(str(unfinished), properties)
        if place_of:
            keep_place(Path(place_of), Path(f"{unfinished}{ending}"))
        kinds = (*((".npz", ".pkl") if probabilities else ()), ending)
        note = {**note, VOLUMES: _volumes(predictor, Path(f"{unfinished}{ending}"))}
        note[FILES] = {kind: content_state(Path(f"{unfinished}{kind}")) for kind in kinds}
        Path(f"{unfinished}{NOTE}").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        # the segmentation comes last: its presence tells a resumed run that the case is done
        for kind in (*kinds[:-1], NOTE, ending):
            publish(Path(f"{unfinished}{kind}"), Path(f"{target}{kind}"))
    return note


def _turn_probabilities_back(unfinished: str, properties: Mapping[str, Any]) -> None:
    """Write probabilities anew onto the case's own grid: only segmentations go through the writer that does so."""
    with np.load(f"{unfinished}.npz") as file:
        probabilities = turned_back(file["probabilities"], properties)
    np.savez_compressed(f"{unfinished}.npz", probabilities=probabilities)
    save_pickle(own_place(properties), f"{unfinished}.pkl")


def is_written(target: str, endings: Sequence[str]) -> bool:
    """Tell whether a case's files are there as they were written, by size and digest.

    Args:
        target: Output file without its ending.
        endings: Of the files.

    Returns:
        False also where one is damaged, which is logged: it is to be written again.

    Raises:
        UserError: Somebody has changed a file.
    """
    if not all(Path(f"{target}{ending}").is_file() for ending in endings):
        return False
    noted = read_json_or(Path(f"{target}{NOTE}"), {}).get(FILES, {})
    for path, ending in ((Path(f"{target}{ending}"), ending) for ending in endings):
        if ending in noted and content_state(path) == noted[ending]:
            continue
        try:
            check_whole(path)
        except (OSError, EOFError, zlib.error) as error:
            _LOG.warning("%s is damaged (%s) and is written again", path, last_line(error))
            return False
        if ending in noted:
            raise UserError(f"{path} was changed after it was written: move it away, or pass another -o")
    return True


def _volumes(predictor: nnUNetPredictor, path: Path) -> dict[str, float]:
    """Volume of each region in ml of a file that was written."""
    segmentation = read_image(path, predictor.plans_manager.image_reader_writer_class().read_seg)
    return volumes_of(segmentation.voxels, segmentation.properties["spacing"], predictor.dataset_json)


def volumes_of(labels: np.ndarray, spacing: Sequence[float], content: Mapping[str, Any]) -> dict[str, float]:
    """Measure each region in ml; nothing where the size of voxels is unknown, as of a picture.

    Args:
        labels: Label values, whole numbers.
        spacing: In mm.
        content: dataset.json's.
    """
    if is_planar(spacing):
        return {}
    counts, of_voxel = label_counts("", labels), math.prod(map(float, spacing)) / 1000
    regions = Dataset.of(content).regions
    return {name: round(sum(counts.get(v, 0) for v in values) * of_voxel, 3) for name, values in regions.items()}
