"""nnU-Net's fingerprint of a data set whose cases may lack modalities."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from numpy.typing import NDArray
from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import modality_names
from nnunetv2_d2net.plugin.preprocessing.cohort import check_every_modality
from nnunetv2_d2net.plugin.preprocessing.reading import last_line, read_case

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
            UserError: Cases that cannot be used, of which each is told on stderr; or a modality that no case has.
        """
        folder = Path(os.environ["nnUNet_preprocessed"]) / self.dataset_name
        path = folder / "dataset_fingerprint.json"
        if path.is_file() and not overwrite_existing:
            return json.loads(path.read_text(encoding="utf-8"))
        cases = self._analyze_cases()
        names = modality_names(self.dataset_json)
        check_every_modality({name: case.available for name, case in cases.items()}, names)
        fingerprint = {
            "spacings": [case.spacing for case in cases.values()],
            "shapes_after_crop": [list(case.shape) for case in cases.values()],
            "foreground_intensity_properties_per_channel": {
                str(m): describe_intensities([case.intensities[m] for case in cases.values()])
                for m in range(len(names))
            },
            "median_relative_size_after_cropping": float(np.median([case.relative_size for case in cases.values()])),
        }
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(fingerprint, indent=4), encoding="utf-8")
        unfinished.replace(path)
        return fingerprint

    def _analyze_cases(self) -> dict[str, CaseFingerprint]:
        first = next(iter(self.dataset.values()))["images"][0]
        reader = determine_reader_writer_from_dataset_json(self.dataset_json, first)
        n_modalities = len(modality_names(self.dataset_json))
        n_samples = int(self.num_foreground_voxels_for_intensitystats // len(self.dataset))
        jobs = {
            str(case): (files["images"], files["label"], reader, n_modalities, n_samples)
            for case, files in self.dataset.items()
        }
        done = _in_processes(jobs, self.num_processes)
        results = dict(tqdm(done, "fingerprint", len(jobs), disable=not self.show_progress_bar, unit="case"))
        bad = {case: problem for case, problem in results.items() if isinstance(problem, str)}
        for case, problem in bad.items():
            sys.stderr.write(f"d2net: error: training case {case!r}: {problem}\n")
        if bad:
            raise UserError(
                f"{len(bad)} of {len(results)} training cases cannot be used ({', '.join(map(repr, sorted(bad)))}): "
                "mend what is said above, or take their files out of imagesTr and labelsTr"
            )
        return {case: found for case in jobs if isinstance(found := results[case], CaseFingerprint)}


def _in_processes(jobs: Mapping[str, tuple[Any, ...]], n_processes: int) -> Iterator[tuple[str, CaseFingerprint | str]]:
    if n_processes == 1:
        yield from ((case, analyze_case(*job)) for case, job in jobs.items())
        return
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        futures = {pool.submit(analyze_case, *job): case for case, job in jobs.items()}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def analyze_case(
    image_files: Sequence[str], label_file: str, reader: type[BaseReaderWriter], n_modalities: int, n_samples: int
) -> CaseFingerprint | str:
    """Read one training case; what is wrong with it comes back as a line of text, to be told with all others.

    Args:
        image_files: Those it has.
        label_file: Its segmentation.
        reader: nnU-Net's.
        n_modalities: M.
        n_samples: Intensities to sample for each modality.
    """
    try:
        case = read_case(image_files, reader(), n_modalities)
        labels, properties = reader().read_seg(label_file)
    except UserError as error:
        return str(error)
    except Exception as error:  # readers raise what they like
        return f"{label_file} cannot be read ({last_line(error)}): it is missing or cut short, copy it again"
    if labels.shape[1:] != case.images.shape[1:] or not np.allclose(properties["spacing"], case.properties["spacing"]):
        return f"{label_file} and {image_files[0]} differ in shape or spacing: resample them onto each other"
    cropped, labels, _ = crop_to_nonzero(case.images, labels)
    available = np.array(case.available)
    sampled, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
        labels, cropped[available], num_samples=n_samples
    )
    drawn = iter(sampled)
    return CaseFingerprint(
        case.available,
        cropped.shape[1:],
        [float(length) for length in case.properties["spacing"]],
        float(np.prod(cropped.shape[1:]) / np.prod(case.images.shape[1:])),
        tuple(np.asarray(next(drawn), np.float32) if flag else None for flag in case.available),
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
