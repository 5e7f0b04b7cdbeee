"""nnU-Net's fingerprint of a data set whose cases may lack modalities."""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from numpy.typing import NDArray

from nnunetv2_d2net.base.dataset import CaseFiles, channels_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, write_json
from nnunetv2_d2net.base.images import Image, differences, read_image
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.plugin.preprocessing.cohort import check_every_modality
from nnunetv2_d2net.plugin.preprocessing.reading import read_case

PERCENTILES = {"percentile_00_5": 0.5, "median": 50.0, "percentile_99_5": 99.5}


class CaseFingerprint(NamedTuple):
    """What one training case adds to the fingerprint.

    Attributes:
        available: M flags.
        shape: Of the crop, in voxels (z, y, x).
        spacing: In mm, (z, y, x).
        relative_size: Of the crop, as a share of the image.
        intensities: Sampled from the foreground, an array for each modality there is, None for the others.
    """

    available: tuple[bool, ...]
    shape: tuple[int, ...]
    spacing: list[float]
    relative_size: float
    intensities: tuple[NDArray[np.floating] | None, ...]


class D2NetFingerprintExtractor(DatasetFingerprintExtractor):
    """nnU-Net's fingerprint, from the images that each case has: those of complete cases come out as nnU-Net's."""

    def run(self, overwrite_existing: bool = False) -> dict:  # noqa: FBT001, FBT002 - nnU-Net's signature
        """Read every training case and write ``dataset_fingerprint.json``.

        Raises:
            UserError: Cases that cannot be used, of which each is logged with its reason; or a modality that no case
                has.
        """
        path = Path(os.environ["nnUNet_preprocessed"]) / self.dataset_name / "dataset_fingerprint.json"
        if path.is_file() and not overwrite_existing:
            return read_json(path, "remove it, or pass --clean")
        channels = channels_of(self.dataset_json, f"{self.input_folder}/dataset.json")
        cases = self._analyze_cases(len(channels))
        check_every_modality({name: case.available for name, case in cases.items()}, channels)
        fingerprint = {
            "spacings": [case.spacing for case in cases.values()],
            "shapes_after_crop": [list(case.shape) for case in cases.values()],
            "foreground_intensity_properties_per_channel": {
                str(m): describe_intensities([case.intensities[m] for case in cases.values()])
                for m in range(len(channels))
            },
            "median_relative_size_after_cropping": float(np.median([case.relative_size for case in cases.values()])),
        }
        write_json(path, fingerprint, indent=4)
        return fingerprint

    def _analyze_cases(self, n_modalities: int) -> dict[str, CaseFingerprint]:
        cases = {str(name): CaseFiles(tuple(files["images"]), files["label"]) for name, files in self.dataset.items()}
        example = next(iter(cases.values())).images[0]
        reader = determine_reader_writer_from_dataset_json(self.dataset_json, example)
        n_samples = int(self.num_foreground_voxels_for_intensitystats // len(cases))
        analyze = functools.partial(analyze_case, reader=reader, n_modalities=n_modalities, n_samples=n_samples)
        shown = bool(self.show_progress_bar)
        by_files = dict(run_all(analyze, list(cases.values()), self.num_processes, title="fingerprint", progress=shown))
        results = {name: by_files[files] for name, files in cases.items()}
        problems = {name: result for name, result in results.items() if isinstance(result, str)}
        for name, problem in problems.items():
            logging.getLogger("nnunetv2_d2net").error("training case %r: %s", name, problem)
        if problems:
            raise UserError(
                f"{len(problems)} of {len(cases)} training cases cannot be used ({listed(list(problems))}): "
                "mend what is said above, or take their files out of imagesTr and labelsTr"
            )
        return {name: result for name, result in results.items() if isinstance(result, CaseFingerprint)}


def analyze_case(
    files: CaseFiles, reader: type[BaseReaderWriter], n_modalities: int, n_samples: int
) -> CaseFingerprint | str:
    """Read one training case; what is wrong with it comes back as a line of text, to be told with all others.

    Args:
        files: Of the case.
        reader: nnU-Net's.
        n_modalities: M.
        n_samples: Intensities to sample for each modality.
    """
    try:
        read = read_case(files.images, reader(), n_modalities)
        label = read_image(files.label or "", reader().read_seg)
    except UserError as error:
        return str(error)
    reference = Image(Path(files.images[0]), read.images, {"spacing": read.properties["spacing"]})
    # origin and direction of labels are not compared: nnU-Net, too, does without them
    wrong = differences(label._replace(properties={"spacing": label.properties["spacing"]}), reference)
    if wrong:
        return f"{files.label} and {files.images[0]} differ in {' and '.join(wrong)}: resample them onto each other"
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
    )


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
