"""Count false alarms and noticed mistakes of d2net predict, against what a fingerprint notes of the training cases.

Every case of the folders is looked at with every subset of its images under their own names, where each alarm is false;
then with each two of its images swapped, each of its images alone under each other name, all of them as masks, and all
with a thirtieth of their voxels ten times as bright, where an alarm is right.
"""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.appearance import Appearance, appearance_of
from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.plugin.prediction.likeness import read_appearance, read_fingerprint
from nnunetv2_d2net.plugin.preprocessing.reading import read_case
from nnunetv2_d2net.plugin.preprocessing.training_cases import reader_of

KINDS = ("right, all images", "right, some images", "two images swapped", "one image alone under another name")
CHANGED = ("images of two values", "images with bright voxels")


def main() -> None:
    """Print how often there was an alarm, of how many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "trained", type=Path, help="folder of dataset_fingerprint.json and dataset.json, such as a model's"
    )
    parser.add_argument("images", type=Path, nargs="+", help="folders of images CASE_XXXX")
    args = parser.parse_args()
    dataset = Dataset.read(args.trained / "dataset.json")
    cohort = read_appearance(read_fingerprint(args.trained))
    if cohort is None:
        parser.error(f"{args.trained} does not say what its training cases look like")
    rows = [["", *KINDS, *CHANGED]]
    for folder in args.images:
        alarms, tried = Counter[str](), Counter[str]()
        for case, *changed in appearances(folder, dataset):
            for kind, variant in (*variants(case), *zip(CHANGED, changed, strict=True)):
                tried[kind] += 1
                alarms[kind] += bool(cohort.doubts(variant, dataset.channels))
        rows.append([folder.name, *(f"{alarms[kind]} of {tried[kind]}" for kind in (*KINDS, *CHANGED))])
    sys.stdout.write(markdown_table(rows))


def appearances(folder: Path, dataset: Dataset) -> Iterator[list[Appearance]]:
    """Look at every case of a folder, as it is and changed in each way."""
    cases = dataset.find_cases(folder).files
    reader = reader_of(dataset, [file for files in cases.values() for file in files])()
    for files in cases.values():
        read = read_case(files, reader, len(dataset.channels))
        versions = (read.images, *(change(read.images) for change in (as_masks, with_bright_voxels)))
        yield [appearance_of(images, read.available, read.properties["spacing"]) for images in versions]


def as_masks(images: NDArray[np.floating]) -> NDArray[np.floating]:
    """Put 1 and 2 into the place of what is below and above the median of what is not 0."""
    medians = [np.median(image[image != 0]) if image.any() else 0 for image in images]
    high = np.stack([image > median for image, median in zip(images, medians, strict=True)])
    return np.where(images == 0, 0, 1.0 + high).astype(np.float32)


def with_bright_voxels(images: NDArray[np.floating]) -> NDArray[np.floating]:
    """Make single voxels ten times as bright."""
    return np.where(np.random.default_rng(0).random(images.shape) < 1 / 30, 10 * images, images)


def variants(case: Appearance) -> Iterator[tuple[str, Appearance]]:
    """Yield what a case looks like with fewer images, and under wrong names."""
    features = case.features
    n_modalities = len(features)
    there = [m for m in range(n_modalities) if np.isfinite(features[m, m]).any()]
    for size in range(1, len(there) + 1):
        for some in itertools.combinations(there, size):
            kind = KINDS[0] if len(some) == len(there) else KINDS[1]
            yield kind, case._replace(features=only(features, some))
    for m, k in itertools.combinations(there, 2):
        yield KINDS[2], case._replace(features=exchanged(features, m, k))
    for m in there:
        for k in set(range(n_modalities)) - {m}:
            yield KINDS[3], case._replace(features=exchanged(only(features, [m]), m, k))


def only(features: NDArray[np.floating], some: Sequence[int]) -> NDArray[np.floating]:
    """Leave out what other images say."""
    kept = np.full_like(features, np.nan)
    index = np.ix_(some, some)
    kept[index] = features[index]
    return kept


def exchanged(features: NDArray[np.floating], m: int, k: int) -> NDArray[np.floating]:
    """Give two images each other's name."""
    order = np.arange(len(features))
    order[[m, k]] = k, m
    return features[np.ix_(order, order)]


if __name__ == "__main__":
    main()
