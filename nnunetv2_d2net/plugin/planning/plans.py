"""What plans say about data and networks, read without torch: the one reader of them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import check_key, read_json
from nnunetv2_d2net.base.sides import ORIENTATION, ORIENTATIONS
from nnunetv2_d2net.base.text import counted

MISSING_IN_MODEL = "copy it from nnUNet_preprocessed, or train again"
"""Remedy for plans and dataset.json of a trained model."""

_NUMBER = (int, float)
_PLANS: Mapping[str, Any] = {
    "dataset_name": str,
    "plans_name": str,
    "image_reader_writer": str,
    "transpose_forward": list,
    "transpose_backward": list,
    "configurations": dict,
}
_CONFIGURATION: Mapping[str, Any] = {
    "data_identifier": str,
    "preprocessor_name": str,
    "batch_size": int,
    "batch_dice": bool,
    "patch_size": list,
    "spacing": list,
    "normalization_schemes": list,
    "use_mask_for_norm": list,
    **{f"resampling_fn_{kind}": str for kind in ("data", "seg", "probabilities")},
    **{f"resampling_fn_{kind}_kwargs": dict for kind in ("data", "seg", "probabilities")},
}
_ARCHITECTURE: Mapping[str, Any] = {"network_class_name": str, "arch_kwargs": dict, "_kw_requires_import": list}
_OLD_ARCHITECTURE: Mapping[str, Any] = {
    "UNet_class_name": str,
    "UNet_base_num_features": int,
    "unet_max_num_features": int,
    **dict.fromkeys(("n_conv_per_stage_encoder", "n_conv_per_stage_decoder", "num_pool_per_axis"), list),
    **dict.fromkeys(("pool_op_kernel_sizes", "conv_kernel_sizes"), list),
}
"""How nnU-Net described networks before it had ``architecture``; it still reads that."""
_ITEMS: Mapping[str, Any] = {
    "transpose_forward": int,
    "transpose_backward": int,
    "patch_size": int,
    "spacing": _NUMBER,
    "normalization_schemes": str,
    "use_mask_for_norm": bool,
    "_kw_requires_import": str,
}
_NOT_NEEDED: Mapping[str, Any] = {
    ORIENTATION: str,
    "label_manager": str,
    "foreground_intensity_properties_per_channel": dict,
    "foreground_intensity_properties_by_modality": dict,
    "previous_stage": str,
}
_DATASET_NAME = re.compile(r"Dataset[0-9]{3}_[^/\\]+")
_FOLDER_NAME = re.compile(r"(?!\.{1,2}$)[^/\\]+")


def read_plans(path: Path, remedy: str = MISSING_IN_MODEL) -> dict[str, Any]:
    """Read plans whose values are of the types that nnU-Net takes for granted.

    Args:
        path: The file.
        remedy: What to do where it cannot be used.

    Raises:
        UserError: It cannot be read, or lacks a key, or a value is of another type; file and key are named.
    """
    plans = read_json(path, remedy)
    check_plans(plans, str(path), remedy)
    return plans


def check_plans(plans: Mapping[str, Any], where: str, remedy: str) -> None:
    """Refuse plans that lack a key, or in which a value is of another type.

    Args:
        plans: Their content.
        where: The file, for messages.
        remedy: What to do.

    Raises:
        UserError: They do.
    """
    _check_values(plans, _PLANS, where, remedy)
    if not _DATASET_NAME.fullmatch(plans["dataset_name"]):
        name = plans["dataset_name"]
        raise UserError(f'{where}: "dataset_name" is {name!r}, no name of a data set like Dataset007_Name: {remedy}')
    _check_folder_name(plans["plans_name"], f'{where}: "plans_name"', remedy)
    if plans.get(ORIENTATION, "LPS") not in ORIENTATIONS:
        raise UserError(f'{where}: "{ORIENTATION}" is {plans[ORIENTATION]!r}, no orientation such as LPS: {remedy}')
    for name in plans["configurations"]:
        inside = f"{where}: configuration {name}"
        configuration = configuration_of(plans, name, where, remedy)
        _check_values(configuration, _CONFIGURATION, inside, remedy)
        _check_folder_name(name, f'{where}: a name in "configurations"', remedy)
        _check_folder_name(configuration["data_identifier"], f'{inside}: "data_identifier"', remedy)
        if "architecture" not in configuration and "UNet_class_name" in configuration:
            _check_values(configuration, _OLD_ARCHITECTURE, inside, remedy)
        else:
            check_key(configuration, "architecture", dict, inside, remedy)
            _check_values(configuration["architecture"], _ARCHITECTURE, f'{inside}: "architecture"', remedy)


def configuration_of(
    plans: Mapping[str, Any], name: str, where: str, remedy: str, heirs: Sequence[str] = ()
) -> dict[str, Any]:
    """Return one configuration together with what it inherits.

    Args:
        plans: Content of the plans.
        name: Of the configuration.
        where: The file, for messages.
        remedy: What to do.
        heirs: Configurations that inherit from this one, of which one asks.

    Raises:
        UserError: There is no such configuration, or it is no object, or inherits from itself.
    """
    if name in heirs:
        raise UserError(f"{where}: configuration {name} inherits from itself: {remedy}")
    check_key(plans["configurations"], name, dict, f'{where}: "configurations"', remedy)
    own = plans["configurations"][name]
    if "inherits_from" not in own:
        return own
    check_key(own, "inherits_from", str, f"{where}: configuration {name}", remedy)
    return {**configuration_of(plans, own["inherits_from"], where, remedy, (*heirs, name)), **own}


def _check_values(content: Mapping[str, Any], kinds: Mapping[str, Any], where: str, remedy: str) -> None:
    for key, kind in {**kinds, **{key: kind for key, kind in _NOT_NEEDED.items() if key in content}}.items():
        check_key(content, key, kind, where, remedy)
        if key in _ITEMS:
            items = {f"{key}[{i}]": item for i, item in enumerate(content[key])}
            for item in items:
                check_key(items, item, _ITEMS[key], where, remedy)


def _check_folder_name(name: str, where: str, remedy: str) -> None:
    if not _FOLDER_NAME.fullmatch(name):
        raise UserError(f"{where} is {name!r}, which leads to another folder: {remedy}")


def preprocessed_folder(plans: Path, configuration: str, remedy: str) -> Path:
    """Return the folder that a configuration's preprocessed data belong into, whether it is there or not.

    Args:
        plans: The file of the plans, in the data set's folder of preprocessed data.
        configuration: Its name in the plans.
        remedy: What to do where the plans cannot be read.

    Raises:
        UserError: They cannot be read, lack this configuration, or name code from elsewhere.
    """
    content = check_networks(plans, remedy)
    if configuration not in content["configurations"]:
        raise UserError(f"{plans} has no configuration {configuration}: it has {', '.join(content['configurations'])}")
    return plans.parent / configuration_of(content, configuration, str(plans), remedy)["data_identifier"]


def check_modalities(channels: Sequence[str], dataset_json: str | Path, remedy: str) -> None:
    """Refuse a data set that has nothing to be missing.

    Args:
        channels: Names of its modalities.
        dataset_json: Where they come from.
        remedy: What to do instead.

    Raises:
        UserError: There are fewer than two.
    """
    if len(channels) < 2:
        raise UserError(
            f"{dataset_json} names {counted(len(channels), 'channel')} ({', '.join(channels)}), "
            f"D2-Net needs at least 2: {remedy}"
        )


def check_count(content: Mapping[str, Any], dataset_json: str | Path) -> None:
    """Refuse a dataset.json that does not say how many training cases there are, by which batches are planned.

    Raises:
        UserError: It does not.
    """
    check_key(content, "numTraining", int, str(dataset_json), "write the number of training cases there")


def check_networks(plans: Path, remedy: str = MISSING_IN_MODEL) -> dict[str, Any]:
    """Read plans, and refuse those that name code outside torch.nn and nnU-Net: building the network would run it.

    Args:
        plans: The file.
        remedy: What to do where it cannot be used.

    Returns:
        Their content.

    Raises:
        UserError: They do, or cannot be read.
    """
    from nnunetv2_d2net.plugin.named_code import check_named_code  # noqa: PLC0415 - imports torch

    content = read_plans(plans, remedy)
    for name in content["configurations"]:
        check_named_code(content, configuration_of(content, name, str(plans), remedy), f"{plans}: configuration {name}")
    return content
