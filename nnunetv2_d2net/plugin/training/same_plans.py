"""Whether a model was trained by the plans of now: whether its network would see and segment what it has learned on."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net.plugin.planning.plans import MISSING_IN_MODEL, check_plans, configuration_of

_OF_CONFIGURATION = (
    "spacing",
    "patch_size",
    *(f"resampling_fn_{kind}{of}" for kind in ("data", "probabilities") for of in ("", "_kwargs")),
    "architecture",
)
_OF_CHANNELS = ("normalization_schemes", "use_mask_for_norm")
_OF_ALL = ("image_reader_writer", "transpose_forward")
_INTENSITIES = "foreground_intensity_properties_per_channel"
_OLD_INTENSITIES = "foreground_intensity_properties_by_modality"  # as nnU-Net called it, and still reads it
_BY_INTENSITIES = "CTNormalization"


def differing_settings(
    plans: Mapping[str, Any], others: Mapping[str, Any], configuration: str, order: Sequence[int], where: str
) -> list[str]:
    """Name what makes a network segment otherwise by other plans: which images it sees, and what becomes of its output.

    Args:
        plans: Those in use.
        others: Of a model.
        configuration: Of that name in both.
        order: For each of our modalities, its place among those of the model.
        where: The model's file, for messages.

    Raises:
        UserError: The others lack a key or the configuration, or a value is of another type.
    """
    check_plans(others, where, MISSING_IN_MODEL)
    configuration_of(others, configuration, where, MISSING_IN_MODEL)
    # nnU-Net's own reading, in which old plans look like new ones
    ours, theirs = (PlansManager(dict(p)).get_configuration(configuration).configuration for p in (plans, others))
    names = [key for key in _OF_CONFIGURATION if ours.get(key) != theirs.get(key)]
    names += [key for key in _OF_CHANNELS if ours[key] != _in_order(theirs[key], order)]
    names += [key for key in _OF_ALL if plans.get(key) != others.get(key)]
    if _BY_INTENSITIES in ours["normalization_schemes"] and _intensities(plans) != _in_order(
        _intensities(others), order
    ):
        names.append(_INTENSITIES)
    return names


def _in_order(values: Sequence[Any], order: Sequence[int]) -> list[Any]:
    return [values[i] for i in order] if len(values) == len(order) else list(values)


def _intensities(plans: Mapping[str, Any]) -> list[Any]:
    of_channels = plans.get(_INTENSITIES) or plans.get(_OLD_INTENSITIES) or {}
    return [of_channels[key] for key in sorted(of_channels, key=int)]
