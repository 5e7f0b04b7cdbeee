"""Write phantom cases as a complete raw data set of nnU-Net, in parallel, resumable, overwriting nothing."""

import itertools
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.dataset import dataset_folder_name, refuse_taken_number
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import LOCK, explaining_disk_errors, locked_folder, read_json, write_json, written_whole
from nnunetv2_d2net.base.images import ImageError, read_image
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.base.text import version_of
from nnunetv2_d2net.data.phantom.anatomy import mni_affine
from nnunetv2_d2net.data.phantom.case import simulate_case
from nnunetv2_d2net.data.phantom.contrast import measure_contrast, write_contrast_table
from nnunetv2_d2net.data.phantom.fields import SPACINGS
from nnunetv2_d2net.data.phantom.mri import MODALITIES

FILE_ENDING = ".nii.gz"
RESUME = "free space or make it writable, then run again with --resume"
_RECORD = "phantom.json"
_SPLITS = {"Tr": "glioma_{:04d}", "Ts": "glioma_test_{:04d}"}
_MOST_MISSING = (len(MODALITIES) - 1) / len(MODALITIES)
_STREAM_OF_MISSING = 2  # of the seed; 0 and 1 are those of the training and the test cases
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
        dataset_folder_name(self.dataset_id, self.name)
        checks = (
            (1 <= self.n_train <= 9999, f"{self.n_train} training cases: choose --train between 1 and 9999"),
            (0 <= self.n_test <= 9999, f"{self.n_test} test cases: choose --test between 0 and 9999"),
            (self.size in SPACINGS, f"size {self.size!r} is unknown: choose --size from {', '.join(SPACINGS)}"),
            (self.seed >= 0, f"seed {self.seed} is negative: choose --seed of at least 0"),
            (
                0 <= self.missing <= _MOST_MISSING,
                f"a share of {self.missing:g} of the images missing: choose --missing from 0 to {_MOST_MISSING}, every "
                "case keeps one",
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
        return dataset_folder_name(self.dataset_id, self.name)

    def keys(self) -> "list[CaseKey]":
        """List the cases, those for training first."""
        numbers = {"Tr": self.n_train, "Ts": self.n_test}
        return [CaseKey(split, number) for split, n_cases in numbers.items() for number in range(n_cases)]


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


def draw_kept(n_cases: int, n_modalities: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Draw which images stay when a share of all is removed at random; every case keeps at least one.

    Args:
        n_cases: Training cases.
        n_modalities: M.
        share: Of the images that are removed, from 0 to (M - 1) / M, rounded to whole images.
        seed: The data set's; the same seed, share and numbers remove the same images.

    Returns:
        Bool ``(n_cases, n_modalities)``.

    Example:
        >>> int(draw_kept(60, 4, 0.2, seed=0).sum())
        192
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM_OF_MISSING,)))
    kept = np.ones((n_cases, n_modalities), dtype=bool)
    n_left = round(share * kept.size)
    for case, modality in (divmod(int(slot), n_modalities) for slot in rng.permutation(kept.size)):
        if n_left and kept[case].sum() > 1:
            kept[case, modality] = False
            n_left -= 1
    return kept


def write_phantom(
    raw_folder: Path, spec: PhantomSpec, *, processes: int = 1, resume: bool = False, progress: bool = False
) -> Path:
    """Write a data set, and ``contrast.csv`` with what one voxel of one modality gives away.

    Args:
        raw_folder: nnU-Net's raw folder, created where missing.
        spec: What to write.
        processes: How many cases are made at a time; with 1 no process is started.
        resume: Complete an interrupted data set of the same ``spec``.
        progress: Show a bar.

    Returns:
        The data set's folder.

    Raises:
        UserError: The folder holds something (or, to be resumed, has other parameters), another process writes it, the
            number is taken by another data set, the disk is full or not writable, a process was killed, or nilearn is
            missing.
    """
    refuse_taken_number([raw_folder], spec.folder_name)
    folder, keys = raw_folder / spec.folder_name, spec.keys()
    with locked_folder(folder), explaining_disk_errors(folder, RESUME):
        open_folder(folder, spec.recorded(), "-d or --name", resume=resume)
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (folder / name).mkdir(exist_ok=True)
        complete = partial(complete_case, folder, spec)
        measured = dict(run_all(complete, keys, processes, title=spec.folder_name, progress=progress))
        write_contrast_table(folder / "contrast.csv", np.stack([measured[key] for key in keys]), MODALITIES)
        # Last: without it nnU-Net refuses the folder, so a data set that it accepts is complete.
        write_json(folder / "dataset.json", describe_dataset(spec), RESUME, indent=4)
    return folder


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


def open_folder(folder: Path, parameters: dict, other: str, *, resume: bool) -> None:
    """Put a record of what is to be written into an empty folder, or check that a folder has the same record.

    Args:
        folder: For the data.
        parameters: Of what is written; versions are added.
        other: Words for the arguments that choose another folder.
        resume: Complete the folder.

    Raises:
        UserError: The folder holds something, or is to be completed with other parameters.
    """
    nilearn = version_of("nilearn")
    if nilearn is None:
        raise UserError("the phantom's anatomy comes with nilearn: pip install nilearn")
    record = parameters | {"revision": _REVISION, "nilearn": nilearn, "numpy": np.__version__}
    if all(path.name == LOCK for path in folder.iterdir()):
        write_json(folder / _RECORD, record, RESUME, indent=4)
        return
    if not resume:
        raise UserError(f"{folder} exists: choose another {other}, remove it, or complete it with --resume")
    path, remedy = folder / _RECORD, f"nothing to resume, choose another {other}, or remove the folder"
    earlier = {"missing": 0.0} | read_json(path, remedy)
    for key, value in ({"missing": 0.0} | record).items():
        if earlier.get(key) != value:
            change = f"{key} {earlier.get(key)!r}, not {value!r}"
            raise UserError(f"{path} says {change}: resume with the same, or choose another {other}")


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
        write_volume(path, image.astype(np.int16), affine)
    write_volume(label_path, case.labels, affine)
    return measure_contrast(case.images, case.labels)


def _read(path: Path) -> NDArray[np.floating]:
    try:
        return read_image(path).voxels[0].astype(np.float32)
    except ImageError as error:
        raise UserError(f"{path} {error.reason}: remove it and run again with --resume") from error


def write_volume(path: Path, volume: NDArray, affine: NDArray[np.floating]) -> None:
    """Write ``(z, y, x)`` in the space of the template, whole or not at all.

    Raises:
        UserError: It cannot be written.
    """
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), affine)  # pyright: ignore
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="mni")
    image.set_sform(affine, code="mni")
    with written_whole(path, RESUME) as unfinished:
        nibabel.save(image, unfinished)  # pyright: ignore
