"""Write phantom cases as a complete raw data set of nnU-Net, in parallel, resumable, overwriting nothing."""

import itertools
import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.phantom.anatomy import mni_affine
from nnunetv2_d2net.data.phantom.case import simulate_case
from nnunetv2_d2net.data.phantom.contrast import measure_contrast, write_contrast_table
from nnunetv2_d2net.data.phantom.fields import SPACINGS
from nnunetv2_d2net.data.phantom.missing import draw_kept
from nnunetv2_d2net.data.phantom.mri import MODALITIES
from nnunetv2_d2net.data.phantom.writing import explaining_disk_errors, run_all, write_json, write_volume

FILE_ENDING = ".nii.gz"
_RECORD = "phantom.json"
_SPLITS = {"Tr": "glioma_{:04d}", "Ts": "glioma_test_{:04d}"}
_MOST_MISSING = (len(MODALITIES) - 1) / len(MODALITIES)
_REVISION = 2  # raised when the same seed starts to give other voxels


@dataclass(frozen=True)
class PhantomSpec:
    """What to write; checked on construction.

    Attributes:
        dataset_id: nnU-Net's number of the data set, 1 to 999.
        n_train: Training cases, at least 1.
        n_test: Test cases, may be 0.
        size: A key of ``fields.SPACINGS``.
        seed: At least 0.
        name: What follows ``DatasetXXX_``.
        missing: Share of the training images that are left out at random; every case keeps one.

    Raises:
        UserError: A value out of range.
    """

    dataset_id: int
    n_train: int
    n_test: int
    size: str = "small"
    seed: int = 0
    name: str = "GliomaPhantom"
    missing: float = 0.0

    def __post_init__(self) -> None:
        checks = (
            (
                1 <= self.dataset_id <= 999,
                f"data set ID {self.dataset_id} is out of range: choose -d between 1 and 999",
            ),
            (1 <= self.n_train <= 9999, f"{self.n_train} training cases: choose --train between 1 and 9999"),
            (0 <= self.n_test <= 9999, f"{self.n_test} test cases: choose --test between 0 and 9999"),
            (self.size in SPACINGS, f"size {self.size!r} is unknown: choose --size from {', '.join(SPACINGS)}"),
            (self.seed >= 0, f"seed {self.seed} is negative: choose --seed of at least 0"),
            (
                0 <= self.missing <= _MOST_MISSING,
                f"a share of {self.missing:g} of the images missing: choose --missing from 0 to {_MOST_MISSING}, every "
                "case keeps one",
            ),
            (
                re.fullmatch(r"[A-Za-z0-9_-]+", self.name) is not None,
                f"name {self.name!r} cannot be a folder's: choose --name of letters, digits, - and _",
            ),
        )
        for valid, message in checks:
            if not valid:
                raise UserError(message)

    def kept(self, key: "CaseKey") -> tuple[bool, ...]:
        """Say which images of a case are written, in the order of ``MODALITIES``; test cases are complete."""
        if key.split != "Tr" or not self.missing:
            return (True,) * len(MODALITIES)
        return tuple(draw_kept(self.n_train, len(MODALITIES), self.missing, self.seed)[key.number].tolist())

    def recorded(self) -> dict:
        """List the parameters for the record; ``missing`` only where images are."""
        return {name: value for name, value in asdict(self).items() if name != "missing" or value}

    @property
    def folder_name(self) -> str:
        """Name of the data set's folder below nnU-Net's raw folder."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"


class CaseKey(NamedTuple):
    """One case of a data set: ``split`` is ``Tr`` or ``Ts``; each split has its own stream of seeds."""

    split: str
    number: int

    @property
    def name(self) -> str:
        """The case's identifier in nnU-Net."""
        return _SPLITS[self.split].format(self.number)

    def seed(self, seed: int) -> np.random.SeedSequence:
        """The case's seed: depends on nothing but the data set's seed, the split and the number."""
        return np.random.SeedSequence(seed, spawn_key=(list(_SPLITS).index(self.split), self.number))


def write_phantom(raw_folder: Path, spec: PhantomSpec, *, processes: int = 1, resume: bool = False) -> Path:
    """Write a data set, and ``contrast.csv`` with what one voxel of one modality gives away.

    Args:
        raw_folder: nnU-Net's raw folder, created where missing.
        spec: What to write.
        processes: How many cases are made at a time; with 1 no process is started.
        resume: Complete an interrupted data set of the same ``spec``.

    Returns:
        The data set's folder.

    Raises:
        UserError: The folder exists (or, to be resumed, has other parameters), the number is taken by another data
            set, the disk is full or not writable, or nilearn is missing.
    """
    refuse_taken_number([raw_folder], spec)
    folder = raw_folder / spec.folder_name
    with explaining_disk_errors(folder):
        _open_folder(folder, spec, resume=resume)
        measured = _write_cases(folder, spec, processes)
        write_contrast_table(folder / "contrast.csv", measured, MODALITIES)
        shutil.rmtree(folder / ".partial", ignore_errors=True)
        # Last: without it nnU-Net refuses the folder, so a data set that it accepts is complete.
        write_json(folder / "dataset.json", describe_dataset(spec))
    return folder


