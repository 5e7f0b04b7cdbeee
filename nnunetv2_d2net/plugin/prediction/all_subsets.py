"""Predict cases with every subset of their modalities: each case read once, preprocessed once per distinct crop."""

import logging
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import get_bbox_from_mask
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import make_folder
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.prediction.predictor import OTHER_OUTPUT, D2NetPredictor, Subset, check_names
from nnunetv2_d2net.plugin.prediction.threads import read_ahead
from nnunetv2_d2net.plugin.preprocessing.reading import CaseImages

_LOG = logging.getLogger("nnunetv2_d2net")


class Job(NamedTuple):
    """One case to predict.

    Attributes:
        files: Of its images.
        name: Its name.
        outputs: Output file, without its ending, of each subset that is wanted.
    """

    files: list[str]
    name: str
    outputs: dict[Subset, str]


class Group(NamedTuple):
    """Subsets of one case that nnU-Net would crop and normalize alike."""

    job: Job
    case: CaseImages
    subsets: list[Subset]


class AllSubsetsPredictor(D2NetPredictor):
    """Predicts every case with every subset of the modalities it has, into one folder per subset.

    Attributes:
        only: The subsets to predict with; empty for all.
    """

    only: Collection[Subset] = ()

    def predict_from_files(  # noqa: PLR0913, PLR0917 - nnU-Net's signature
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: str | list[str] | None,
        save_probabilities: bool = False,  # noqa: FBT001, FBT002 - nnU-Net's signature
        overwrite: bool = True,  # noqa: FBT001, FBT002
        num_processes_preprocessing: int = 3,
        num_processes_segmentation_export: int = 3,
        folder_with_segs_from_prev_stage: str | None = None,
        num_parts: int = 1,
        part_id: int = 0,
    ) -> None:
        """Predict every subset; arguments as in :class:`D2NetPredictor`, but the output must be one folder.

        A subset's folder lacks the cases that lack one of its modalities. The segmentations are those that separate
        calls with ``allowed`` would give, to the rounding of a batched network.

        Raises:
            UserError: After all other cases have been segmented, if one could not be; or if there is none.
        """
        output = output_folder_or_list_of_truncated_output_files
        if not isinstance(output, str) or folder_with_segs_from_prev_stage is not None:
            raise UserError("all subsets go to one folder, without a previous stage: pass that folder")
        self.begin()
        cases, _, _ = self._manage_input_and_output_lists(
            list_of_lists_or_source_folder, None, None, part_id=part_id, num_parts=num_parts
        )
        check_names([self._name_of(files) for files in cases])
        folders = self._make_folders(Path(output))
        endings = (*((".npz",) if save_probabilities else ()), self.dataset.file_ending)
        jobs = [self._job(files, folders, () if overwrite else endings) for files in cases]
        with self._own_progress_bar(sum(len(job.outputs) for job in jobs)):
            items = self._items_of([job for job in jobs if job.outputs], num_processes_preprocessing)
            self.predict_from_data_iterator(items, save_probabilities, num_processes_segmentation_export)
        self.report_failures()

    @contextmanager
    def _own_progress_bar(self, total: int) -> Iterator[None]:
        """Count segmentations in the place of nnU-Net's bars, which count the tiles of each."""
        show, self.allow_tqdm = self.allow_tqdm, False
        try:
            with Bar(title="predict", total=total, unit="segmentation", shown=show) as self.bar:
                yield
        finally:
            self.allow_tqdm, self.bar = show, None

    def _make_folders(self, output: Path) -> dict[Subset, Path]:
        names = self.dataset.channels
        allowed = torch.tensor(self.allowed or [True] * len(names))
        wanted = [s for s in modality_subsets(len(names)) if not self.only or tuple(s.tolist()) in self.only]
        subsets = [tuple(s.tolist()) for s in wanted if not (s & ~allowed).any()]
        if not subsets:
            raise UserError("none of the subsets is left: they hold modalities that are not to be used")
        if self.only and len(subsets) < len(wanted):
            left = [self.dataset.subset_name(s.tolist()) for s in wanted if (s & ~allowed).any()]
            _LOG.warning("not predicted, as they hold modalities that are not to be used: %s", ", ".join(left))
        folders = {subset: output / self.dataset.subset_name(subset) for subset in subsets}
        for folder in folders.values():
            make_folder(folder, OTHER_OUTPUT)
            save_json(self.dataset_json, str(folder / "dataset.json"), sort_keys=False)
            save_json(self.plans_manager.plans, str(folder / "plans.json"), sort_keys=False)
        return folders

    def _name_of(self, files: Sequence[str]) -> str:
        return Path(files[0]).name[: -len(self.dataset.file_ending) - len("_0000")]

    def _job(self, files: list[str], folders: dict[Subset, Path], endings: Sequence[str]) -> Job:
        """Leave out the subsets of which every file of these endings is there; none if there are no endings."""
        name = self._name_of(files)
        outputs = {subset: str(folder / name) for subset, folder in folders.items()}
        done = {s for s, output in outputs.items() if endings and self.is_done(output, endings, files, s)}
        return Job(files, name, {subset: output for subset, output in outputs.items() if subset not in done})

    def _items_of(self, jobs: Iterable[Job], n_threads: int) -> Iterator[dict[str, Any]]:
        """Read and preprocess in threads; what is preprocessed is never all in memory."""
        read = read_ahead(self._read_and_group, jobs, n_threads)
        for group, item in read_ahead(self._preprocess_group, self._each_group(read), n_threads):
            if isinstance(item, UserError):
                self.fail(group.job.name, f"case {group.job.name!r}: {item}")
                self.count(len(group.subsets))
            else:
                yield item

    def _each_group(self, read: Iterable[tuple[Job, Any]]) -> Iterator[Group]:
        """Go through the groups of every case that could be read."""
        for job, groups in read:
            if isinstance(groups, UserError):
                self.fail(job.name, f"case {job.name!r}: {groups}")
                self.count(len(job.outputs))
                continue
            self.count(len(job.outputs) - sum(len(group.subsets) for group in groups))  # what the case cannot have
            yield from groups

    def _read_and_group(self, job: Job) -> list[Group]:
        case = self.read(job.files)
        absent = ~np.array(case.available)
        possible = [subset for subset in job.outputs if not (np.array(subset) & absent).any()]
        return [Group(job, case, subsets) for subsets in self._alike(case.images, possible)]

    def _alike(self, images: NDArray[np.floating], subsets: list[Subset]) -> list[list[Subset]]:
        """Split subsets into groups that nnU-Net would crop and normalize alike."""
        # without masks for normalization only the crop counts, which differs far less in images with noise in the air
        masked = any(self.configuration_manager.use_mask_for_norm)
        nonzero = images != 0
        by_union: dict[bytes, list[Subset]] = {}
        for subset in subsets:
            union = nonzero[np.array(subset)].any(0)
            by_union.setdefault(np.packbits(union).tobytes(), []).append(subset)
        if len(by_union) == 1:
            return list(by_union.values())
        groups: dict[Hashable, list[Subset]] = {}
        for alike in by_union.values():  # different unions may still be alike once their holes are filled
            seen = np.array(alike[0])
            key = (
                np.packbits(np.asarray(create_nonzero_mask(images[seen]), bool)).tobytes()
                if masked
                else str(get_bbox_from_mask(nonzero[seen].any(0)))
            )
            groups.setdefault(key, []).extend(alike)
        return list(groups.values())

    def _preprocess_group(self, group: Group) -> dict[str, Any]:
        used = [any(flags) for flags in zip(*group.subsets, strict=True)]
        data, properties = self.preprocess(group.case, used)
        outputs = [group.job.outputs[subset] for subset in group.subsets]
        return {"data": data, "data_properties": properties, "subsets": group.subsets, "outputs": outputs}
