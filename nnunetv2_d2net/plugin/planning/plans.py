"""What plans say about data and networks, read without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.base.text import counted

_NETWORKS = "dynamic_network_architectures."

MISSING_IN_MODEL = "copy it from nnUNet_preprocessed, or train again"
"""Remedy for plans and dataset.json of a trained model."""


def preprocessed_folder(plans: Path, configuration: str, remedy: str) -> Path:
    """Return the folder that a configuration's preprocessed data belong into, whether it is there or not.

    Args:
        plans: The file of the plans, in the data set's folder of preprocessed data.
        configuration: Its name in the plans.
        remedy: What to do where the plans cannot be read.

    Raises:
        UserError: They cannot be read, or lack this configuration.
    """
    configurations = read_json(plans, remedy, {"configurations": dict})["configurations"]
    if configuration not in configurations:
        raise UserError(f"{plans} has no configuration {configuration}: it has {', '.join(configurations)}")
    return plans.parent / data_identifier(configurations, configuration)


def data_identifier(configurations: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Name the folder of a configuration's preprocessed data, which another configuration may hand down.

    Example:
        >>> data_identifier({"2d": {"data_identifier": "Plans_2d"}, "heir": {"inherits_from": "2d"}}, "heir")
        'Plans_2d'
    """
    configuration = configurations[name]
    if "data_identifier" in configuration or "inherits_from" not in configuration:
        return configuration.get("data_identifier", name)
    return data_identifier(configurations, configuration["inherits_from"])


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


def check_networks(plans: Path) -> None:
    """Refuse plans that name code outside torch and nnU-Net's network package: building the network would run it.

    Raises:
        UserError: They do, or cannot be read.
    """
    for name, configuration in read_json(plans, MISSING_IN_MODEL).get("configurations", {}).items():
        architecture = configuration.get("architecture", {})
        arguments = architecture.get("arch_kwargs", {})
        imported = [arguments.get(key) for key in architecture.get("_kw_requires_import", ())]
        network = architecture.get("network_class_name", _NETWORKS)
        foreign = [n for n in imported if n is not None and not str(n).startswith("torch.nn.")]
        if not str(network).startswith(_NETWORKS) or foreign:
            raise UserError(
                f"{plans}: configuration {name} names code from elsewhere, "
                f"{', '.join(map(str, foreign or [network]))}: if you trust it, use nnU-Net's own commands"
            )
