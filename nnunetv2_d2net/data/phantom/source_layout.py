"""Phantom cases in folders as BraTS distributes them, to try ``d2net convert`` on."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nnunetv2_d2net.data.phantom import dataset
from nnunetv2_d2net.data.phantom.anatomy import mni_affine
from nnunetv2_d2net.data.phantom.dataset import FILE_ENDING, CaseKey, PhantomSpec, open_folder
from nnunetv2_d2net.data.phantom.fields import SPACINGS
from nnunetv2_d2net.data.phantom.writing import explaining_disk_errors, run_all, write_volume


class SourceLayout(NamedTuple):
    """How a layout names and numbers.

    Attributes:
        case: Name of a case, by split and number.
        suffixes: Of the images, in the order of ``MODALITIES``, and of the segmentation.
        values: Label value of background, core, edema and enhancing tumor.
        graded: Put training cases below HGG or LGG: with or without enhancing tumor.
    """

    case: dict[str, str]
    suffixes: tuple[str, ...]
    values: tuple[int, int, int, int]
    graded: bool


LAYOUTS = {
    "brats2018": SourceLayout(
        {"Tr": "Phantom18_{:04d}", "Ts": "Phantom18_test_{:04d}"},
        ("_flair", "_t1", "_t1ce", "_t2", "_seg"),
        (0, 1, 2, 4),
        graded=True,
    ),
    "brats2023": SourceLayout(
        {"Tr": "Phantom-GLI-{:05d}-000", "Ts": "Phantom-GLI-{:05d}-100"},
        ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"),
        (0, 1, 2, 3),
        graded=False,
    ),
}


def write_source(folder: Path, layout: str, spec: PhantomSpec, *, processes: int = 1, resume: bool = False) -> None:
    """Write ``training`` and ``test`` below a folder, one folder per case, test cases with their segmentation.

    Args:
        folder: Created where missing.
        layout: A key of ``LAYOUTS``.
        spec: The cases; its number and name do not matter.
        processes: How many cases at a time; with 1 no process is started.
        resume: Complete an interrupted folder of the same parameters.

    Raises:
        UserError: The folder exists (or, to be resumed, has other parameters), the disk is full, or nilearn is missing.
    """
    parameters = {"layout": layout} | {
        name: value for name, value in spec.recorded().items() if name not in ("dataset_id", "name")
    }
    keys = [CaseKey("Tr", number) for number in range(spec.n_train)]
    keys += [CaseKey("Ts", number) for number in range(spec.n_test)]
    with explaining_disk_errors(folder):
        open_folder(folder, parameters, "-o", resume=resume)
        (folder / ".partial").mkdir(exist_ok=True)
        results = run_all(partial(_complete_case, folder, layout, spec), keys, processes)
        for _ in tqdm(results, total=len(keys), desc=folder.name, unit="case"):
            pass
        shutil.rmtree(folder / ".partial", ignore_errors=True)


def _complete_case(folder: Path, layout: str, spec: PhantomSpec, key: CaseKey) -> None:
    """Write a case, its segmentation last; what has a segmentation is complete."""
    form = LAYOUTS[layout]
    name = form.case[key.split].format(key.number)
    parent = folder / ("training" if key.split == "Tr" else "test")
    if any(parent.glob(f"**/{name}/{name}{form.suffixes[-1]}{FILE_ENDING}")):
        return
    case = dataset.simulate_case(spec.size, key.seed(spec.seed))
    labels = np.array(form.values, dtype=np.uint8)[case.labels]
    if form.graded and key.split == "Tr":
        parent /= "HGG" if (case.labels == 3).any() else "LGG"
    target, affine = parent / name, mni_affine(SPACINGS[spec.size])
    target.mkdir(parents=True, exist_ok=True)
    images = [image.astype(np.int16) for image in case.images]
    for volume, suffix in _kept([*images, labels], form.suffixes, (*spec.kept(key), True)):
        write_volume(folder / ".partial", target / f"{name}{suffix}{FILE_ENDING}", volume, affine)


def _kept(volumes: Sequence[np.ndarray], suffixes: Sequence[str], kept: Sequence[bool]) -> list[tuple[np.ndarray, str]]:
    return [(volume, suffix) for volume, suffix, keep in zip(volumes, suffixes, kept, strict=True) if keep]
