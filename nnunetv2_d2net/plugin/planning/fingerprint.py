"""nnU-Net's fingerprint of a data set whose cases may lack modalities."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from numpy.typing import NDArray

from nnunetv2_d2net.base.appearance import APPEARANCE, Appearance, CohortAppearance, appearance_of
from nnunetv2_d2net.base.dataset import CaseFiles, Dataset, dataset_number
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, read_json_or, sha256_of, write_json
from nnunetv2_d2net.base.orientation import mixed_line, orientation_of
from nnunetv2_d2net.plugin.preprocessing.cohort import check_every_modality
from nnunetv2_d2net.plugin.preprocessing.training_cases import (
    CHECKED,
    for_each_case,
    images_of,
    lean,
    read_training_case,
    reader_of,
    state_of,
    training_cases,
)

_LOG = logging.getLogger("nnunetv2_d2net")

_NEARLY = 0.05
"""Share of the standard deviation by which means of sampled intensities may differ."""

PERCENTILES = {"percentile_00_5": 0.5, "median": 50.0, "percentile_99_5": 99.5}


class CaseFingerprint(NamedTuple):
    """What one training case adds to the fingerprint.

    Attributes:
        available: M flags.
        shape: Of the crop, in voxels (z, y, x).
        spacing: In mm, (z, y, x).
        relative_size: Of the crop, as a share of the image.
        intensities: Sampled from the foreground, an array for each modality there is, None for the others.
        appearance: What it looks like.
        orientation: How it lies, see :func:`.orientation_of`.
    """

    available: tuple[bool, ...]
    shape: tuple[int, ...]
    spacing: list[float]
    relative_size: float
    intensities: tuple[NDArray[np.floating] | None, ...]
    appearance: Appearance
    orientation: str


class D2NetFingerprintExtractor(DatasetFingerprintExtractor):
    """nnU-Net's fingerprint, from the images that each case has: those of complete cases come out as nnU-Net's.

    One key more says what the cases look like, for predictions of later ones.
    """

    def run(self, overwrite_existing: bool = False) -> dict:  # noqa: FBT001, FBT002 - nnU-Net's signature
        """Check and read every training case, and write ``dataset_fingerprint.json``.

        One that is there stays. It is believed if the files are those that it was made from; else, and where nnU-Net
        has made it, all cases are read, and it has to say the same.

        Raises:
            UserError: Cases that cannot be used, of which each is logged with its reason; a modality that no case has;
                or the fingerprint is of other data.
        """
        raw, folder = Path(self.input_folder), Path(os.environ["nnUNet_preprocessed"]) / self.dataset_name
        path, remedy = folder / "dataset_fingerprint.json", f"run {self._command}, then plan and preprocess again"
        dataset = Dataset.of(self.dataset_json, str(raw / "dataset.json"))
        cases = training_cases(raw, dataset)
        state = state_of(raw, dataset, cases)
        before = read_json(path, remedy) if path.is_file() and not overwrite_existing else None
        if before is not None and APPEARANCE not in before:
            _LOG.info(
                "%s is nnU-Net's and stays: predictions compare less with it than with ours, which %s writes",
                path,
                self._command,
            )
        if before is not None and read_json_or(folder / CHECKED, {}) == {**state, "fingerprint": sha256_of(path)}:
            return before
        fingerprint = self._fingerprint(dataset, cases)
        if before is None:
            write_json(path, fingerprint, indent=4)
        elif not are_alike(before, fingerprint):
            raise UserError(f"{path} is of other data than those that are there now: {remedy}")
        write_json(folder / CHECKED, {**state, "fingerprint": sha256_of(path)}, indent=None)
        return fingerprint if before is None else before

    @property
    def _command(self) -> str:
        return f"d2net extract_fingerprint -d {dataset_number(self.dataset_name)} --clean"

    def _fingerprint(self, dataset: Dataset, cases: Mapping[str, CaseFiles]) -> dict[str, Any]:
        reader = reader_of(dataset, images_of(cases))
        n_samples = int(self.num_foreground_voxels_for_intensitystats // len(cases))
        analyze = functools.partial(analyze_case, reader=reader, dataset=lean(dataset), n_samples=n_samples)
        shown = bool(self.show_progress_bar)
        results = list(for_each_case(analyze, cases, self.num_processes, "fingerprint", progress=shown).items())
        check_every_modality({name: case.available for name, case in results}, dataset.channels)
        analyzed = [case for _, case in results]
        if line := mixed_line(Counter(case.orientation for case in analyzed)):
            _LOG.warning("%s", line)
        return {
            "spacings": [case.spacing for case in analyzed],
            "shapes_after_crop": [list(case.shape) for case in analyzed],
            "foreground_intensity_properties_per_channel": {
                str(m): describe_intensities([case.intensities[m] for case in analyzed])
                for m in range(len(dataset.channels))
            },
            "median_relative_size_after_cropping": float(np.median([case.relative_size for case in analyzed])),
            APPEARANCE: CohortAppearance.of([case.appearance for case in analyzed]).as_json(),
        }


def analyze_case(files: CaseFiles, reader: type[BaseReaderWriter], dataset: Dataset, n_samples: int) -> CaseFingerprint:
    """Read one training case.

    Args:
        files: Of the case.
        reader: nnU-Net's.
        dataset: What dataset.json says.
        n_samples: Intensities to sample for each modality.

    Raises:
        UserError: It cannot be used.
    """
    read, label = read_training_case(files, reader, dataset)
    cropped, labels, _ = crop_to_nonzero(read.images, label.voxels)
    available = np.array(read.available)
    sampled, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
        labels, cropped[available], num_samples=n_samples
    )
    drawn = iter(sampled)
    return CaseFingerprint(
        read.available,
        cropped.shape[1:],
        [float(length) for length in read.properties["spacing"]],
        float(np.prod(cropped.shape[1:]) / np.prod(read.images.shape[1:])),
        tuple(np.asarray(next(drawn), np.float32) if flag else None for flag in read.available),
        appearance_of(read.images, read.available, read.properties["spacing"]),
        orientation_of(read.properties),
    )


def are_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two fingerprints may be of the same data: sizes and spacings agree, and intensities nearly."""
    key = "foreground_intensity_properties_per_channel"
    try:
        shapes = [sorted(zip(map(list, f["shapes_after_crop"]), f["spacings"], strict=True)) for f in (one, other)]
        if not np.array_equal(np.array(shapes[0], float), np.array(shapes[1], float)) or len(one[key]) != len(
            other[key]
        ):
            return False
        pairs = [(one[key][channel], statistics) for channel, statistics in other[key].items()]
        return all(abs(a["mean"] - b["mean"]) <= _NEARLY * max(a["std"], b["std"]) for a, b in pairs)
    except (KeyError, TypeError, ValueError):
        return False


def describe_intensities(samples: Sequence[NDArray[np.floating] | None]) -> Mapping[str, Any]:
    """Summarize the intensities of one modality, in the form of nnU-Net's fingerprint.

    Args:
        samples: From the foreground of each case; None where the modality is absent.

    Returns:
        Mean, standard deviation, extremes, median and two percentiles; zeros if there is no foreground at all, which
        only normalization schemes for CT would read.
    """
    there = [sample for sample in samples if sample is not None and sample.size]
    values = np.concatenate(there) if there else np.zeros(1, np.float32)
    summary = {"mean": np.mean(values), "std": np.std(values), "min": np.min(values), "max": np.max(values)}
    summary |= dict(zip(PERCENTILES, np.percentile(values, list(PERCENTILES.values())), strict=True))
    return {name: float(value) for name, value in summary.items()}
