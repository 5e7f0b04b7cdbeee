"""Whether a model was trained by the plans of now: whether its network would see and segment what it has learned on."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net.base.dataset import channels_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import plain_names
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from nnunetv2_d2net.plugin.planning.plans import MISSING_IN_MODEL, check_plans, configuration_of

_OF_CONFIGURATION = (
    "spacing",
    "patch_size",
    *(f"resampling_fn_{kind}{of}" for kind in ("data", "probabilities") for of in ("", "_kwargs")),
    "architecture",
)
_OF_CHANNELS = ("normalization_schemes", "use_mask_for_norm")
_OF_ALL = ("image_reader_writer", "transpose_forward")
_MAY_CHANGE = ("patch_size",)  # of a network that is there already
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
    mine, other = _as_file(plans), _as_file(others)
    check_plans(other, where, MISSING_IN_MODEL)
    configuration_of(other, configuration, where, MISSING_IN_MODEL)
    # nnU-Net's own reading, in which old plans look like new ones
    ours, theirs = (PlansManager(p).get_configuration(configuration).configuration for p in (mine, other))
    names = [key for key in _OF_CONFIGURATION if ours.get(key) != theirs.get(key)]
    names += [key for key in _OF_CHANNELS if ours[key] != _in_order(theirs[key], order)]
    names += [key for key in _OF_ALL if mine.get(key) != other.get(key)]
    if _BY_INTENSITIES in ours["normalization_schemes"]:
        names += [_INTENSITIES] if _intensities(mine) != _in_order(_intensities(other), order) else []
    return names


def check_same_plans(
    path: Path, made_for: Mapping[str, Any], plans: Mapping[str, Any], content: Mapping[str, Any], remedy: str
) -> None:
    """Refuse a checkpoint that was trained by other plans, or with the modalities in another order.

    Args:
        path: The checkpoint.
        made_for: Its ``init_args``; exported ones name neither plans nor data set, and pass.
        plans: Those of now.
        content: Of dataset.json, of now.
        remedy: What to do.

    Raises:
        UserError: It was.
    """
    its_plans, its_data = made_for.get("plans"), made_for.get("dataset_json")
    names = plain_names(channels_of(content))
    theirs = plain_names(channels_of(its_data, f"{path}: its data set")) if isinstance(its_data, dict) else names
    if theirs != names and sorted(theirs) == sorted(names):
        raise UserError(
            f"{path} was trained with {', '.join(theirs)}, in this order, and dataset.json has {', '.join(names)} now: "
            f"{remedy}"
        )
    if isinstance(its_plans, dict):
        where, order = f"{path}: its plans", range(len(names))
        others = differing_settings(plans, its_plans, made_for["configuration"], order, where)
        others = [name for name in others if name not in _MAY_CHANGE]
        if len({p[ORIENTATION] for p in (plans, its_plans) if ORIENTATION in p}) > 1:
            others.append(ORIENTATION)
        if others:
            raise UserError(f"{path} was trained by other plans than those of now ({listed(others, 5)}): {remedy}")


def check_other_folds(fold: Path, plans: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Refuse to train a fold beside folds of other plans: nnU-Net keeps one plans.json for all, that of the last one.

    Args:
        fold: Folder of the fold that is to be trained, within its model's.
        plans: Those of now.
        content: Of dataset.json, of now.

    Raises:
        UserError: One was trained by other plans, or with the modalities in another order.
    """
    remedy = f"put {fold.parent / 'plans.json'} in their place, move that fold away, or plan under another name"
    others = {path.parent: path for path in sorted(fold.parent.glob("fold_*/checkpoint_*.pth")) if path.parent != fold}
    for path in others.values():  # one of each fold
        made_for = {}
        with suppress(UserError):  # it may be being written, and whoever uses it is told
            made_for = read_checkpoint(path)["init_args"]
        check_same_plans(path, made_for, plans, content, remedy)


def _as_file(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return plans as a file would hold them: those in memory may have tuples, and numpy's numbers."""
    if isinstance(value, Mapping):
        return {key: _as_file(of) for key, of in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_as_file(of) for of in value]
    return value.item() if isinstance(value, np.generic) else value


def _in_order(values: Sequence[Any], order: Sequence[int]) -> list[Any]:
    return [values[i] for i in order] if len(values) == len(order) else list(values)


def _intensities(plans: Mapping[str, Any]) -> list[Any]:
    of_channels = plans.get(_INTENSITIES) or plans.get(_OLD_INTENSITIES) or {}
    return [of_channels[key] for key in sorted(of_channels, key=lambda key: (len(str(key)), str(key)))]
