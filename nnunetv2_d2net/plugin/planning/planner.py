"""Planners that fit D2-Net's training, not only the U-Net's, into the memory target."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_d2net.base.dataset import channels_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.network.d2net import PAPER_OPTIONS, D2Net, D2NetOptions
from nnunetv2_d2net.plugin.planning.plans import check_count, check_modalities

logger = logging.getLogger("nnunetv2_d2net")

__all__ = ["D2NetPaperPlanner", "D2NetPlanner", "D2NetResEncPlanner", "D2NetSmallPlanner", "D2NetWholeHeadPlanner"]


class D2NetPlanner(ExperimentPlanner):
    """Plan a plain U-Net whose D2-Net fits the memory target, training-only branches counted.

    The plans have nnU-Net's form and name nnU-Net's network, so that ``nnUNetTrainer -p D2NetPlans`` trains the plain
    U-Net of the same size. Preprocessed data gets the plans' own name and never overwrites that of other plans.

    Attributes:
        default_plans_name: Of the plans, unless the user names them.
        default_memory_target: In GB, unless the user names one.

    Raises:
        UserError: The data set has fewer than two channels, or does not say how many training cases it has.
    """

    default_plans_name: ClassVar[str] = "D2NetPlans"
    default_memory_target: ClassVar[float] = 8

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,  # noqa: FBT001, FBT002 - nnU-Net's signature
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            self.default_memory_target if gpu_memory_target_in_gb is None else gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name or self.default_plans_name,
            overwrite_target_spacing,  # pyright: ignore[reportArgumentType] - nnU-Net's own default is None
            suppress_transpose,
        )
        path, content = f"{self.raw_dataset_folder}/dataset.json", self.dataset_json
        names = channels_of(content, path)
        check_modalities(names, path, "plan with nnU-Net's planners")
        check_count(content, path)
        # files are in the order of their numbers, and nnU-Net chooses normalizations in the order of the keys
        self.dataset_json = content | {"channel_names": {str(number): name for number, name in enumerate(names)}}

    @staticmethod
    def static_estimate_VRAM_usage(
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict,
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """Count the feature-map elements of D2-Net's training on one patch, in the unit of nnU-Net's reference.

        Raises:
            UserError: The memory target leaves no U-Net that D2-Net can build on.
        """
        architecture = (arch_class_name, arch_kwargs, arch_kwargs_req_import)
        return _feature_map_elements(D2NetOptions(), architecture, patch_size, input_channels, output_channels)

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Name the preprocessed data after these plans, so that those of stock nnU-Net stay untouched."""
        return f"{self.plans_identifier}_{configuration_name}"


class D2NetResEncPlanner(D2NetPlanner, ResEncUNetPlanner):
    """Plan a residual-encoder U-Net whose D2-Net fits the memory target."""

    default_plans_name: ClassVar[str] = "D2NetResEncPlans"


class D2NetSmallPlanner(D2NetPlanner):
    """Plan a small U-Net with small patches, to try everything on a CPU; a quarter of nnU-Net's feature channels."""

    default_plans_name: ClassVar[str] = "D2NetSmallPlans"
    default_memory_target: ClassVar[float] = 0.06

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - D2NetPlanner's
        super().__init__(*args, **kwargs)
        self.UNet_base_num_features = 8


