"""nnU-Net's preprocessing for cases that lack modalities, in the places where nnU-Net looks for a preprocessor."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from nnunetv2_d2net.base.dataset import CaseFiles, Dataset, dataset_number
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, write_text
from nnunetv2_d2net.base.images import is_constant
from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.plugin.preprocessing.cohort import AVAILABLE, availability_file, write_availability
from nnunetv2_d2net.plugin.preprocessing.reading import read_case
from nnunetv2_d2net.plugin.preprocessing.training_cases import (
    CHECKED,
    channels_in_training,
    check_training_cases,
    read_label,
    sizes_of,
    training_cases,
)
from nnunetv2_d2net.plugin.preprocessing.turning import as_trained, turning_back
from nnunetv2_d2net.plugin.seams import preprocessor_seam, writer_seam

CONSTANT = "constant_images"
"""Key under which the names of files travel that count as absent because all their voxels are alike."""


class MissingModalityPreprocessor(DefaultPreprocessor):
    """Preprocess what a case has as if the rest had never existed.

    Crop, mask and normalization see the available images only; the channel of an absent modality is exactly 0
    afterwards. A complete case comes out as nnU-Net makes it. An image whose voxels are all alike counts as absent.
    """

    plain: type[DefaultPreprocessor] = DefaultPreprocessor

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.plain, self.__dict__)  # worker processes cannot import a class made on the way

    def run(
        self, dataset_name_or_id: int | str, configuration_name: str, plans_identifier: str, num_processes: int
    ) -> None:
        """Check all training cases, preprocess them, and note beside them which modalities each of them has.

        Raises:
            UserError: A file cannot be used, no case has one of the modalities, or the plans are of other data.
        """
        name = maybe_convert_to_dataset_name(dataset_name_or_id)
        raw, base = (Path(os.environ[f"nnUNet_{kind}"]) / name for kind in ("raw", "preprocessed"))
        plans = PlansManager(str(base / f"{plans_identifier}.json"))
        configuration = plans.get_configuration(configuration_name)
        dataset = _shared_dataset(raw, base)
        channels, n_planned = dataset.channels, len(configuration.normalization_schemes)
        if n_planned != len(channels):
            raise UserError(
                f"{base / plans_identifier}.json is for {counted(n_planned, 'channel')}, "
                f"{raw / 'dataset.json'} has {len(channels)}: plan again"
            )
        reader, shown = plans.image_reader_writer_class, bool(self.show_progress_bar)
        check_training_cases(raw, dataset, reader, base / CHECKED, num_processes, progress=shown)
        data = base / configuration.data_identifier
        availability_file(data).unlink(missing_ok=True)
        try:
            super().run(dataset_name_or_id, configuration_name, plans_identifier, num_processes)
        except RuntimeError as error:  # blosc2's, which does not say why a file cannot be written
            if "NDArray" not in str(error):
                raise
            raise UserError(
                f"{data} cannot be written ({error}): free space or make it writable, then run again"
            ) from error
        write_availability(data, channels, sizes_of(raw, training_cases(raw, dataset)))

    def run_case(
        self,
        image_files: list[str],
        seg_file: str | None,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[NDArray, NDArray, dict]:
        """Read and preprocess one case; a file may be absent if the others are named with ``_XXXX``.

        Raises:
            UserError: A file cannot be used, or no modality is left.
        """
        content: dict = read_json(Path(dataset_json), "plan again") if isinstance(dataset_json, str) else dataset_json
        reader, dataset = plans_manager.image_reader_writer_class(), Dataset.of(content)
        channels = None if seg_file is None else channels_in_training(CaseFiles(tuple(image_files)), dataset)
        case = read_case(image_files, reader, len(dataset.channels), channels=channels)
        seg = None if seg_file is None else read_label(seg_file, reader, dataset).voxels
        properties = {**case.properties, AVAILABLE: list(case.available), CONSTANT: list(case.constant)}
        return self.run_case_npy(case.images, seg, properties, plans_manager, configuration_manager, content)

    def run_case_npy(
        self,
        data: NDArray,
        seg: NDArray | None,
        properties: dict,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[NDArray, NDArray, dict]:
        """Preprocess one case, turned the way that the training data lie where plans and properties say how.

        Args:
            data: ``(M, *spatial)``.
            seg: ``(1, *spatial)`` or None.
            properties: nnU-Net's; M flags under ``available_modalities`` say which modalities there are, otherwise
                those that are not constant are. Gets these flags.
            plans_manager: nnU-Net's.
            configuration_manager: nnU-Net's.
            dataset_json: nnU-Net's.

        Raises:
            UserError: NaN or infinity in an available modality, no modality left, or not one flag per modality.
        """
        available = available_in(data, properties.get(AVAILABLE))
        properties[AVAILABLE] = available.tolist()
        data, seg, properties = as_trained(data, seg, properties, plans_manager.plans)
        data, seg, properties = super().run_case_npy(
            _only(data, available), seg, properties, plans_manager, configuration_manager, dataset_json
        )
        return _only(data, available), cast(NDArray, seg), properties


def planned_shape(
    properties: Mapping[str, Any], plans_manager: PlansManager, configuration_manager: ConfigurationManager
) -> list[int] | None:
    """Return the shape to which nnU-Net's own preprocessing brings a case.

    Args:
        properties: nnU-Net's, of the preprocessed case.
        plans_manager: nnU-Net's.
        configuration_manager: nnU-Net's.

    Returns:
        Voxels along each axis; None where properties are missing, or another preprocessor has made the case.
    """
    cropped, spacing = properties.get("shape_after_cropping_and_before_resampling"), properties.get("spacing")
    is_default = configuration_manager.configuration["preprocessor_name"] == DefaultPreprocessor.__name__
    if not is_default or not cropped or not spacing:
        return None
    own = [spacing[axis] for axis in plans_manager.plans["transpose_forward"]]
    planned = [*own[: len(own) - len(configuration_manager.spacing)], *configuration_manager.spacing]  # 2d keeps one
    return compute_new_shape(cropped, own, planned).tolist()


def _shared_dataset(raw: Path, base: Path) -> Dataset:
    """Read the raw data set's dataset.json, and see that the plans' folder has the same; give it one where it has none.

    Raises:
        UserError: Channels, labels or the file ending have changed since planning.
    """
    dataset, planned = Dataset.read(raw / "dataset.json"), base / "dataset.json"
    if not planned.is_file():  # plans of another data set were moved here
        write_text(planned, (raw / "dataset.json").read_text(encoding="utf-8"))
    before = Dataset.read(planned, "plan again")
    keys = ("channel_names", "modality", "labels", "regions_class_order", "file_ending", "dataset")
    changed = [key for key in keys if before.content.get(key) != dataset.content.get(key)]
    if changed:
        number = dataset_number(raw.name)
        raise UserError(
            f"{raw / 'dataset.json'} has changed since planning ({', '.join(changed)}): "
            f"run d2net extract_fingerprint -d {number} --clean and d2net plan -d {number} first"
        )
    return dataset


def available_in(images: NDArray, flags: Sequence[bool] | None = None) -> NDArray[np.bool_]:
    """Tell which modalities of a case there are.

    Args:
        images: ``(M, *spatial)``, any intensities.
        flags: M flags, or None. A constant image is absent whatever its flag says.

    Raises:
        UserError: NaN or infinity in an available modality, no modality left, or not one flag per modality.
    """
    if flags is not None and len(flags) != len(images):
        raise UserError(f"{len(flags)} availability flags for {len(images)} modalities: pass one for each")
    pairs = zip(images, [True] * len(images) if flags is None else flags, strict=True)
    available = np.array([bool(flag) and not is_constant(image) for image, flag in pairs])
    broken = [str(m) for m in np.flatnonzero(available) if not np.isfinite(images[m]).all()]
    if broken:
        raise UserError(f"modality {', '.join(broken)} holds NaN or infinite voxels: repair it, or say it is absent")
    if not available.any():
        raise UserError("no modality is left, every image is absent or constant: provide at least one")
    return available


def _only(images: NDArray, available: NDArray[np.bool_]) -> NDArray:
    if not images[~available].any():
        return images
    images = images.copy()
    images[~available] = 0
    return images


@functools.cache
def accepting_absent_files(preprocessor: type[DefaultPreprocessor]) -> type[DefaultPreprocessor]:
    """Return a preprocessor that does what the given one does, and accepts cases that lack modalities."""
    if issubclass(preprocessor, MissingModalityPreprocessor):
        return preprocessor
    return type(
        f"MissingModality{preprocessor.__name__}", (MissingModalityPreprocessor, preprocessor), {"plain": preprocessor}
    )


def _restored(plain: type[DefaultPreprocessor], state: dict[str, Any]) -> DefaultPreprocessor:
    preprocessor = accepting_absent_files(plain)()
    preprocessor.__dict__.update(state)
    return preprocessor


class MissingModalityConfiguration(ConfigurationManager):
    """nnU-Net's view of one configuration of the plans, with our preprocessor."""

    @property
    def preprocessor_class(self) -> type[DefaultPreprocessor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The preprocessor of the plans, accepting cases that lack modalities."""
        return accepting_absent_files(cast(Any, super().preprocessor_class))


class MissingModalityPlansManager(PlansManager):
    """nnU-Net's view of plans, whose configurations accept cases that lack modalities, and whose writer turns back."""

    @property
    def image_reader_writer_class(self) -> type[BaseReaderWriter]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The reader and writer of the plans, turning back what was turned."""
        return turning_back(cast(Any, super().image_reader_writer_class))

    def get_configuration(  # pyright: ignore[reportIncompatibleVariableOverride] - nnU-Net's is cached
        self, configuration_name: str
    ) -> ConfigurationManager:
        """Return a configuration with our preprocessor."""
        configuration = super().get_configuration(configuration_name)
        accept_absent_files(configuration)
        return configuration


def accept_absent_files(configuration_manager: ConfigurationManager, plans_manager: PlansManager | None = None) -> None:
    """Let whatever nnU-Net preprocesses with this configuration lack modalities, and be turned where it has to be.

    Args:
        configuration_manager: nnU-Net's.
        plans_manager: nnU-Net's, with which it is going to write; None where it writes nothing.
    """
    preprocessor_seam(configuration_manager, MissingModalityConfiguration)
    if plans_manager is not None:
        writer_seam(plans_manager, MissingModalityPlansManager)
