"""Predict cases with every subset of their modalities: each case read once, preprocessed once per distinct crop."""

# pyright: reportIncompatibleMethodOverride=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportOptionalSubscript=false
# nnU-Net declares attributes as None until they are initialized, and narrower types than it uses.

import functools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import get_bbox_from_mask
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from nnunetv2.utilities.helpers import empty_cache
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import subset_name
from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.prediction.background import WriteBehind, read_ahead
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from nnunetv2_d2net.plugin.prediction.writing import make_output_folder, remove_unfinished
from nnunetv2_d2net.plugin.preprocessing.preprocessor import AVAILABLE
from nnunetv2_d2net.plugin.preprocessing.reading import CaseImages

Subset = tuple[bool, ...]


class Preprocessed(NamedTuple):
    """One case, preprocessed for subsets that share a crop.

    Attributes:
        data: ``(M, *spatial)``; zero for what none of the subsets has.
        properties: nnU-Net's.
        subsets: M flags each.
    """

    data: Tensor
    properties: dict[str, Any]
    subsets: list[Subset]


class AllSubsetsPredictor(D2NetPredictor):
    """Predicts every case with every subset of the modalities it has, into one folder per subset.

    Attributes:
        subsets_per_pass: How many subsets share a sliding window. The memory for tiles and logits grows with it.
    """

    subsets_per_pass: int = 4

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
        self.failures = {}
        cases, _, _ = self._manage_input_and_output_lists(
            list_of_lists_or_source_folder, None, None, part_id=part_id, num_parts=num_parts
        )
        folders = self._make_folders(Path(output))
        endings = (*((".npz",) if save_probabilities else ()), self.dataset_json["file_ending"])
        kept = () if overwrite else endings
        jobs = [(files, self._missing(files, folders, kept)) for files in cases]
        pending = [job for job in jobs if job[1]]
        with (
            self._own_progress_bar(sum(len(subsets) for _, subsets in jobs)) as bar,
            WriteBehind[None](num_processes_segmentation_export) as writer,
        ):
            read = read_ahead(self._read_and_group, pending, num_processes_preprocessing)
            groups = read_ahead(self._preprocess_group, self._each_group(read, bar), num_processes_preprocessing)
            for (case, _, subsets), group in groups:
                if isinstance(group, UserError):
                    self.fail(case, f"case {case!r}: {group}")
                    bar.update(len(subsets))
                    continue
                for subset, logits, properties in self._predict(group):
                    target = str(folders[subset] / case)
                    writer.submit(functools.partial(self._finish, logits, properties, target, save_probabilities))
                    bar.update()
        for folder in folders.values():
            remove_unfinished(folder)
        compute_gaussian.cache_clear()
        empty_cache(self.device)
        self.report_failures()

    @contextmanager
    def _own_progress_bar(self, total: int) -> Iterator[tqdm]:
        """Count segmentations in the place of nnU-Net's bars, which count the tiles of each."""
        show, self.allow_tqdm = self.allow_tqdm, False
        try:
            with tqdm(total=total, desc="predict", unit="segmentation", disable=not show) as bar:
                yield bar
        finally:
            self.allow_tqdm = show

    def _make_folders(self, output: Path) -> dict[Subset, Path]:
        names = self.modality_names
        allowed = torch.tensor(self.allowed or [True] * len(names))
        subsets = [tuple(s.tolist()) for s in modality_subsets(len(names)) if not (s & ~allowed).any()]
        folders = {subset: output / subset_name(subset, names) for subset in subsets}
        for folder in folders.values():
            make_output_folder(folder)
            save_json(self.dataset_json, str(folder / "dataset.json"), sort_keys=False)
            save_json(self.plans_manager.plans, str(folder / "plans.json"), sort_keys=False)
        return folders

    def _case_name(self, files: Sequence[str]) -> str:
        return Path(files[0]).name[: -len(self.dataset_json["file_ending"]) - len("_0000")]

    def _missing(self, files: Sequence[str], folders: dict[Subset, Path], endings: Sequence[str]) -> list[Subset]:
        """Subsets of which not every file of these endings is there; all of them if there are no endings."""
        case = self._case_name(files)
        done = {s: endings and all((f / f"{case}{e}").is_file() for e in endings) for s, f in folders.items()}
        return [subset for subset in folders if not done[subset]]

    def _read_and_group(self, job: tuple[list[str], list[Subset]]) -> tuple[CaseImages, list[list[Subset]]]:
        files, subsets = job
        case = self.read(files)
        possible = [
            s for s in subsets if all(there or not wanted for wanted, there in zip(s, case.available, strict=True))
        ]
        return case, self._groups(case.images, possible)

    def _each_group(self, read: Iterable[tuple[Any, Any]], bar: tqdm) -> Iterator[tuple[str, CaseImages, list[Subset]]]:
        """Go through the groups of every case that could be read; the preprocessed ones are never all in memory."""
        for (files, subsets), item in read:
            name = self._case_name(files)
            if isinstance(item, UserError):
                self.fail(name, f"case {name!r}: {item}")
                bar.update(len(subsets))
                continue
            case, groups = item
            bar.update(len(subsets) - sum(map(len, groups)))  # those of which the case lacks a modality
            yield from ((name, case, group) for group in groups)

    def _groups(self, images: NDArray[np.floating], subsets: list[Subset]) -> list[list[Subset]]:
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
                np.packbits(create_nonzero_mask(images[seen])).tobytes()
                if masked
                else str(get_bbox_from_mask(nonzero[seen].any(0)))
            )
            groups.setdefault(key, []).extend(alike)
        return list(groups.values())

    def _preprocess_group(self, job: tuple[str, CaseImages, list[Subset]]) -> Preprocessed:
        _, case, subsets = job
        return Preprocessed(*self.preprocess(case, np.array(subsets).any(0).tolist()), subsets)

    def _predict(self, group: Preprocessed) -> Iterator[tuple[Subset, Tensor, dict[str, Any]]]:
        """Yield each subset with its logits ``(C, *spatial)`` and properties."""
        data, properties, subsets = group
        for start in range(0, len(subsets), self.subsets_per_pass):
            chunk = subsets[start : start + self.subsets_per_pass]
            for subset, logits in zip(chunk, self._predict_chunk(data, chunk), strict=True):
                yield subset, logits, {**properties, AVAILABLE: list(subset)}

    def _predict_chunk(self, data: Tensor, chunk: list[Subset]) -> Tensor:
        try:
            return self.predict_logits_of_subsets(data, torch.tensor(chunk))
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the GPU's memory is too small for {len(chunk)} subsets at once: pass a smaller --subsets_per_pass, "
                "or --not_on_device, and --continue_prediction"
            ) from error
