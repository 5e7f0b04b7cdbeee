"""Everything that can be said of one case on its own."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.data.inspect.features import measure_features
from nnunetv2_d2net.data.inspect.geometry import Placed, check_label_place, drop_misaligned
from nnunetv2_d2net.data.inspect.head import Head, find_head, join_heads
from nnunetv2_d2net.data.inspect.labels import check_outside, check_values
from nnunetv2_d2net.data.inspect.raw_dataset import CaseFiles, RawCohort
from nnunetv2_d2net.data.inspect.read_images import note_unusable, read_images, read_label
from nnunetv2_d2net.data.inspect.record import ABSENT, PERCENTILES, CaseRecord

_NO_THICKNESS = 999
"""Spacing that nnU-Net gives to the missing axis of a 2D image; volumes then count it as 1 mm."""


class CaseJob(NamedTuple):
    """One case to look at: its name, its files, and the cohort, whose other cases do not matter."""

    case: str
    files: CaseFiles
    cohort: RawCohort


def inspect_case(job: CaseJob) -> CaseRecord:
    """Look at one case; what is wrong with it is among its findings."""
    case, files, cohort = job
    n = len(cohort.names)
    record = CaseRecord(case, [None] * n, files.label, [ABSENT] * n, percentiles=[None] * n, hashes=[None] * n)
    if files.problem:
        note_unusable(files.problem, record)
        return record
    images = read_images(files.images, cohort, record)
    heads = {m: find_head(image.voxels) for m, image in images.items()}
    _describe_images(images, heads, record)
    aligned = drop_misaligned(images, record, cohort.names)
    label = _inspect_label(cohort, record)
    if aligned:
        _describe_head(aligned, join_heads(heads[m] for m in aligned), label, job, record)
    return record


def _describe_images(images: Mapping[int, Placed], heads: Mapping[int, Head], record: CaseRecord) -> None:
    for m, image in images.items():
        inside = image.voxels[heads[m].mask]
        if inside.size:
            record.percentiles[m] = np.percentile(inside, PERCENTILES).tolist()
        record.hashes[m] = _digest(image.voxels)


def _inspect_label(cohort: RawCohort, record: CaseRecord) -> Placed | None:
    if record.label is None:
        if cohort.labeled:
            record.add("no label", record.case, "the case has no segmentation", "add it, or remove the case")
        return None
    label = read_label(record.label, cohort, record)
    if label is None or not check_values(label.voxels, cohort.known_values, cohort.ignore, record):
        return None
    record.label_hash = _digest(label.voxels) if label.voxels.any() else None
    voxel_ml = _voxel_ml(label)
    record.volumes_ml = {
        region: float(np.isin(label.voxels, values).sum() * voxel_ml) for region, values in cohort.regions.items()
    }
    return label


def _describe_head(
    aligned: Mapping[int, Placed], head: Head, label: Placed | None, job: CaseJob, record: CaseRecord
) -> None:
    """Note place and size, and what takes all images that lie together."""
    first = next(iter(aligned.values()))
    record.shape, record.spacing = list(first.voxels.shape), [float(mm) for mm in first.properties["spacing"]]
    record.head_ml = float(head.mask.sum() * _voxel_ml(first))
    labels, cohort = None, job.cohort
    if label is not None and check_label_place(label, first, record):
        labels = label.voxels
        check_outside(labels, head, cohort.ignore, record)
    values = [value for value in cohort.known_values if value not in (0, cohort.ignore)]
    voxels = {m: image.voxels for m, image in aligned.items()}
    features = measure_features(voxels, head.mask, labels, values, len(cohort.names))
    record.single, record.pairs = features.single.tolist(), features.pairs.tolist()


def _voxel_ml(placed: Placed) -> float:
    edges = [1.0 if edge == _NO_THICKNESS else float(edge) for edge in placed.properties["spacing"]]
    return float(np.prod(edges)) / 1000


def _digest(voxels: NDArray) -> str:
    digest = hashlib.blake2b(repr(voxels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(voxels, np.float32).tobytes())
    return digest.hexdigest()
