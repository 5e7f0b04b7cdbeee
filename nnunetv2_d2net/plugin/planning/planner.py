"""Planners that fit D2-Net's training, not only the U-Net's, into the memory target."""

from collections.abc import Sequence
from typing import Any, ClassVar

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_d2net.base.dataset import channels_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.plugin.planning.plans import check_count, check_modalities

__all__ = ["D2NetPlanner", "D2NetResEncPlanner", "D2NetSmallPlanner", "D2NetWholeHeadPlanner"]


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
        unet = get_network_from_plans(
            arch_class_name, arch_kwargs, arch_kwargs_req_import, input_channels, output_channels, allow_init=False
        )
        try:
            return D2Net(unet, input_channels).compute_conv_feature_map_size(patch_size)
        except ValueError as error:
            raise UserError(str(error)) from error

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
    Images are normalized inside the brain alone, so that it does not matter how much air a file holds.
    """

    default_plans_name: ClassVar[str] = "D2NetWholeHeadPlans"
    spacing: ClassVar[tuple[float, ...]] = (2.4, 2.4, 2.4)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - D2NetPlanner's
        kwargs["overwrite_target_spacing"] = kwargs.get("overwrite_target_spacing") or self.spacing
        super().__init__(*args, **kwargs)
        self.UNet_base_num_features = 16
        self.UNet_max_features_3d = 160

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """Return nnU-Net's schemes, inside the mask for every modality."""
        schemes, masked = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        return schemes, [True] * len(masked)

    def get_plans_for_configuration(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - nnU-Net's
        """Plan with one head at a time, however much memory there is: of few hours many steps are worth more."""
        return super().get_plans_for_configuration(*args, **kwargs) | {"batch_size": 1}