class D2NetWholeHeadPlanner(D2NetPlanner):
    """Plan a U-Net whose patch holds a whole brain in voxels of 2.4 mm, small enough for a CPU and to be sent about.

    Instance normalization takes its statistics from the patch, and a head in one patch looks the same wherever it is.
    Images are normalized inside the brain alone, so that it does not matter how much air a file holds. The network is
    the same whatever the data, so that one data set's weights fit on another's plans. 2D is planned as by D2NetPlanner.
    """

    default_plans_name: ClassVar[str] = "D2NetWholeHeadPlans"
    spacing: ClassVar[tuple[float, ...]] = (2.4, 2.4, 2.4)
    patch: ClassVar[tuple[int, ...]] = (64, 80, 64)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - D2NetPlanner's
        kwargs["overwrite_target_spacing"] = kwargs.get("overwrite_target_spacing") or self.spacing
        super().__init__(*args, **kwargs)
        self.UNet_base_num_features = 16
        self.UNet_max_features_3d = 160

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """Return nnU-Net's schemes, inside the mask for every modality."""
        schemes, masked = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        return schemes, [True] * len(masked)

    def get_plans_for_configuration(
        self,
        spacing: Any,  # noqa: ANN401 - nnU-Net's
        median_shape: Any,  # noqa: ANN401 - nnU-Net's
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict,
    ) -> dict[str, Any]:
        """Plan for a whole brain, one at a time however much memory there is: many steps are worth more."""
        shape = self.patch if len(spacing) == 3 else median_shape
        plan = super().get_plans_for_configuration(
            spacing, shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        if len(spacing) != 3:
            return plan
        return plan | {"batch_size": 1, "median_image_size_in_voxels": [*map(float, median_shape)]}


class D2NetPaperPlanner(D2NetPlanner):
    """Plan the U-Net that meets the paper's sizes, for D2NetTrainerPaper: whatever the data, and however much memory.

    Feature banks of 8, 16, 32 and 64 channels at 64^3 to 8^3 for patches of 128^3 (section IV-B), so 4 channels at full
    resolution and 128 in a bottleneck of 4^3; batches of 2; batch normalization. One convolution per encoder level and
    two per decoder level meet the parameters and operations of Table VII best; the paper prints neither. 2D is planned
    as by D2NetPlanner.
    """

    default_plans_name: ClassVar[str] = "D2NetPaperPlans"
    features: ClassVar[tuple[int, ...]] = (4, 8, 16, 32, 64, 128)

    def get_plans_for_configuration(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - nnU-Net's
        """Put the paper's sizes in the place of nnU-Net's."""
        plan = super().get_plans_for_configuration(*args, **kwargs)
        if len(plan["patch_size"]) == 2:
            return plan
        n_stages = len(self.features)
        plan["architecture"]["arch_kwargs"].update(
            n_stages=n_stages,
            features_per_stage=self.features,
            kernel_sizes=[[3, 3, 3]] * n_stages,
            strides=[[1, 1, 1], *[[2, 2, 2]] * (n_stages - 1)],
            n_conv_per_stage=[1] * n_stages,
            n_conv_per_stage_decoder=[2] * (n_stages - 1),
            norm_op="torch.nn.modules.batchnorm.BatchNorm3d",
        )
        plan |= {"patch_size": [128, 128, 128], "batch_size": 2}
        self._tell_memory(plan)
        return plan

    def _tell_memory(self, plan: dict[str, Any]) -> None:
        architecture = plan["architecture"]
        elements = self.static_estimate_VRAM_usage(
            plan["patch_size"],
            len(self.dataset_json["channel_names"]),
            len(self.dataset_json["labels"]),
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
        )
        needed = elements / self.UNet_reference_val_3d * self.UNet_reference_val_corresp_GB
        if needed > self.UNet_vram_target_GB:
            logger.warning(
                "the paper's batches need about %.1f GB, the memory target is %g", needed, self.UNet_vram_target_GB
            )

    @staticmethod
    def static_estimate_VRAM_usage(
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict,
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """Count the feature-map elements as they are with D2NetTrainerPaper's network.

        Raises:
            UserError: The memory target leaves no U-Net that D2-Net can build on.
        """
        architecture = (arch_class_name, arch_kwargs, arch_kwargs_req_import)
        return _feature_map_elements(PAPER_OPTIONS, architecture, patch_size, input_channels, output_channels)


def _feature_map_elements(
    options: D2NetOptions,
    architecture: tuple[str, dict, Sequence[str]],
    patch_size: Sequence[int],
    input_channels: int,
    output_channels: int,
) -> int:
    with torch.device("meta"):  # counting needs no weights
        unet = get_network_from_plans(*architecture, input_channels, output_channels, allow_init=False)
        try:
            return D2Net(unet, input_channels, options).compute_conv_feature_map_size(patch_size)
        except ValueError as error:
            raise UserError(str(error)) from error
