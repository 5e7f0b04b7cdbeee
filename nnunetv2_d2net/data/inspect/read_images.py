"""Reads the images of one case; a file that cannot be used is noted, not raised."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from numpy.typing import NDArray

from nnunetv2_d2net.base.case_files import assign_channels
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.inspect.geometry import Placed
from nnunetv2_d2net.data.inspect.raw_dataset import RawCohort
from nnunetv2_d2net.data.inspect.record import ABSENT, AVAILABLE, CONSTANT, NOT_FINITE, UNREADABLE, CaseRecord
from nnunetv2_d2net.plugin.preprocessing.damage import check_whole, is_finite
from nnunetv2_d2net.plugin.preprocessing.reading import last_line

_COPY_AGAIN = "it may be cut short: copy it again, or leave it out"


def read_images(files: Sequence[str], cohort: RawCohort, record: CaseRecord) -> dict[int, Placed]:
    """Read what a case has.

    Args:
        files: Its image files.
        cohort: The data set.
        record: Where files, states and findings are noted.

    Returns:
        The usable images by modality: finite and not constant.
    """
    n = len(cohort.names)
    try:
        channels = assign_channels(files, n)
    except UserError as error:
        note_unusable(str(error), record)
        return {}
    images = {}
    for file, channel in zip(files, channels, strict=True):
        read = _read_file(file, cohort.reader())
        if isinstance(read, str):
            record.files[channel], record.states[channel] = file, UNREADABLE
            record.add("unreadable", file, f"the image cannot be read ({read})", _COPY_AGAIN)
            continue
        voxels, properties = read
        targets = range(n) if len(files) == 1 and len(voxels) == n else [channel]
        if len(voxels) != len(targets):
            record.add("misaligned", file, f"it holds {len(voxels)} channels", "split it into one file per modality")
        for target, image in zip(targets, voxels, strict=False):
            placed = Placed(file, image, properties)
            record.files[target] = file
            record.states[target] = _state(placed, cohort.names[target], record)
            if record.states[target] == AVAILABLE:
                images[target] = placed
    if not images and set(record.states) <= {ABSENT, CONSTANT}:
        record.add("no modality", record.label, "the case has no image at all", "add one, or remove the case")
    return images


def read_label(file: str, cohort: RawCohort, record: CaseRecord) -> Placed | None:
    """Read a case's segmentation.

    Args:
        file: Of the segmentation.
        cohort: The data set.
        record: Where findings are noted.
    """
    try:
        check_whole(file)
        labels, properties = cohort.reader().read_seg(file)
    except Exception as error:  # readers raise what they like
        record.add("unreadable", file, f"the label cannot be read ({last_line(error)})", _COPY_AGAIN)
        return None
    if not is_finite(file):
        labels = np.full_like(labels, np.nan, dtype=np.float32)  # SimpleITK has put zeros in NaN's place
    return Placed(file, labels[0], properties)


def note_unusable(problem: str, record: CaseRecord) -> None:
    """Note that the files of a case cannot be told apart."""
    record.states = [UNREADABLE] * len(record.states)
    reason, _, remedy = problem.rpartition(": ")
    record.add("file names", "", reason or problem, remedy if reason else "rename the files")


def _read_file(file: str, reader: BaseReaderWriter) -> tuple[NDArray[np.floating], dict[str, Any]] | str:
    try:
        check_whole(file)
        image, properties = reader.read_images((file,))
    except Exception as error:  # readers raise what they like
        return last_line(error)
    return (image, properties) if is_finite(file) else (np.full_like(image, np.nan, dtype=np.float32), properties)


def _state(image: Placed, name: str, record: CaseRecord) -> str:
    if not np.isfinite(image.voxels).all():
        reason = f"{name} holds NaN or infinite voxels"
        record.add("NaN or infinite", image.file, reason, "export it again, or leave it out")
        return NOT_FINITE
    low, high = float(image.voxels.min()), float(image.voxels.max())
    if low == high:
        reason = f"every voxel of {name} is {low:g}, so it counts as absent"
        record.add("constant", image.file, reason, "provide the real image, or remove the file")
        return CONSTANT
    return AVAILABLE
