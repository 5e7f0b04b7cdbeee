"""Everything that can be said of one case on its own: its images, its segmentation, and where they lie.

A file that cannot be used is a finding, not an error.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from numpy.typing import NDArray

from nnunetv2_d2net.base.dataset import CaseFiles, Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.features import HeadMask, find_head, join_heads, measure_features, widen_rough
from nnunetv2_d2net.base.images import (
    Image,
    ImageError,
    differences,
    digest,
    header_oddities,
    is_constant,
    is_planar,
    label_counts,
    read_image,
)
from nnunetv2_d2net.base.orientation import orientation_of
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.data.inspect.record import (
    ABSENT,
    AVAILABLE,
    CONSTANT,
    FILE_NAMES,
    HEADER,
    NOT_FINITE,
    PERCENTILES,
    UNREADABLE,
    CaseRecord,
)
from nnunetv2_d2net.plugin.preprocessing.reading import check_voxels
from nnunetv2_d2net.plugin.preprocessing.training_cases import channels_in_training

_OUTSIDE = {True: 0.01, False: 0.1}
"""Share of the labeled voxels that may lie outside the head, if its border is exact and if it is rough."""

_OTHER_HEAD = "another head"
_UNKNOWN_VALUES = "unknown label values"
_CHECK_HEADER = "look where a viewer shows it, and write the right header anew if that is wrong"
_REGISTER = "register and resample them onto each other; if only the header is wrong, copy the right one"


class CaseJob(NamedTuple):
    """One case to look at, with nnU-Net's reader; whether a segmentation is expected, and whether it is trained on."""

    case: str
    files: CaseFiles
    dataset: Dataset
    reader: type[BaseReaderWriter]
    labeled: bool
    trained_on: bool = True


def inspect_case(job: CaseJob) -> CaseRecord:
    """Look at one case; what is wrong with it is among its findings."""
    n = len(job.dataset.channels)
    record = CaseRecord(job.case, [None] * n, job.files.label, [ABSENT] * n, percentiles=[None] * n, hashes=[None] * n)
    if job.files.problem:
        _note_file_names(job.files.problem, record)
        return record
    images = _read_images(job, record)
    heads = {m: find_head(image.voxels[0]) for m, image in images.items()}
    for m, image in images.items():
        inside = image.voxels[0][heads[m].voxels]
        record.percentiles[m] = np.percentile(inside, PERCENTILES).tolist() if inside.size else None
        record.hashes[m] = digest(image.voxels)
    aligned = _drop_misaligned(images, job.dataset.channels, record)
    _look_for_other_heads(aligned, record)
    label = _read_label(job, record)
    for file, oddity in header_oddities([*images.values(), *([label] if label else ())]):
        record.add(HEADER, str(file), f"it {oddity}", _CHECK_HEADER)
    if aligned:
        _describe_head(aligned, join_heads(heads[m] for m in aligned), label, job.dataset, record)
    return record


def _read_images(job: CaseJob, record: CaseRecord) -> dict[int, Image]:
    """Read what the case has; return the usable images ``(1, z, y, x)`` by modality: finite and not constant."""
    files, names, images = job.files.images, job.dataset.channels, {}
    try:
        channels = (
            channels_in_training(job.files, job.dataset) if job.trained_on else job.dataset.assign_channels(files)
        )
    except UserError as error:
        _note_file_names(str(error), record)
        return {}
    for file, channel in zip(files, channels, strict=True):
        image = _read_file(file, channel, job, record)
        if image is None:
            continue
        targets = _targets(len(image.voxels), channel, job)
        if len(image.voxels) != len(targets):
            reason = f"it holds {len(image.voxels)} channels"
            record.add("misaligned", file, reason, "split it into one file per modality")
        for m, voxels in zip(targets, image.voxels[:, None], strict=False):
            record.files[m], record.states[m] = file, AVAILABLE
            if is_constant(voxels):
                record.states[m] = CONSTANT
                reason = f"every voxel of {names[m]} is {voxels.flat[0]:g}, so it counts as absent"
                record.add("constant", file, reason, "provide the real image, or remove the file")
            else:
                images[m] = image._replace(voxels=voxels)
    if set(record.states) <= {ABSENT, CONSTANT}:
        record.add("no modality", record.label, "the case has no image at all", "add one, or remove the case")
    return images


def _read_file(file: str, channel: int, job: CaseJob, record: CaseRecord) -> Image | None:
    reader, decoded = job.reader(), []
    try:
        return read_image(file, lambda name: decoded.append(reader.read_images((name,))) or decoded[-1])
    except ImageError as error:
        if error.kind != "NaN":
            record.files[channel], record.states[channel] = file, UNREADABLE
            record.add(UNREADABLE, file, f"the image {error.reason}", error.remedy)
            return None
        for m in _targets(len(decoded[-1][0]), channel, job):
            record.files[m], record.states[m] = file, NOT_FINITE
            record.add(NOT_FINITE, file, f"{job.dataset.channels[m]} {error.reason}", error.remedy)
        return None


def _targets(n_held: int, channel: int, job: CaseJob) -> list[int]:
    """The modalities that a file holds: the one it is called, unless it is the case's only file and has all."""
    n = len(job.dataset.channels)
    return list(range(n)) if len(job.files.images) == 1 and n_held == n else [channel]


def _note_file_names(problem: str, record: CaseRecord) -> None:
    """Note that the files of a case cannot be told apart."""
    record.states = [UNREADABLE] * len(record.states)
    reason, _, remedy = problem.rpartition(": ")
    record.add(FILE_NAMES, "", reason or problem, remedy if reason else "rename the files")


