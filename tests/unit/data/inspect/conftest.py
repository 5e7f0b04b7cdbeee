"""A cohort of twelve heads in three modalities, small but told apart as real ones are, and ways to spoil it."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from nnunetv2_d2net.data.inspect.cohort import inspect_dataset

NAMES = ("FLAIR", "T1", "T2")
N_CASES = 12
SIGNALS = {  # of white matter, gray matter, fluid and tumor
    "FLAIR": (500, 620, 150, 900),
    "T1": (800, 600, 200, 450),
    "T2": (400, 520, 1500, 900),
}


def simulate(rng):
    """Three images and labels of one head, ``(16, 20, 18)``, zero outside."""
    shape = (16, 20, 18)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    tissue = gaussian_filter(rng.normal(size=shape), 1.5)
    kind = (tissue > np.quantile(tissue, 0.5)).astype(int)
    kind[radius > 0.72] = 2
    center = rng.uniform(-0.2, 0.2, 3)[:, None, None, None]
    labels = (np.sqrt(((grid - center) ** 2).sum(0)) < rng.uniform(0.3, 0.36)).astype(np.uint8)
    kind[labels == 1] = 3
    head = radius < 0.9
    images = {}
    for name, signals in SIGNALS.items():
        signal = np.array(signals) * np.exp(rng.normal(0, 0.04, 4))
        image = (signal[kind] + rng.normal(0, 25, shape)) * np.exp(rng.normal(0, 0.3))
        images[name] = np.where(head, np.maximum(image, 1), 0).astype(np.float32)
    return images, labels * head


def write(array, path):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 3.0))
    sitk.WriteImage(image, str(path))


class Dataset:
    """The raw data set, with names for its files."""

    def __init__(self, folder):
        self.folder = folder

    def image(self, case, name):
        return self.folder / "imagesTr" / f"case_{case:02d}_{NAMES.index(name):04d}.nii.gz"

    def label(self, case):
        return self.folder / "labelsTr" / f"case_{case:02d}.nii.gz"

    def edit(self, path, change):
        """Replace the voxels; what the function returns may also be a whole image."""
        image = sitk.ReadImage(str(path))
        changed = change(sitk.GetArrayFromImage(image))
        if not isinstance(changed, sitk.Image):
            array, changed = changed, sitk.GetImageFromArray(changed)
            if array.shape == image.GetSize()[::-1]:
                changed.CopyInformation(image)
            else:
                changed.SetSpacing(image.GetSpacing())
        sitk.WriteImage(changed, str(path))

    def header(self, path, **values):
        image = sitk.ReadImage(str(path))
        for name, value in values.items():
            getattr(image, f"Set{name}")(value)
        sitk.WriteImage(image, str(path))

    def swap(self, case, one, other):
        spare = self.folder / "spare.nii.gz"
        self.image(case, one).rename(spare)
        self.image(case, other).rename(self.image(case, one))
        spare.rename(self.image(case, other))

    def describe(self, **content):
        """Change entries of dataset.json; None removes one."""
        path = self.folder / "dataset.json"
        changed = json.loads(path.read_text(encoding="utf-8")) | content
        path.write_text(
            json.dumps({key: value for key, value in changed.items() if value is not None}), encoding="utf-8"
        )

    def inspect(self, output=None, **arguments):
        return inspect_dataset(self.folder, output, **arguments)

    def findings(self, kind=None):
        return [finding for finding in self.inspect().findings if kind in (None, finding.kind)]


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "raw" / "Dataset811_Heads"
    rng = np.random.default_rng(5)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    made = Dataset(folder)
    for case in range(N_CASES):
        images, labels = simulate(rng)
        for name, image in images.items():
            write(image, made.image(case, name))
        write(labels, made.label(case))
    description = {
        "channel_names": {str(m): name for m, name in enumerate(NAMES)},
        "labels": {"background": 0, "tumor": 1, "ignore": 2},
        "numTraining": N_CASES,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return made
