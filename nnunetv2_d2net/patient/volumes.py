"""How large what was segmented is, by label and by region, in ml."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import SimpleITK as sitk

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.images import label_counts
from nnunetv2_d2net.data.convert.layouts import BRATS2021

KINDS = ("label", "region")


class Volume(NamedTuple):
    """One label or region.

    Attributes:
        kind: ``label`` or ``region``.
        name: Of the region, or what the label means.
        values: Label values that belong to it.
        ml: Its volume.
    """

    kind: str
    name: str
    values: tuple[int, ...]
    ml: float


def measure_volumes(segmentation: sitk.Image, dataset: Dataset) -> list[Volume]:
    """Measure each label and each region of a model.

    Args:
        segmentation: Label values, whole numbers.
        dataset: Of the model.
    """
    counts = label_counts("", sitk.GetArrayViewFromImage(segmentation))
    of_voxel = math.prod(segmentation.GetSpacing()) / 1000
    names = label_names(dataset.regions)
    parts = [("label", name, (value,)) for value, name in names.items()]
    parts += [("region", name, values) for name, values in dataset.regions.items()]
    return [Volume(*part, round(sum(counts.get(v, 0) for v in part[2]) * of_voxel, 3)) for part in parts]


def label_names(regions: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """Say what each label value means: as BraTS has it, or else by the smallest region that it is in.

    Example:
        >>> label_names({"whole": (1, 2), "core": (2,)})
        {1: 'whole without core', 2: 'core'}
        >>> label_names({"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,)})
        {1: 'necrotic or non-enhancing core', 2: 'edema', 3: 'enhancing tumor'}
    """
    scheme = BRATS2021.scheme
    if regions == Dataset.of({**scheme.described(scheme.values), "file_ending": ""}, only_labels=True).regions:
        return {scheme.values[value]: name for value, name in scheme.names.items() if value}
    return {value: _name(value, regions) for value in sorted({v for values in regions.values() for v in values})}


def _name(value: int, regions: Mapping[str, Sequence[int]]) -> str:
    own = min((name for name, values in regions.items() if value in values), key=lambda name: len(regions[name]))
    within = [n for n, values in regions.items() if n != own and set(values) < set(regions[own])]
    return f"{own} without {' and '.join(within)}" if within else own


def as_json(volumes: Sequence[Volume]) -> dict[str, Any]:
    """Lay volumes out for a JSON file."""
    content: dict[str, Any] = {"unit": "ml"}
    for kind in KINDS:
        content[f"{kind}s"] = {v.name: {"values": list(v.values), "ml": v.ml} for v in volumes if v.kind == kind}
    return content


def as_csv(volumes: Sequence[Volume]) -> str:
    """Lay volumes out as a table; the values of a region stand side by side in one cell."""
    rows = [f'{v.kind},"{v.name}",{" ".join(map(str, v.values))},{v.ml}' for v in volumes]
    return "\n".join(["kind,name,values,ml", *rows, ""])
