"""nnU-Net 2.8.1's predictor as it is once a model is loaded; its own annotations say None until then."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

class nnUNetPredictor:
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    label_manager: LabelManager
    dataset_json: dict[str, Any]
    network: nn.Module
    device: torch.device
    allow_tqdm: bool
    use_mirroring: bool
    allowed_mirroring_axes: Sequence[int] | None
    list_of_parameters: list[dict[str, Tensor]]
    verbose_preprocessing: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[int | str] | str | None,
        checkpoint_name: str = ...,
    ) -> None: ...
    def manual_initialization(self, *args: Any, **kwargs: Any) -> None: ...
    @staticmethod
    def auto_detect_available_folds(model_training_output_dir: str, checkpoint_name: str) -> list[int]: ...
    def _manage_input_and_output_lists(self, *args: Any, **kwargs: Any) -> Any: ...
    def _internal_get_data_iterator_from_lists_of_filenames(
        self, *args: Any, **kwargs: Any
    ) -> Iterator[dict[str, Any]]: ...
    def get_data_iterator_from_raw_npy_data(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]: ...
    def predict_from_files(self, *args: Any, **kwargs: Any) -> list | None: ...
    def predict_from_files_sequential(self, *args: Any, **kwargs: Any) -> list | None: ...
    def predict_from_data_iterator(
        self,
        data_iterator: Iterable[dict[str, Any]],
        save_probabilities: bool = ...,
        num_processes_segmentation_export: int = ...,
    ) -> list: ...
    def predict_single_npy_array(self, *args: Any, **kwargs: Any) -> Any: ...
    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor: ...
    def predict_sliding_window_return_logits(self, input_image: Tensor) -> Tensor: ...
    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor: ...

def predict_entry_point() -> None: ...
