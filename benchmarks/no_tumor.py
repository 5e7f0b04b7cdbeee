"""Measure what a model of the package's kind finds in heads without a tumor: varied phantoms that happen to have none.

    python benchmarks/no_tumor.py [-m MODEL] [--heads 12] [--seed 99] [--given FLAIR+T1+T1ce+T2 FLAIR]

For each list of modalities: the milliliters of each region, their mean, median and largest over the heads. One of ten
varied phantoms has no tumor, so ten times as many are simulated. They are drawn like test cases of the same seed.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.data.phantom.dataset import CaseKey
from nnunetv2_d2net.data.phantom.fields import SPACINGS
from nnunetv2_d2net.data.phantom.mri import MODALITIES
from nnunetv2_d2net.data.phantom.varied import simulate_varied_case
from nnunetv2_d2net.patient.segment import segment


def main() -> None:
    """Simulate, segment, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", dest="model", type=Path, help="folder of the model (that of the package)")
    parser.add_argument("--heads", type=int, default=12, help="without a tumor (%(default)s)")
    parser.add_argument("--seed", type=int, default=99, help="of the heads (%(default)s)")
    parser.add_argument("--size", choices=SPACINGS, default="medium", help="of their voxels (%(default)s)")
    parser.add_argument(
        "--given", nargs="+", default=["+".join(MODALITIES), "FLAIR"], help="modalities to segment with"
    )
    args = parser.parse_args()
    heads = itertools.islice(heads_without_tumor(args.size, args.seed), args.heads)
    found: dict[tuple[str, str], list[float]] = {}
    for head in Bar(heads, title="heads", total=args.heads):
        for given in args.given:
            result = segment({name: head[name] for name in given.split("+")}, args.model)
            for volume in result.volumes:
                if volume.kind == "region":
                    found.setdefault((given, volume.name), []).append(volume.ml)
    rows = [["given", "region", "heads", "mean ml", "median", "largest"]]
    for key, ml in found.items():
        rows.append([*key, str(len(ml)), *(f"{value:.1f}" for value in (np.mean(ml), np.median(ml), max(ml)))])
    sys.stdout.write(markdown_table(rows))


def heads_without_tumor(size: str, seed: int) -> Iterator[Mapping[str, sitk.Image]]:
    """Simulate varied phantoms and yield the images, by modality, of those without a tumor."""
    for number in itertools.count():
        case = simulate_varied_case(size, CaseKey("Ts", number).seed(seed))
        if not case.labels.any():
            images = {
                name: sitk.GetImageFromArray(voxels) for name, voxels in zip(MODALITIES, case.images, strict=True)
            }
            for image in images.values():
                image.SetSpacing([float(SPACINGS[size])] * 3)
            yield images


if __name__ == "__main__":
    main()
