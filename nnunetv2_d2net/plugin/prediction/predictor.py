"""nnU-Net's predictor for cases that lack modalities."""

import functools
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.helpers import empty_cache
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import content_state, make_folder, read_json_or
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.base.text import counted, last_line
from nnunetv2_d2net.method.modalities import infer_available
from nnunetv2_d2net.method.network.companion import chosen_network
from nnunetv2_d2net.plugin.prediction.agreement import AGREEMENT, WITHOUT_MIRRORING, Subset, Witnesses, region_masks
from nnunetv2_d2net.plugin.prediction.in_memory import stack_images
from nnunetv2_d2net.plugin.prediction.likeness import looks_unlike, unlike_training
from nnunetv2_d2net.plugin.prediction.model_folder import UNUSABLE, read_model, unusable
from nnunetv2_d2net.plugin.prediction.note import (
    IMAGES,
    VOLUMES,
    Model,
    closing_line,
    describe_model,
    made_otherwise,
    note,
)
from nnunetv2_d2net.plugin.prediction.subset_network import StackedHeads, SubsetNetwork
from nnunetv2_d2net.plugin.prediction.threads import WriteBehind, read_ahead
from nnunetv2_d2net.plugin.prediction.writing import (
    NOTE,
    PLACE_OF,
    is_written,
    segmentation_of,
    volumes_of,
    write_segmentation,
)
from nnunetv2_d2net.plugin.preprocessing.cohort import AVAILABLE
from nnunetv2_d2net.plugin.preprocessing.preprocessor import CONSTANT, accept_absent_files, available_in
from nnunetv2_d2net.plugin.preprocessing.reading import CaseImages, check_voxels, read_case
from nnunetv2_d2net.plugin.preprocessing.turning import how_it_lay, how_trained
from nnunetv2_d2net.plugin.registration import announce_trainers
from nnunetv2_d2net.plugin.seams import sliding_window_seam

REMARKS = "remarks"
"""Key of nnU-Net's case properties under which what is odd about the images travels."""

CASE = "case"
"""Key under which the name of a case travels."""

LIES = "orientation"
"""Key of the note beside a segmentation: how the case lay, and whether it was turned."""

PREDICTED_BY = "predicted by"
"""Key of the note beside a segmentation of a companion: which of its networks predicted, for each fold."""

OTHER_OUTPUT = "pass another output folder"
_LOG = logging.getLogger("nnunetv2_d2net")


