"""Scores one case and subset, after checks that prediction and reference belong together."""

import functools
import zlib
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.damage import check_whole
from nnunetv2_d2net.plugin.preprocessing.reading import last_line
from nnunetv2_d2net.study.scores.metrics import CaseScore, score_labels

_GEOMETRY_TOLERANCE = 1e-3
"""Largest difference, in mm or as a cosine, between the geometries of prediction and reference."""


class Job(NamedTuple):
    """One case and subset to score.

    Attributes:
        case: Name of the case.
        subset: Name of the subset.
        prediction: Segmentation.
        reference: Segmentation.
        regions: Label values by region.
        known: All label values of the data set.
        ignore: Label of voxels that do not count, if there is one.
        tolerance_mm: Of the surface Dice.
    """

    case: str
    subset: str
    prediction: Path
    reference: Path
    regions: dict[str, tuple[int, ...]]
    known: tuple[int, ...]
    ignore: int | None
    tolerance_mm: float


def score_case(job: Job) -> list[CaseScore] | str:
    """Score the regions of one case and subset, or say in one line why that cannot be done."""
    try:
        if not job.reference.is_file():
            raise UserError(f"{job.reference} does not exist: provide it, or remove {job.prediction}")
        prediction = _read(job.prediction)
        reference = _read_reference(job.reference, job.reference.stat().st_mtime_ns)
        _check_geometry(job, prediction, reference)
        _check_labels(job.prediction, prediction, [value for value in job.known if value != job.ignore])
        _check_labels(job.reference, reference, job.known)
    except UserError as error:
        return f"case {job.case!r}, {job.subset}: {error}"
    scores = score_labels(
        prediction.labels,
        reference.labels,
        prediction.geometry["spacing"][::-1],
        job.regions,
        ignore=job.ignore,
        tolerance_mm=job.tolerance_mm,
    )
    return [
        CaseScore._make([job.case, job.subset, region, *(round(v, 6) for v in (dice, *surfaces)), *voxels])
        for region, (dice, surfaces, *voxels) in scores.items()
    ]


class _Segmentation(NamedTuple):
    labels: NDArray[np.generic]
    geometry: dict[str, tuple[float, ...]]


def _read(path: Path) -> _Segmentation:
    try:
        check_whole(str(path))
        image = sitk.ReadImage(str(path))
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({last_line(error)}): it may be cut short, write it again") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(f"{path} holds {image.GetNumberOfComponentsPerPixel()} channels: one of labels is needed")
    names = {"shape": image.GetSize(), "spacing": image.GetSpacing(), "origin": image.GetOrigin()}
    return _Segmentation(sitk.GetArrayFromImage(image), names | {"direction": image.GetDirection()})


@functools.lru_cache(maxsize=1)
def _read_reference(path: Path, changed: int) -> _Segmentation:
    """Read a reference once for all subsets of its case, which follow one another."""
    del changed
    return _read(path)


def _check_geometry(job: Job, prediction: _Segmentation, reference: _Segmentation) -> None:
    for what, value in prediction.geometry.items():
        expected = reference.geometry[what]
        if len(value) != len(expected) or np.abs(np.subtract(value, expected)).max() > _GEOMETRY_TOLERANCE:
            raise UserError(
                f"{job.prediction} and {job.reference} differ in {what}, {_short(value)} and {_short(expected)}: "
                "resample one of them onto the other"
            )


def _short(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _check_labels(path: Path, segmentation: _Segmentation, known: Container[int]) -> None:
    unknown = [str(value) for value in np.unique(segmentation.labels).tolist() if value not in known]
    if unknown:
        raise UserError(f"{path} holds {', '.join(unknown[:5])}, no label of dataset.json: use the labels it names")