def refuse_taken_number(roots: Iterable[Path], spec: PhantomSpec) -> None:
    """Refuse a number that another data set has in one of nnU-Net's folders; nnU-Net could tell them apart no more.

    Raises:
        UserError: Such a data set.
    """
    for root in roots:
        for other in sorted(root.glob(f"Dataset{spec.dataset_id:03d}_*")):
            if other.name != spec.folder_name:
                raise UserError(f"{other} has the number {spec.dataset_id} already: choose another -d, or remove it")


def describe_dataset(spec: PhantomSpec) -> dict:
    """The content of dataset.json. The regions' order matters: nnU-Net pairs it with ``regions_class_order``."""
    return {
        "name": spec.folder_name,
        "description": "Simulated brain MRI with gliomas; synthetic, for demonstrations and tests only.",
        "channel_names": {str(index): name for index, name in enumerate(MODALITIES)},
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": 3},
        "regions_class_order": [2, 1, 3],
        "numTraining": spec.n_train,
        "file_ending": FILE_ENDING,
    }


def _open_folder(folder: Path, spec: PhantomSpec, *, resume: bool) -> None:
    open_folder(folder, spec.recorded(), "-d or --name", resume=resume)
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs", ".partial"):
        (folder / name).mkdir(exist_ok=True)


def open_folder(folder: Path, parameters: dict, other: str, *, resume: bool) -> None:
    """Make a folder with a record of what is to be written, or check that an existing one has the same record.

    Args:
        folder: For the data.
        parameters: Of what is written; versions are added.
        other: Words for the arguments that choose another folder.
        resume: Complete an existing folder.

    Raises:
        UserError: The folder exists, or is to be completed with other parameters.
    """
    record = parameters | {"revision": _REVISION, "nilearn": _nilearn_version(), "numpy": np.__version__}
    if not folder.exists():
        folder.mkdir(parents=True)
        write_json(folder / _RECORD, record)
    elif not resume:
        raise UserError(f"{folder} exists: choose another {other}, remove it, or complete it with --resume")
    else:
        _check_record(folder / _RECORD, record, other)


def _check_record(path: Path, record: dict, other: str) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is missing or damaged, nothing to resume: choose another {other}, or remove it"
        ) from error
    found = {"missing": 0.0} | (found if isinstance(found, dict) else {})
    for key, value in ({"missing": 0.0} | record).items():
        if found.get(key) != value:
            was = found.get(key)
            raise UserError(
                f"{path} says {key} {was!r}, not {value!r}: resume with the same, or choose another {other}"
            )


def _nilearn_version() -> str:
    try:
        return version("nilearn")
    except ImportError as error:
        raise UserError("the phantom's anatomy comes with nilearn: pip install nilearn") from error


def _write_cases(folder: Path, spec: PhantomSpec, processes: int) -> NDArray[np.floating]:
    """Complete every case; returns what ``measure_contrast`` says, ``(case, 2, modality, region)``."""
    keys = [CaseKey("Tr", index) for index in range(spec.n_train)]
    keys += [CaseKey("Ts", index) for index in range(spec.n_test)]
    results = run_all(partial(complete_case, folder, spec), keys, processes)
    progress = tqdm(results, total=len(keys), desc=f"{spec.folder_name}", unit="case")
    measured = dict(progress)
    return np.stack([measured[key] for key in keys])


def complete_case(folder: Path, spec: PhantomSpec, key: CaseKey) -> NDArray[np.floating]:
    """Write one case unless all its files are there; measure all its images either way, also those left out.

    Args:
        folder: The data set's folder, with its subfolders.
        spec: The data set.
        key: The case.

    Returns:
        What ``measure_contrast`` says.
    """
    label_path = folder / f"labels{key.split}" / f"{key.name}{FILE_ENDING}"
    image_paths = [
        folder / f"images{key.split}" / f"{key.name}_{channel:04d}{FILE_ENDING}" for channel in range(len(MODALITIES))
    ]
    kept = spec.kept(key)
    if all(kept) and all(path.is_file() for path in (*image_paths, label_path)):
        return measure_contrast(np.stack([_read(path) for path in image_paths]), _read(label_path).astype(np.uint8))
    case = simulate_case(spec.size, key.seed(spec.seed))
    affine = mni_affine(SPACINGS[spec.size])
    for path, image in itertools.compress(zip(image_paths, case.images, strict=True), kept):
        write_volume(folder / ".partial", path, image.astype(np.int16), affine)
    write_volume(folder / ".partial", label_path, case.labels, affine)
    return measure_contrast(case.images, case.labels)


def _read(path: Path) -> NDArray[np.floating]:
    try:
        return np.asanyarray(nibabel.load(path).dataobj).T.astype(np.float32)  # pyright: ignore
    except (EOFError, ValueError, ImageFileError) as error:
        raise UserError(f"{path} is damaged: remove it and run again with --resume") from error
