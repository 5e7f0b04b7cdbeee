"""nnU-Net 2.8.1's views of plans; its own annotations name classes where it returns them."""

from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.label_handling.label_handling import LabelManager

class ConfigurationManager:
    configuration: dict[str, Any]
    batch_size: int
    patch_size: list[int]
    spacing: list[float]
    data_identifier: str
    normalization_schemes: list[str]
    previous_stage_name: str | None
    use_mask_for_norm: list[bool]
    @property
    def preprocessor_class(self) -> type[DefaultPreprocessor]: ...

class PlansManager:
    plans: dict[str, Any]
    plans_name: str
    dataset_name: str
    def __init__(self, plans_file_or_dict: str | dict) -> None: ...
    def get_configuration(self, configuration_name: str) -> ConfigurationManager: ...
    def get_label_manager(self, dataset_json: dict, **kwargs: Any) -> LabelManager: ...
    @property
    def image_reader_writer_class(self) -> type[BaseReaderWriter]: ...
