"""Write phantom cases as a complete raw data set of nnU-Net, in parallel, resumable, overwriting nothing."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.dataset import dataset_folder_name, refuse_taken_number
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import LOCK, explaining_disk_errors, locked_folder, read_json, write_json, written_whole
from nnunetv2_d2net.base.images import ImageError, read_image
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.data.phantom.anatomy import mni_affine, nilearn_folder
from nnunetv2_d2net.data.phantom.case import PhantomCase, simulate_case
from nnunetv2_d2net.data.phantom.contrast import measure_contrast, write_contrast_table
from nnunetv2_d2net.data.phantom.fields import SPACINGS
from nnunetv2_d2net.data.phantom.mri import MODALITIES
from nnunetv2_d2net.data.phantom.varied import simulate_varied_case

FILE_ENDING = ".nii.gz"
RESUME = "free space or make it writable, then run again with --resume"
_RECORD = "phantom.json"
KINDS = ("plain", "varied")
_OMITTED = {"missing": 0.0, "kind": "plain"}  # from the record where they are this: records from before lack them
_SPLITS = {"Tr": "glioma_{:04d}", "Ts": "glioma_test_{:04d}"}
_MOST_MISSING = (len(MODALITIES) - 1) / len(MODALITIES)
_STREAM_OF_MISSING = 2  # of the seed; 0 and 1 are those of the training and the test cases
_REVISION = 3  # raised when the same seed starts to give other voxels


class CaseKey(NamedTuple):
    """One case of a data set: ``split`` is ``Tr`` or ``Ts``; each split has its own stream of seeds."""

    split: str
    number: int

    def seed(self, seed: int) -> np.random.SeedSequence:
        """The case's seed: depends on nothing but the data set's seed, the split and the number."""
        return np.random.SeedSequence(seed, spawn_key=(list(_SPLITS).index(self.split), self.number))


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
        kind: ``plain`` for physics alone, ``varied`` to learn from for real patients.

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
    kind: str = "plain"

    def __post_init__(self) -> None:
        dataset_folder_name(self.dataset_id, self.name)
        share = f"a share of {self.missing:g} of the images missing: choose --missing from 0 to {_MOST_MISSING}"
        checks = (
            (1 <= self.n_train <= 9999, f"{self.n_train} training cases: choose --train between 1 and 9999"),
            (0 <= self.n_test <= 9999, f"{self.n_test} test cases: choose --test between 0 and 9999"),
            (self.size in SPACINGS, f"size {self.size!r} is unknown: choose --size from {', '.join(SPACINGS)}"),
            (self.seed >= 0, f"seed {self.seed} is negative: choose --seed of at least 0"),
            (0 <= self.missing <= _MOST_MISSING, f"{share}, every case keeps one"),
            (self.kind in KINDS, f"kind {self.kind!r} is unknown: choose --kind from {', '.join(KINDS)}"),
        )
        for valid, message in checks:
            if not valid:
                raise UserError(message)

    @property
    def folder_name(self) -> str:
        """Name of the data set's folder below nnU-Net's raw folder."""
        return dataset_folder_name(self.dataset_id, self.name)

    @property
    def keys(self) -> list[CaseKey]:
        """The cases, those for training first."""
        numbers = {"Tr": self.n_train, "Ts": self.n_test}
        return [CaseKey(split, number) for split, n_cases in numbers.items() for number in range(n_cases)]

    def kept(self, key: CaseKey) -> tuple[bool, ...]:
        """Say which images of a case are written, in the order of ``MODALITIES``; test cases are complete.

        What is left out is drawn from the images of all training cases, a share rounded to whole images: the same seed,
        share and number of cases leave out the same ones.
        """
        if key.split != "Tr" or not self.missing:
            return (True,) * len(MODALITIES)
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_STREAM_OF_MISSING,)))
        kept = np.ones((self.n_train, len(MODALITIES)), dtype=bool)
        n_left = round(self.missing * kept.size)
        for case, modality in (divmod(int(slot), len(MODALITIES)) for slot in rng.permutation(kept.size)):
            if n_left and kept[case].sum() > 1:
                kept[case, modality] = False
                n_left -= 1
        return tuple(kept[key.number].tolist())


def simulate(spec: PhantomSpec, key: CaseKey) -> PhantomCase:
    """Simulate one case of a data set.

    Raises:
        UserError: nilearn is not installed.
    """
    return (simulate_case if spec.kind == "plain" else simulate_varied_case)(spec.size, key.seed(spec.seed))


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
    folder = raw_folder / spec.folder_name
    with locked_folder(folder), explaining_disk_errors(folder, RESUME):
        open_folder(folder, asdict(spec), "-d or --name", resume=resume)
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (folder / name).mkdir(exist_ok=True)
        complete = partial(_complete_case, folder, spec)
        measured = dict(run_all(complete, spec.keys, processes, title=spec.folder_name, progress=progress))
        write_contrast_table(folder / "contrast.csv", np.stack([measured[key] for key in spec.keys]), MODALITIES)
        # Last: without it nnU-Net refuses the folder, so a data set that it accepts is complete.
        write_json(folder / "dataset.json", describe_dataset(spec), RESUME, indent=4)
    return folder


def describe_dataset(spec: PhantomSpec) -> dict[str, Any]:
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


def open_folder(folder: Path, parameters: dict[str, Any], other: str, *, resume: bool) -> None:
    """Put a record of what is to be written into an empty folder, or check that a folder has the same record.

    Args:
        folder: For the data.
        parameters: Of what is written; versions are added, and what is as it always was is left out.
        other: Words for the arguments that choose another folder.
        resume: Complete the folder.

    Raises:
        UserError: The folder holds something, or is to be completed with other parameters; or nilearn is missing.
    """
    nilearn_folder()
    record = parameters | {"revision": _REVISION, "nilearn": version("nilearn"), "numpy": np.__version__}
    if all(path.name == LOCK for path in folder.iterdir()):
        content = {key: value for key, value in record.items() if key not in _OMITTED or value != _OMITTED[key]}
        write_json(folder / _RECORD, content, RESUME, indent=4)
        return
    if not resume:
        raise UserError(f"{folder} exists: choose another {other}, remove it, or complete it with --resume")
    path, remedy = folder / _RECORD, f"nothing to resume, choose another {other}, or remove the folder"
    earlier = _OMITTED | read_json(path, remedy)
    for key, value in record.items():
        if earlier.get(key) != value:
            change = f"{key} {earlier.get(key)!r}, not {value!r}"
            raise UserError(f"{path} says {change}: resume with the same, or choose another {other}")


def _complete_case(folder: Path, spec: PhantomSpec, key: CaseKey) -> NDArray[np.floating]:
    """Write one case unless all its files are there; measure all its images either way, also those left out."""
    name, kept = _SPLITS[key.split].format(key.number), spec.kept(key)
    channels = range(len(MODALITIES))
    paths = [folder / f"images{key.split}" / f"{name}_{channel:04d}{FILE_ENDING}" for channel in channels]
    paths.append(folder / f"labels{key.split}" / f"{name}{FILE_ENDING}")
    if all(kept) and all(path.is_file() for path in paths):
        *images, labels = (_read(path) for path in paths)
        return measure_contrast(np.stack(images), labels.astype(np.uint8))
    case = simulate(spec, key)
    write_case(paths, case, kept, SPACINGS[spec.size])
    return measure_contrast(case.images, case.labels)


def _read(path: Path) -> NDArray[np.floating]:
    try:
        return read_image(path).voxels[0].astype(np.float32)
    except ImageError as error:
        raise UserError(f"{path} {error.reason}: remove it and run again with --resume") from error


def write_case(paths: Sequence[Path], case: PhantomCase, kept: Sequence[bool], spacing: int) -> None:
    """Write the images of a case that are kept, then its segmentation, in the space of the template.

    Args:
        paths: Of all images and of the segmentation.
        case: The voxels.
        kept: Which images are written.
        spacing: Edge of the voxels, mm.

    Raises:
        UserError: A file cannot be written.
    """
    affine = mni_affine(spacing)
    volumes = [*case.images.astype(np.int16), case.labels]
    for path, volume in itertools.compress(zip(paths, volumes, strict=True), [*kept, True]):
        image = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), affine)  # pyright: ignore
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, code="mni")
        image.set_sform(affine, code="mni")
        with written_whole(path, RESUME) as unfinished:
            nibabel.save(image, unfinished)  # pyright: ignore
