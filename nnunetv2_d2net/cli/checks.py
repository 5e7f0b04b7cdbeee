"""The old name of _checks, until nobody imports it."""

from pathlib import Path

from nnunetv2_d2net.base.dataset import channels_of
from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.cli._checks import *  # noqa: F403
from nnunetv2_d2net.cli._checks import check_folds as known_folds  # noqa: F401
from nnunetv2_d2net.plugin.planning.plans import check_modalities


def channel_names(dataset_json, content):  # noqa: ANN001, ANN201, D103
    return list(channels_of(content, str(dataset_json)))


def enough_modalities(dataset_json: Path, remedy: str) -> None:  # noqa: D103
    content = read_json(dataset_json, "a data set of nnU-Net needs it")
    check_modalities(channels_of(content, str(dataset_json)), dataset_json, remedy)
