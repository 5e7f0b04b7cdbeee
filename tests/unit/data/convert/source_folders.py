"""Small source folders, written file by file."""

import gzip
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (6, 7, 8)  # z, y, x
OLD = {"FLAIR": "_flair", "T1": "_t1", "T1ce": "_t1ce", "T2": "_t2", "seg": "_seg"}
NEW = {"FLAIR": "-t2f", "T1": "-t1n", "T1ce": "-t1c", "T2": "-t2w", "seg": "-seg"}


def image_of(array, **geometry):
    image = sitk.GetImageFromArray(array, isVector=False)
    for name, value in geometry.items():
        getattr(image, f"Set{name.capitalize()}")(value)
    return image


def write_nifti(path, array, **geometry):
    """Write with any name that ends like NIfTI, upper case included."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name("writing.nii")
    sitk.WriteImage(image_of(array, **geometry), str(plain))
    content = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.lower().endswith(".gz") else content)
    return path


def voxels(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="NiftiImageIO"))


def random_image(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(1, 1000, shape).astype(np.int16)


def label_with(*values, dtype=np.uint8):
    """Labels of which the first voxels have one value each, the rest 0."""
    label = np.zeros(SHAPE, dtype)
    label.reshape(-1)[: len(values)] = values
    return label


def write_case(folder, name, suffixes=OLD, *, only=tuple(OLD), ending=".nii.gz", label=None, seed=0, **geometry):
    """Write a case of BraTS: the modalities of ``only``, and ``seg`` if that is in it."""
    for number, (slot, suffix) in enumerate(suffixes.items()):
        if slot in only:
            enhancing = 4 if suffixes is OLD else 3
            array = random_image(100 * seed + number)
            if slot == "seg":
                array = label_with(1, 2, enhancing, enhancing) if label is None else label
            write_nifti(Path(folder) / name / f"{name}{suffix}{ending}", array, **geometry)
    return Path(folder) / name