class D2NetPredictor(nnUNetPredictor):
    """Predicts cases that lack modalities, with any trainer's network, as nnU-Net predicts complete ones.

    Crop and normalization see the available images only, and D2-Net is told which there are. A case that cannot be used
    is reported and left out; the others are segmented. Reading and writing run in threads.

    Attributes:
        allowed: M flags; modalities that are not allowed are treated as if their files were absent. None allows all.
        subsets_per_pass: How many subsets share a sliding window. The memory for tiles and logits grows with it.
        nan_outside_as_zero: Take NaN outside an image's field of view as 0, and do not refuse the image.
        agreement: Compare each segmentation with what the network says without one of the modalities, by single folds
            and without mirroring, and note it. K modalities need K + 1 times the passes of the network.
        part: Which part of the cases ``predict_from_files_sequential`` takes, and of how many: nnU-Net's method has no
            argument for it.
        model: What was loaded, for the notes beside the segmentations; None if the network came from elsewhere.
        failures: One line for each case that the last call could not segment, by case.
        bar: Counts segmentations while it is there.
        note: What is said of the segmentation that was last returned, instead of being written, as in its file.
    """

    allowed: Subset | None = None
    subsets_per_pass: int = 4
    nan_outside_as_zero: bool = False
    agreement: bool = False
    part: tuple[int, int] = (0, 1)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - nnU-Net's arguments
        super().__init__(*args, **kwargs)
        self.model: Model | None = None
        self.failures: dict[str, str] = {}
        self.bar: Bar | None = None
        self.note: dict[str, Any] | None = None
        self._witnesses: Witnesses | None = None
        self._told: set[str] = set()

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[int | str] | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """Load a trained model as nnU-Net does; our trainers are found without any variable set.

        Raises:
            UserError: It is a cascade. A file of it cannot be read, cannot be used without running code in it, or is of
                another model.
        """
        announce_trainers()
        folder = Path(model_training_output_dir)
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist: pass the folder of a trained model")
        if use_folds is None:
            use_folds = self.auto_detect_available_folds(model_training_output_dir, checkpoint_name)
        folds = [use_folds] if isinstance(use_folds, str) else use_folds
        paths = [folder / f"fold_{fold}" / checkpoint_name for fold in folds]
        read_model(folder, paths)  # nnU-Net unpickles the checkpoints, and calls what the plans name
        try:
            super().initialize_from_trained_model_folder(model_training_output_dir, folds, checkpoint_name)
        except UNUSABLE as error:
            raise unusable(folder, paths[0], error) from error
        if self.configuration_manager.previous_stage_name is not None:
            raise UserError(
                f"{model_training_output_dir} is a cascade, whose previous stage is no modality: use nnUNetv2_predict"
            )
        accept_absent_files(self.configuration_manager, self.plans_manager)
        self.model = describe_model(Path(model_training_output_dir), folds, checkpoint_name)
        known = ", ".join(self.model.compared) or "nothing, as the model does not say what these are like"
        _LOG.info("what is compared of each case with the training data: %s", known)
        _LOG.info("%s", how_trained(self.plans_manager.plans))

    def manual_initialization(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - nnU-Net's arguments
        """Use a network from memory, as nnU-Net does."""
        super().manual_initialization(*args, **kwargs)
        accept_absent_files(self.configuration_manager, self.plans_manager)
        self.model = None

    @property
    def dataset(self) -> Dataset:
        """The data set that the model was trained on."""
        return Dataset.of(self.dataset_json)

    def predict_logits_of_subsets(self, data: Tensor, subsets: Tensor) -> Tensor:
        """Predict one preprocessed case with several subsets of its modalities, in one sliding window.

        Args:
            data: Normalized images, ``(M, *spatial)``; what a subset lacks has no influence on it, be it NaN.
            subsets: Bool ``(S, M)``.

        Returns:
            Logits, ``(S, C, *spatial)``, on the CPU.
        """
        watched = self._watched(subsets)
        network = SubsetNetwork(cast(nn.Module, self.network), subsets.to(self.device), watched)
        heads = StackedHeads(network.n_maps * self.label_manager.num_segmentation_heads)
        with sliding_window_seam(self, network, heads):
            logits = super().predict_logits_from_preprocessed_data(data).unflatten(0, (network.n_maps, -1))
        if self._witnesses is not None and watched:
            self._witnesses.hear(WITHOUT_MIRRORING, logits[len(subsets) :])
        return logits[: len(subsets)]

    def _watched(self, subsets: Tensor) -> list[int]:
        """Positions of the subsets that must be known without mirroring, too."""
        if self._witnesses is None:
            return []
        self._witnesses.window = [tuple(subset) for subset in subsets.tolist()]
        mirrored = self.use_mirroring and self.allowed_mirroring_axes
        return self._witnesses.wanted_in_window if mirrored else []

    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        network = self.network
        if not isinstance(network, SubsetNetwork):
            return super()._internal_maybe_mirror_and_predict(x)
        network.kept = None  # of a tile that failed
        return network.with_unmirrored(super()._internal_maybe_mirror_and_predict(x))

    def predict_sliding_window_return_logits(self, input_image: Tensor) -> Tensor:
        """Predict with one fold, as nnU-Net does, which averages the folds' logits afterwards."""
        logits = super().predict_sliding_window_return_logits(input_image)
        n_folds = len(self.list_of_parameters)
        if self._witnesses is not None and n_folds > 1:
            names = [Path(name).parent.name for name in self.model.checkpoints] if self.model else []
            fold = self._witnesses.next_fold(n_folds)
            maps = logits.unflatten(0, (-1, self._own_label_manager.num_segmentation_heads))
            name = names[fold] if fold < len(names) else f"fold_{fold}"
            self._witnesses.hear(f"by {name} alone", [maps[n] for n in self._witnesses.wanted_in_window])
        return logits

    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """Predict one preprocessed case with the allowed modalities; a channel of zeros counts as absent.

        Args:
            data: Normalized images, ``(M, *spatial)``.

        Returns:
            Logits, ``(C, *spatial)``, on the CPU.
        """
        available = infer_available(data[None])
        if self.allowed is not None:
            available &= torch.tensor(self.allowed, device=data.device)
        return self.predict_logits_of_subsets(data, available)[0]

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
    ) -> list | None:
        """Predict cases, any of whose files may be absent. Arguments are nnU-Net's; the processes are threads.

        Args:
            list_of_lists_or_source_folder: A folder, or for each case the files there are, named with ``_XXXX``; all
                files of a case may have any name.
            output_folder_or_list_of_truncated_output_files: None returns the segmentations, and None for each case that
                could not be segmented; ``failures`` says why.
            save_probabilities: Write or return probabilities, too.
            overwrite: False keeps what is already there.
            num_processes_preprocessing: How many cases are read at a time; 0 reads when needed.
            num_processes_segmentation_export: How many segmentations are written at a time; 0 waits for each.
            folder_with_segs_from_prev_stage: Must be None.
            num_parts: Into how many parts the cases are split.
            part_id: Which part to predict, from 0.

        Raises:
            UserError: After all other cases have been written, if one could not be; or if there is none.
        """
        self.begin()
        if folder_with_segs_from_prev_stage is not None:
            raise UserError("a previous stage is no modality: leave folder_with_segs_from_prev_stage out")
        if isinstance(output_folder_or_list_of_truncated_output_files, str):
            make_folder(Path(output_folder_or_list_of_truncated_output_files), OTHER_OUTPUT)
        results = super().predict_from_files(
            list_of_lists_or_source_folder,
            output_folder_or_list_of_truncated_output_files,
            save_probabilities,
            overwrite,
            num_processes_preprocessing,
            num_processes_segmentation_export,
            folder_with_segs_from_prev_stage,
            num_parts,
            part_id,
        )
        if output_folder_or_list_of_truncated_output_files is not None:
            self.report_failures()
        return results

    def predict_from_files_sequential(self, *args: Any, **kwargs: Any) -> list | None:  # noqa: ANN401
        """Predict without threads beside the network's; arguments are nnU-Net's."""
        names = ("source", "output", "save_probabilities", "overwrite", "folder_with_segs_from_prev_stage")
        given = dict(zip(names, args, strict=False)) | kwargs
        source, output = (given.pop(name, None) for name in names[:2])
        source = given.pop("list_of_lists_or_source_folder", source)
        output = given.pop("output_folder_or_list_of_truncated_output_files", output)
        part_id, num_parts = self.part
        return self.predict_from_files(
            cast(Any, source),
            output,
            num_processes_preprocessing=0,
            num_processes_segmentation_export=0,
            num_parts=num_parts,
            part_id=part_id,
            **given,
        )

    def get_data_iterator_from_raw_npy_data(
        self,
        image_or_list_of_images: np.ndarray | list[np.ndarray],
        segs_from_prev_stage_or_list_of_segs_from_prev_stage: None,
        properties_or_list_of_properties: dict | list[dict],
        truncated_ofname: str | list[str] | None,
        num_processes: int = 3,
    ) -> Iterator[dict[str, Any]]:
        """Preprocess the allowed modalities of arrays, which lie as for one. Arguments are nnU-Net's."""
        several = properties_or_list_of_properties
        several = [several] if isinstance(several, dict) else several
        arrays = image_or_list_of_images
        arrays = [arrays] if isinstance(arrays, np.ndarray) else arrays
        return super().get_data_iterator_from_raw_npy_data(
            image_or_list_of_images,
            segs_from_prev_stage_or_list_of_segs_from_prev_stage,
            [self._checked(array, p, p.get(AVAILABLE)) for array, p in zip(arrays, several, strict=True)],
            truncated_ofname,
            num_processes,
        )

    def predict_from_data_iterator(
        self,
        data_iterator: Iterable[dict[str, Any]],
        save_probabilities: bool = False,  # noqa: FBT001, FBT002 - nnU-Net's signature
        num_processes_segmentation_export: int = 3,
    ) -> list:
        """Predict preprocessed cases and write, or return, each segmentation: the one loop of all prediction.

        Args:
            data_iterator: nnU-Net's: ``data``, ``data_properties`` and ``ofile`` of each case. The M flags under
                ``available_modalities`` of the properties go to the network; or several ``subsets``, M flags each, with
                ``outputs``, one for each subset.
            save_probabilities: Write or return probabilities, too.
            num_processes_segmentation_export: How many segmentations are written at a time.

        Returns:
            Nothing but None for each segmentation that is written, otherwise what nnU-Net returns.
        """
        with WriteBehind[Any](num_processes_segmentation_export) as writer:
            for item in data_iterator:
                if item["data"] is None:  # keeps its place among the results
                    writer.submit(lambda: None)
                    continue
                subsets = item.get("subsets") or [tuple(item["data_properties"][AVAILABLE])]
                outputs = dict(zip(subsets, item.get("outputs") or [item["ofile"]], strict=True))
                for subset, maps, found in self._segmented(_loaded(item["data"]), subsets):
                    properties = {**item["data_properties"], AVAILABLE: list(subset), **found}
                    finish = functools.partial(self._finish, maps, properties, outputs[subset], save_probabilities)
                    writer.submit(finish)
                    self.count()
        compute_gaussian.cache_clear()
        empty_cache(self.device)
        return writer.results

    def _segmented(self, data: Tensor, subsets: Sequence[Subset]) -> Iterator[tuple[Subset, Tensor, dict[str, Any]]]:
        """Yield each subset with its logits ``(C, *spatial)`` and, where it is asked for, how far others agree."""
        if not self.agreement:
            for subset, maps in zip(subsets, self._logits_of(data, subsets), strict=True):
                yield subset, maps, {}
            return
        self._witnesses = witnesses = Witnesses(subsets, self.dataset.channels, self._masks_of)
        try:
            for subset, maps in zip(witnesses.subsets, self._logits_of(data, witnesses.subsets), strict=True):
                found = witnesses.agreement(subset, maps, list(self.dataset.regions))
                if subset in subsets:
                    yield subset, maps, {AGREEMENT: found}
        finally:
            self._witnesses = None

    def _masks_of(self, logits: Tensor) -> Tensor:
        labels = self._own_label_manager.convert_logits_to_segmentation(logits.cpu())
        return region_masks(cast(Tensor, labels), self.dataset)

    @property
    def _own_label_manager(self) -> LabelManager:
        """The model's, also while another stands in its place."""
        return self.plans_manager.get_label_manager(self.dataset_json)

    def _logits_of(self, data: Tensor, subsets: Sequence[Subset]) -> Iterator[Tensor]:
        """Yield the logits ``(C, *spatial)`` of each subset."""
        for start in range(0, len(subsets), self.subsets_per_pass):
            chunk = subsets[start : start + self.subsets_per_pass]
            try:
                yield from self.predict_logits_of_subsets(data, torch.tensor(chunk))
            except torch.OutOfMemoryError as error:
                problem, remedy = "the GPU's memory is too small", "free some, or pass"
                if len(chunk) > 1:
                    problem += f" for {len(chunk)} subsets at once"
                    remedy = "pass a smaller --subsets_per_pass, or"
                raise UserError(f"{problem}: {remedy} --not_on_device, and --continue_prediction") from error

    def count(self, n: int = 1) -> None:
        """Move the bar, if there is one, by so many segmentations."""
        if self.bar is not None:
            self.bar.update(n)

    def predict_single_npy_array(
        self,
        input_image: np.ndarray,
        image_properties: dict[str, Any],
        segmentation_previous_stage: np.ndarray | None = None,
        output_file_truncated: str | None = None,
        save_or_return_probabilities: bool = False,  # noqa: FBT001, FBT002 - nnU-Net's signature
        available: Sequence[bool] | None = None,
    ) -> Any:  # noqa: ANN401 - an array, or two with probabilities
        """Predict one case from an array.

        An array has no header. It is turned to the orientation of the training data, and the result back, where the
        properties say how it lies, as those of nnU-Net's readers do; else it has to lie as the training data.

        Args:
            input_image: ``(M, z, y, x)`` as nnU-Net's reader gives it; an absent modality may hold anything.
            image_properties: ``spacing`` (z, y, x) in mm, and what the reader needs to write a file.
            segmentation_previous_stage: Must be None.
            output_file_truncated: File to write, without its ending; None returns the labels.
            save_or_return_probabilities: Write or return probabilities, too.
            available: M flags; None for all that are not constant.

        Returns:
            Labels ``(z, y, x)``, or these and probabilities ``(C, z, y, x)``; None if a file was written.

        Raises:
            UserError: NaN in an available modality, no modality left, or the file cannot be written.
        """
        self.begin()
        if segmentation_previous_stage is not None:
            raise UserError("a previous stage is no modality: leave segmentation_previous_stage out")
        properties = self._checked(input_image, image_properties, available)
        data, properties = self._preprocessed(input_image, properties)
        item = {"data": data, "data_properties": properties, "ofile": output_file_truncated}
        (result,) = self.predict_from_data_iterator([item], save_or_return_probabilities, 0)
        self.report_failures()
        return result

    def _checked(self, images: np.ndarray, properties: dict[str, Any], flags: Sequence[bool] | None) -> dict[str, Any]:
        """Look at the arrays of a case as at files, and note which modalities there are and what is odd.

        Raises:
            UserError: NaN in an available modality, different heads, or no modality left.
        """
        available = available_in(images, self._restricted(flags))
        names = self.dataset.channels
        remarks = check_voxels([(names[m], images[m]) for m in np.flatnonzero(available)], in_memory=True)
        for line in remarks:
            _LOG.warning("%s", line)
        looks = self._looks(images, available.tolist(), properties["spacing"])
        return {**properties, AVAILABLE: available.tolist(), REMARKS: remarks, **looks}

    def _looks(self, images: np.ndarray, available: Sequence[bool], spacing: Sequence[float]) -> dict[str, Any]:
        cohort = self.model.cohort if self.model else None
        masked = any(self.configuration_manager.use_mask_for_norm)
        return looks_unlike(cohort, images, available, spacing, self.dataset.channels, masked=masked)

    def predict_images(self, images: Mapping[str, sitk.Image], case: str = "in memory") -> sitk.Image:
        """Predict one case from images in memory, which may lie in any orientation.

        Args:
            images: Image by name of the modality, as many as there are, all on one grid.
            case: What the log calls it.

        Returns:
            Labels on that grid.

        Raises:
            UserError: An unknown name, no image, images on different grids, or unusable voxels.
        """
        reader = self.plans_manager.image_reader_writer_class.__name__
        if "Reorient" in reader:
            raise UserError(f"the model's reader, {reader}, turns images before use: predict from files instead")
        array, properties, reference = stack_images(images, self.dataset.channels)
        labels = self.predict_single_npy_array(array, {**properties, CASE: case})
        result = sitk.GetImageFromArray(labels[0] if reference.GetDimension() == 2 else labels)
        result.CopyInformation(reference)
        return result

    def report_failures(self) -> None:
        """Raise one line that names every case of ``failures``, if there is any."""
        if self.failures:
            names = ", ".join(map(repr, self.failures))  # a name may hold a line break
            raise UserError(
                f"{counted(len(self.failures), 'case')} could not be segmented ({names}); mend what is said above and "
                "repeat with --continue_prediction"
            )

    def _manage_input_and_output_lists(  # noqa: PLR0913, PLR0917 - nnU-Net's signature
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: str | list[str] | None,
        folder_with_segs_from_prev_stage: str | None = None,
        overwrite: bool = True,  # noqa: FBT001, FBT002 - nnU-Net's signature
        part_id: int = 0,
        num_parts: int = 1,
        save_probabilities: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:  # noqa: ANN401 - nnU-Net's three lists
        """Find the cases of a folder, report those that cannot be used, and let nnU-Net sort out the rest."""
        if isinstance(list_of_lists_or_source_folder, str):
            found = self.dataset.find_cases(Path(list_of_lists_or_source_folder))
            for case, problem in list(found.problems.items())[part_id::num_parts]:
                self.fail(case, problem)
            for line in self.dataset.reading_of(found.files) if found.files else ():
                _LOG.info("%s", line)
            list_of_lists_or_source_folder = list(found.files.values())
        elif not all(list_of_lists_or_source_folder):
            raise UserError("a case has no file: pass at least one for each, or leave the case out")
        lists = super()._manage_input_and_output_lists(
            list_of_lists_or_source_folder,
            output_folder_or_list_of_truncated_output_files,
            folder_with_segs_from_prev_stage,
            True,  # noqa: FBT003 - nnU-Net would keep whatever has the right name
            part_id,
            num_parts,
            save_probabilities,
        )
        check_names([output.rpartition("/")[2] for output in lists[1] or ()])
        if overwrite or lists[1] is None:
            return lists
        endings = (*((".npz",) if save_probabilities else ()), self.dataset.file_ending)
        todo = [i for i, output in enumerate(lists[1]) if not self.is_done(output, endings, lists[0][i])]
        return tuple([of_cases[i] for i in todo] for of_cases in lists)

    def is_done(self, output: str, endings: Sequence[str], files: Sequence[str], subset: Subset | None = None) -> bool:
        """Tell whether a case's files are there, whole; ones that somebody has changed stay, and are reported.

        So do those that another model made, or this one from other modalities or images than it would use now.

        Args:
            output: Output file without its ending.
            endings: Of the files.
            files: Images of the case.
            subset: M flags, where the output's folder says which modalities are used.
        """
        try:
            if not is_written(output, endings):
                return False
            self._check_maker(output, files, subset)
            return True
        except (UserError, OSError) as error:
            self.fail(Path(output).name, f"case {Path(output).name!r}: {error}")
            return True

    def _check_maker(self, output: str, files: Sequence[str], subset: Sequence[bool] | None) -> None:
        content, images = read_json_or(Path(f"{output}{NOTE}"), {}), self._states_of(files, subset or self.allowed)
        # a single file, called as the first modality, may hold all: older notes do not say which there were
        unknown = len(files) == 1 and not content.get(IMAGES) and self.dataset.channels[0] in images
        if how := made_otherwise(content, self.model, None if subset or unknown else images, images):
            raise UserError(f"{output}{self.dataset.file_ending} was made {how}: pass another -o, or remove it")

    def _states_of(self, files: Sequence[str], wanted: Sequence[bool] | None) -> dict[str, list[int | str]]:
        """Return what tells the content of each image that is used, by the name of its modality."""
        channels = self.dataset.assign_channels(files)
        kept = [not wanted or wanted[c] or channels == [0] for c in channels]  # a single file may hold all modalities
        used = [(self.dataset.channels[c], Path(f)) for c, f, keep in zip(channels, files, kept, strict=True) if keep]
        return {name: content_state(path) for name, path in used}

    def _internal_get_data_iterator_from_lists_of_filenames(
        self,
        input_list_of_lists: list[list[str]],
        seg_from_prev_stage_files: list[str | None] | None,
        output_filenames_truncated: list[str] | None,
        num_processes: int,
    ) -> Iterator[dict[str, Any]]:
        """Read and preprocess in threads; a case that cannot be used is reported and left out."""
        del seg_from_prev_stage_files
        outputs = output_filenames_truncated or [None] * len(input_list_of_lists)
        jobs = zip(input_list_of_lists, outputs, strict=True)
        for (files, output), item in read_ahead(self._read, jobs, num_processes):
            case = Path(output or files[0]).name
            if isinstance(item, UserError):
                self.fail(case, f"case {case!r}: {item}")
                if output is None:
                    yield {"data": None, "data_properties": {}, "ofile": None}  # keeps its place among the results
            else:
                sys.stdout.write(f"\nPredicting {case}\n")
                yield item

    def _read(self, job: tuple[list[str], str | None]) -> dict[str, Any]:
        files, output = job
        case = self.read(files)
        data, properties = self.preprocess(case, case.available)
        properties[CASE] = Path(output or files[0]).name
        return {"data": data, "data_properties": properties, "ofile": output}

    def preprocess(self, case: CaseImages, available: Sequence[bool]) -> tuple[Tensor, dict[str, Any]]:
        """Preprocess some of the modalities that a case has.

        Returns:
            Images ``(M, *spatial)`` and nnU-Net's properties.

        Raises:
            UserError: It cannot be done.
        """
        properties = {
            **case.properties,
            AVAILABLE: list(available),
            CONSTANT: list(case.constant),
            REMARKS: list(case.remarks),
        }
        data, properties = self._preprocessed(case.images, properties)
        return torch.from_numpy(data), properties

    def _preprocessed(self, images: np.ndarray, properties: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        try:
            data, _, properties = self._preprocessor().run_case_npy(
                images, None, properties, self.plans_manager, self.configuration_manager, self.dataset_json
            )
        except UserError:
            raise
        except Exception as error:  # such as an image that shrinks to nothing; the other cases go on
            what = f"{type(error).__name__}: {last_line(error)}"
            raise UserError(
                f"nnU-Net cannot preprocess it ({what}): check its files' size, spacing and content"
            ) from error
        return data, properties

    def read(self, files: Sequence[str]) -> CaseImages:
        """Read the allowed modalities of one case; see :func:`read_case`."""
        reader = self.plans_manager.image_reader_writer_class()
        n_modalities, channels = len(self.dataset.channels), self.dataset.assign_channels(files)
        case = read_case(
            files, reader, n_modalities, self.allowed, channels, nan_outside_as_zero=self.nan_outside_as_zero
        )
        looks = self._looks(case.images, case.available, case.properties["spacing"])
        place = next((file for file, channel in zip(files, channels, strict=True) if case.available[channel]), files[0])
        states = self._states_of(files, self.allowed)
        return case._replace(properties={**case.properties, **looks, PLACE_OF: str(place), IMAGES: states})

    def begin(self) -> None:
        """Forget the failures of an earlier call, and what it has told."""
        self.failures, self._told = {}, set()

    def fail(self, case: str, problem: str) -> None:
        """Tell at once that a case cannot be segmented, and remember it for the summary."""
        self.failures[case] = problem
        _LOG.error("%s", problem)

    def _preprocessor(self) -> DefaultPreprocessor:
        return self.configuration_manager.preprocessor_class(verbose=self.verbose_preprocessing)

    def _restricted(self, flags: Sequence[bool] | None) -> list[bool] | None:
        if flags is None:
            return None if self.allowed is None else list(self.allowed)
        if self.allowed is None or len(flags) != len(self.allowed):  # the latter is refused further on
            return list(flags)
        return [bool(a and b) for a, b in zip(flags, self.allowed, strict=True)]

    def _finish(self, logits: Tensor, properties: dict[str, Any], output: str | None, probabilities: bool) -> Any:  # noqa: ANN401, FBT001
        case = Path(output).name if output else properties.get(CASE, "in memory")
        content = self._note_of(properties, case)
        if output is None:
            result = segmentation_of(self, logits, properties, probabilities=probabilities)
            labels = result[0] if isinstance(result, tuple) else result
            self.note = {**content, VOLUMES: volumes_of(labels, properties["spacing"], self.dataset_json)}
            _LOG.info("case %r: %s", case, closing_line(self.note))
            return result
        target = Path(output)
        try:
            written = write_segmentation(self, logits, properties, target, content, probabilities=probabilities)
            if self.bar is None:
                _LOG.info("case %r: %s", case, closing_line(written))
        except UserError as error:
            self.fail(case, f"case {case!r}: {error}")
        except RuntimeError as error:  # torch raises it where memory is short
            remedy = "free memory, predict fewer cases at a time (-npp, -nps) or pass another -o"
            self.fail(case, f"case {case!r}: {target} cannot be resampled ({last_line(error)}): {remedy}")
        return None

    def _note_of(self, properties: dict[str, Any], case: str) -> dict[str, Any]:
        """Say what a segmentation is made from and how far to trust it; tell at once what should alarm."""
        oddities = properties.get(CONSTANT, ()), properties.get(REMARKS, ())
        content = note(self.model, properties[AVAILABLE], self.dataset.channels, *oddities)
        content[IMAGES] = properties.get(IMAGES, {})
        content[LIES] = how_it_lay(properties, self.plans_manager.plans)
        finest = min(self.configuration_manager.spacing)
        unlike = unlike_training(self.model.fingerprint if self.model else {}, properties, finest)
        content["unlike the training data"] = unlike
        if AGREEMENT in properties:
            content[AGREEMENT] = properties[AGREEMENT]
        chosen = [chosen_network(weights, properties[AVAILABLE]) for weights in self.list_of_parameters or ()]
        if any(chosen):
            content[PREDICTED_BY] = chosen  # by each fold
        lines = [f"case {case!r} {line}" for line in unlike]
        lines += [f"case {case!r}: {line}" for line in content.get("warnings", ())]
        for line in lines:
            if line not in self._told:  # each of all subsets says it of the same case
                self._told.add(line)
                _LOG.warning("%s", line)
        return content


def check_names(names: Sequence[str]) -> None:
    """Refuse cases of which one would be written over another.

    Args:
        names: Of the output files, without their endings.

    Raises:
        UserError: Two are alike, or one has none.
    """
    for name, n in Counter(names).items():
        if not name or n > 1:
            raise UserError(
                f"{counted(n, 'case')} would be written as {name!r}: name the files of each case CASE_0000 and so on"
            )


def _loaded(data: Tensor | np.ndarray | str) -> Tensor:
    """What nnU-Net's iterators yield: a tensor, an array, or the name of a file to load and remove."""
    if isinstance(data, str):
        path = Path(data)
        loaded = torch.from_numpy(np.load(path))
        path.unlink()
        return loaded
    return torch.from_numpy(data) if isinstance(data, np.ndarray) else data
