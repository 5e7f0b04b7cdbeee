"""One patient, segmented: from images by name to labels on the patient's own grid, and how far to trust them."""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunetv2_d2net.base.dataset import Dataset, available_from_names
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.progress import is_watched
from nnunetv2_d2net.patient.grid import OWN, OnOneGrid, on_one_grid
from nnunetv2_d2net.patient.model import CHECKPOINT, find_model, folds_of, shipped_model
from nnunetv2_d2net.patient.reading import SequenceImage, Source, read_sequences
from nnunetv2_d2net.patient.result import RESEARCH_ONLY, Segmented
from nnunetv2_d2net.patient.stripping import STRIPPED, skull_warnings, strip_skull
from nnunetv2_d2net.patient.volumes import measure_volumes
from nnunetv2_d2net.plugin.planning.plans import MISSING_IN_MODEL
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor

_LOG = logging.getLogger("nnunetv2_d2net")


def segment(  # noqa: PLR0913 - all but the first have defaults
    images: Mapping[str, Source],
    model: Path | str | None = None,
    *,
    reference: str | None = None,
    register: bool = False,
    strip: bool = False,
    mirror: bool = False,
    device: str | None = None,
    progress: bool = False,
) -> Segmented:
    """Segment one patient, as ``d2net segment`` does.

    Args:
        images: By the name of the sequence, in any case, as many as there are: a file, a folder of one DICOM series or
            a file of it, a SimpleITK image, or an array ``(x, y, z)`` with its affine, as nibabel has them.
        model: Folder of a trained model; None for the one that comes with this package.
        reference: The sequence on whose grid the segmentation lies; None for the one of the finest voxels.
        register: Register the others rigidly onto it.
        strip: Let HD-BET, where it is installed, take the skull away.
        mirror: Average over mirrored views, which takes up to eight times as long.
        device: ``cpu`` or ``cuda``; None for a CUDA device where there is one.
        progress: Show nnU-Net's bar, where somebody watches.

    Raises:
        UserError: There is no such model, or an image cannot be used.
    """
    folder = shipped_model() if model is None else find_model(Path(model))
    dataset = Dataset.read(folder / "dataset.json", MISSING_IN_MODEL)
    channels = dataset.channels
    sequences, constant = read_sequences(_by_channel(images, channels))
    grid = on_one_grid(sequences, reference and _channel(reference, channels), registered=register)
    for line in (f"{one.source} {grid.how[name]}" for name, one in sequences.items() if grid.how[name] != OWN):
        _LOG.info("%s", line)
    predictor = _load(folder, device, mirror=mirror, progress=progress)
    if strip:
        grid = grid._replace(images=strip_skull(grid.images, grid.reference, predictor.device.type))
    cohort = predictor.model.cohort if predictor.model else None
    remarks = [f"{one.source} {note}" for one in sequences.values() for note in one.notes] + constant
    remarks += grid.remarks
    remarks += [STRIPPED.format(grid.reference)] if strip else skull_warnings(sequences, cohort)
    for line in remarks:
        _LOG.warning("%s", line)
    with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net's steps
        segmentation = predictor.predict_images(grid.images, case="the patient")
    note = _note(predictor.note or {}, sequences, grid, remarks)
    owner = sequences[grid.reference]
    volumes = measure_volumes(segmentation, dataset)
    return Segmented(segmentation, volumes, note, grid.images, dataset.regions, owner.placed, owner.file)


def _by_channel(images: Mapping[str, Source], channels: Sequence[str]) -> dict[str, Source]:
    """Name the images as the model does, in the order of its channels."""
    named = {_channel(name, channels): image for name, image in images.items()}
    if len(named) < len(images):
        raise UserError(f"{', '.join(images)}: several images for one sequence: pass one of each")
    return {channel: named[channel] for channel in channels if channel in named}


def _channel(name: str, channels: Sequence[str]) -> str:
    return channels[available_from_names(channels, keep=[name]).index(True)]


def _load(folder: Path, device: str | None, *, mirror: bool, progress: bool) -> D2NetPredictor:
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise UserError("torch finds no CUDA device: pass -device cpu, or install the driver and a CUDA build of torch")
    chosen = torch.device(device or ("cuda" if cuda else "cpu"))
    with contextlib.redirect_stdout(io.StringIO()):  # what nnU-Net says of its settings
        predictor = D2NetPredictor(use_mirroring=mirror, device=chosen, allow_tqdm=progress and is_watched())
        predictor.initialize_from_trained_model_folder(str(folder), folds_of(folder), CHECKPOINT)
    return predictor


def _note(
    predicted: Mapping[str, Any], sequences: Mapping[str, SequenceImage], grid: OnOneGrid, remarks: Sequence[str]
) -> dict[str, Any]:
    """The predictor's note, and where each sequence comes from."""
    places = {name: {"source": one.source, "grid": grid.how[name]} for name, one in sequences.items()}
    said = [*predicted["remarks on the images"], *remarks]
    return {"use": RESEARCH_ONLY, **predicted, "sequences": places, "remarks on the images": said}