def _drop_misaligned(images: Mapping[int, Image], names: tuple[str, ...], record: CaseRecord) -> dict[int, Image]:
    """Note which images lie elsewhere than most of the case's, and return those that lie together."""
    if not images:
        return {}
    together = {m: [n for n in images if not differences(images[m], images[n])] for m in images}
    reference = max(images, key=lambda m: len(together[m]))  # the first of equals
    for m, image in images.items():
        if m not in together[reference]:
            ways = ", ".join(differences(image, images[reference]))
            record.add(
                "misaligned", record.files[m], f"{names[m]} differs from {names[reference]} in {ways}", _REGISTER
            )
    return {m: images[m] for m in together[reference]}


def _look_for_other_heads(aligned: Mapping[int, Image], record: CaseRecord) -> None:
    """Note what preprocessing would refuse or tell of images beside each other; copies are looked for in all cases."""
    distinct = {record.hashes[m]: m for m in aligned}
    shared = len({record.files[m] for m in aligned}) < len(aligned)  # one file with all of them, such as a photograph
    files = [] if shared else [(record.files[m] or "", aligned[m].voxels[0]) for m in distinct.values()]
    try:
        lines = check_voxels(files, in_memory=True)
    except ImageError as error:
        record.add(_OTHER_HEAD, str(error.path), f"it {error.reason}", error.remedy)
        return
    for reason, _, remedy in (line.rpartition(": ") for line in lines):
        record.add(_OTHER_HEAD, "", reason, remedy)


def _read_label(job: CaseJob, record: CaseRecord) -> Image | None:
    """Read the segmentation and note its volumes, and what shows that it is none of this data set."""
    if record.label is None:
        if job.labeled:
            record.add("no label", record.case, "the case has no segmentation", "add it, or remove the case")
        return None
    try:
        label = read_image(record.label, job.reader().read_seg, is_label=True)
    except ImageError as error:
        kind = _UNKNOWN_VALUES if error.kind == "NaN" else UNREADABLE
        record.add(kind, record.label, f"the label {error.reason}", error.remedy)
        return None
    if len(label.voxels) > 1:
        reason = f"the label holds {len(label.voxels)} volumes, of which only the first is looked at"
        record.add("misaligned", record.label, reason, "write the one that belongs to the images, alone")
    label = label._replace(voxels=_check_values(label.voxels[:1], job.dataset, record))
    record.label_hash = digest(label.voxels) if label.voxels.any() else None
    regions, voxel_ml = job.dataset.regions, _voxel_ml(label)
    record.volumes_ml = {name: float(np.isin(label.voxels, v).sum() * voxel_ml) for name, v in regions.items()}
    return label


def _check_values(labels: NDArray, dataset: Dataset, record: CaseRecord) -> NDArray:
    """Note label values that dataset.json does not name, and a label with nothing in it; return whole numbers."""
    try:
        values = label_counts(record.label or "", labels)
    except ImageError as error:
        record.add(_UNKNOWN_VALUES, record.label, f"the label {error.reason}", error.remedy)
        return labels
    known = dataset.known_values
    if unknown := [value for value in values if value not in known]:
        reason = f"the label holds {listed(unknown)}, dataset.json knows {', '.join(map(str, known))}"
        record.add(_UNKNOWN_VALUES, record.label, reason, "map the values, or add them to dataset.json's labels")
    if set(values) <= {0, dataset.ignore}:
        remedy = "keep it if there is nothing to see; else look for the right file"
        record.add("empty label", record.label, "no voxel is labeled", remedy)
    return np.rint(labels)


def _describe_head(
    aligned: Mapping[int, Image], head: HeadMask, label: Image | None, dataset: Dataset, record: CaseRecord
) -> None:
    """Note place and size, and what takes all images that lie together."""
    first = next(iter(aligned.values()))
    record.shape, record.spacing = list(first.voxels.shape[1:]), [float(mm) for mm in first.properties["spacing"]]
    record.orientation = orientation_of(first.properties)
    record.head_ml = float(head.voxels.sum() * _voxel_ml(first))
    labels = None
    if label is not None:
        if ways := differences(label, first):
            reason = f"the label differs from the images in {', '.join(ways)}"
            record.add("misaligned", record.label, reason, _REGISTER)
        if label.voxels.shape == first.voxels.shape:
            labels = label.voxels[0]
            _check_outside(labels, head, dataset.ignore, record)
    values = [value for value in dataset.known_values if value not in (0, dataset.ignore)]
    voxels = {m: image.voxels[0] for m, image in aligned.items()}
    record.features = measure_features(voxels, head.voxels, labels, values, len(dataset.channels)).tolist()


def _check_outside(labels: NDArray, head: HeadMask, ignore: int | None, record: CaseRecord) -> None:
    """Note labeled voxels where no image shows anything; ignored ones may lie anywhere."""
    labeled = ~np.isin(labels, [0] if ignore is None else [0, ignore])
    total, outside = int(labeled.sum()), int((labeled & ~widen_rough(head)).sum())
    if total and outside / total > _OUTSIDE[head.exact]:
        reason = f"{outside} of {total} labeled voxels ({outside / total:.0%}) lie where every image is background"
        remedy = "check that label and images are of one patient and one grid"
        record.add("label outside the image", record.label, reason, remedy)


def _voxel_ml(image: Image) -> float:
    """Return the volume of a voxel; images of two dimensions count as 1 mm thick."""
    thickness, *edges = map(float, image.properties["spacing"])
    return (1.0 if is_planar((thickness, *edges)) else thickness) * math.prod(edges) / 1000
