"""Phantom cases in folders as BraTS distributes them, to try ``d2net convert`` on."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnunetv2_d2net.base.files import explaining_disk_errors, locked_folder
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.data.phantom import dataset
from nnunetv2_d2net.data.phantom.dataset import FILE_ENDING, RESUME, CaseKey, PhantomSpec, open_folder, write_case
from nnunetv2_d2net.data.phantom.fields import SPACINGS


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


def write_source(
    folder: Path, layout: str, spec: PhantomSpec, *, processes: int = 1, resume: bool = False, progress: bool = False
) -> None:
    """Write ``training`` and ``test`` below a folder, one folder per case, test cases with their segmentation.

    Args:
        folder: Created where missing.
        layout: A key of ``LAYOUTS``.
        spec: The cases; its number and name do not matter.
        processes: How many cases at a time; with 1 no process is started.
        resume: Complete an interrupted folder of the same parameters.
        progress: Show a bar.

    Raises:
        UserError: The folder holds something (or, to be resumed, has other parameters), another process writes it, the
            disk is full, a process was killed, or nilearn is missing.
    """
    parameters = {name: value for name, value in asdict(spec).items() if name not in ("dataset_id", "name")}
    with locked_folder(folder), explaining_disk_errors(folder, RESUME):
        open_folder(folder, {"layout": layout} | parameters, "-o", resume=resume)
        complete = partial(_complete_case, folder, LAYOUTS[layout], spec)
        for _ in run_all(complete, spec.keys, processes, title=folder.name, progress=progress):
            pass


def _complete_case(folder: Path, layout: SourceLayout, spec: PhantomSpec, key: CaseKey) -> None:
    """Write a case, its segmentation last; what has a segmentation is complete."""
    name = layout.case[key.split].format(key.number)
    parent = folder / ("training" if key.split == "Tr" else "test")
    if any(parent.glob(f"**/{name}/{name}{layout.suffixes[-1]}{FILE_ENDING}")):
        return
    case = dataset.simulate(spec, key)
    if layout.graded and key.split == "Tr":
        parent /= "HGG" if (case.labels == 3).any() else "LGG"
    (parent / name).mkdir(parents=True, exist_ok=True)
    paths = [parent / name / f"{name}{suffix}{FILE_ENDING}" for suffix in layout.suffixes]
    labels = np.array(layout.values, dtype=np.uint8)[case.labels]
    write_case(paths, case._replace(labels=labels), spec.kept(key), SPACINGS[spec.size])
