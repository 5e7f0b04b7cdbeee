"""Write phantom cases as a complete raw data set of nnU-Net, in parallel, resumable, overwriting nothing."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from tqdm import tqdm

from nnunetv2_d2net.errors import UserError
from nnunetv2_d2net.phantom.anatomy import mni_affine
from nnunetv2_d2net.phantom.case import simulate_case
from nnunetv2_d2net.phantom.contrast import measure_contrast, write_contrast_table
from nnunetv2_d2net.phantom.fields import SPACINGS
from nnunetv2_d2net.phantom.mri import MODALITIES

FILE_ENDING = ".nii.gz"
_RECORD = "phantom.json"
_SPLITS = {"Tr": "glioma_{:04d}", "Ts": "glioma_test_{:04d}"}
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

    Raises:
        UserError: A value out of range.
    """

    dataset_id: int
    n_train: int
    n_test: int
    size: str = "small"
    seed: int = 0
    name: str = "GliomaPhantom"

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
                re.fullmatch(r"[A-Za-z0-9_-]+", self.name) is not None,
                f"name {self.name!r} cannot be a folder's: choose --name of letters, digits, - and _",
            ),
        )
        for valid, message in checks:
            if not valid:
                raise UserError(message)

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
    with _explaining_disk_errors(folder):
        _open_folder(folder, spec, resume=resume)
        measured = _write_cases(folder, spec, processes)
        write_contrast_table(folder / "contrast.csv", measured, MODALITIES)
        shutil.rmtree(folder / ".partial", ignore_errors=True)
        # Last: without it nnU-Net refuses the folder, so a data set that it accepts is complete.
        _write_json(folder / "dataset.json", describe_dataset(spec))
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
    record = asdict(spec) | {"revision": _REVISION, "nilearn": _nilearn_version(), "numpy": np.__version__}
    if not folder.exists():
        folder.mkdir(parents=True)
        _write_json(folder / _RECORD, record)
    elif not resume:
        raise UserError(f"{folder} exists: choose another -d or --name, remove it, or complete it with --resume")
    else:
        _check_record(folder / _RECORD, record)
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs", ".partial"):
        (folder / name).mkdir(exist_ok=True)


def _check_record(path: Path, record: dict) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged, nothing to resume: choose another -d or remove it") from error
    for key, value in record.items():
        if not isinstance(found, dict) or found.get(key) != value:
            was = found.get(key) if isinstance(found, dict) else None
            raise UserError(f"{path} says {key} {was!r}, not {value!r}: resume with the same, or choose another -d")


def _nilearn_version() -> str:
    try:
        return version("nilearn")
    except ImportError as error:
        raise UserError("the phantom's anatomy comes with nilearn: pip install nilearn") from error


def _write_cases(folder: Path, spec: PhantomSpec, processes: int) -> NDArray[np.floating]:
    """Complete every case; returns what ``measure_contrast`` says, ``(case, 2, modality, region)``."""
    keys = [CaseKey("Tr", index) for index in range(spec.n_train)]
    keys += [CaseKey("Ts", index) for index in range(spec.n_test)]
    results = _run_all(partial(complete_case, folder, spec), keys, processes)
    progress = tqdm(results, total=len(keys), desc=f"{spec.folder_name}", unit="case")
    measured = dict(progress)
    return np.stack([measured[key] for key in keys])


def _run_all(work: partial, keys: list[CaseKey], processes: int) -> Iterator[tuple[CaseKey, NDArray[np.floating]]]:
    if processes <= 1:
        yield from ((key, work(key)) for key in keys)
        return
    with ProcessPoolExecutor(min(processes, len(keys)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, key): key for key in keys}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def complete_case(folder: Path, spec: PhantomSpec, key: CaseKey) -> NDArray[np.floating]:
    """Write one case unless all its files are there; measure it either way.

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
    if all(path.is_file() for path in (*image_paths, label_path)):
        return measure_contrast(np.stack([_read(path) for path in image_paths]), _read(label_path).astype(np.uint8))
    case = simulate_case(spec.size, key.seed(spec.seed))
    affine = mni_affine(SPACINGS[spec.size])
    for path, image in zip(image_paths, case.images, strict=True):
        _write(folder / ".partial", path, image.astype(np.int16), affine)
    _write(folder / ".partial", label_path, case.labels, affine)
    return measure_contrast(case.images, case.labels)


def _read(path: Path) -> NDArray[np.floating]:
    try:
        return np.asanyarray(nibabel.load(path).dataobj).T.astype(np.float32)  # pyright: ignore
    except (EOFError, ValueError, ImageFileError) as error:
        raise UserError(f"{path} is damaged: remove it and run again with --resume") from error


def _write(partial_folder: Path, path: Path, volume: NDArray, affine: NDArray[np.floating]) -> None:
    """Write ``(z, y, x)`` under a temporary name, then rename: a file under its own name is whole."""
    temporary = partial_folder / f"{os.getpid()}_{path.name}"
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), affine)  # pyright: ignore
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="mni")
    image.set_sform(affine, code="mni")
    nibabel.save(image, temporary)  # pyright: ignore
    temporary.replace(path)


def _write_json(path: Path, content: dict) -> None:
    temporary = path.with_name(f".{os.getpid()}_{path.name}")
    temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    temporary.replace(path)


@contextmanager
def _explaining_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {folder} ({reason}): make room or mend it, then run with --resume") from error
