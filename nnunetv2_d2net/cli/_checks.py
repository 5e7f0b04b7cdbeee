"""What can be wrong before nnU-Net starts, each as one line with its remedy. Nothing here imports torch."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import modality_names

_NETWORKS = "dynamic_network_architectures."

_HOLDS = {
    "nnUNet_raw": "the data sets",
    "nnUNet_preprocessed": "plans and preprocessed data",
    "nnUNet_results": "the trained models",
}


def folder_of(variable: str) -> Path:
    """Return the folder that one of nnU-Net's environment variables names.

    Raises:
        UserError: The variable is not set.
    """
    folder = os.environ.get(variable)
    if not folder:
        raise UserError(f"{variable} is not set: export {variable}=/path/to/{variable} (it holds {_HOLDS[variable]})")
    return Path(folder)


def dataset_folder(name_or_id: str, variable: str, remedy: str) -> Path:
    """Return a data set's folder below one of nnU-Net's three roots.

    Args:
        name_or_id: ``7``, ``007`` or ``Dataset007_Name``.
        variable: Name of the root's environment variable.
        remedy: What to do if it is not there.

    Raises:
        UserError: No such data set, several of that number, or none in this root.
    """
    root = folder_of(variable)
    name = name_or_id if name_or_id.startswith("Dataset") else _name_of_id(name_or_id, root)
    if not (root / name).is_dir():
        raise UserError(f"{root / name} does not exist: {remedy}")
    return root / name


def _name_of_id(number: str, root: Path) -> str:
    from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

    if not number.isdigit():
        raise UserError(f"{number} is no data set: give its number, such as 7, or its name, such as Dataset007_Name")
    names = [str(name) for name in find_candidate_datasets(int(number))]
    if not names:
        raise UserError(
            f"no folder Dataset{int(number):03d}_* in {root}: check the number, and that nnUNet_raw, "
            "nnUNet_preprocessed and nnUNet_results are those you mean"
        )
    if len(names) > 1:
        raise UserError(f"data set {number} has several names: rename or remove all but one of {', '.join(names)}")
    return names[0]


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON file.

    Raises:
        UserError: It is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no JSON (line {error.lineno}: {error.msg}): {remedy}") from error


def enough_modalities(dataset_json: Path, remedy: str) -> None:
    """Refuse a data set with one modality, which leaves nothing to be missing.

    Raises:
        UserError: dataset.json is missing or names fewer than two channels.
    """
    names = channel_names(dataset_json, read_json(dataset_json, "a data set of nnU-Net needs it"))
    if len(names) < 2:
        raise UserError(f"{dataset_json} names one modality ({names[0]}), D2-Net needs at least 2: {remedy}")


def channel_names(dataset_json: Path, content: dict) -> list[str]:
    """Return the names of the modalities.

    Args:
        dataset_json: Where the content comes from.
        content: Of dataset.json.

    Raises:
        UserError: It does not name them.
    """
    try:
        return modality_names(content)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f'{dataset_json} lacks "channel_names" such as {{"0": "FLAIR", "1": "T1"}}: add it') from error


def known_network(plans_json: Path) -> None:
    """Refuse plans that name code outside torch and nnU-Net's network package: building the network would run it.

    Raises:
        UserError: They do, or cannot be read.
    """
    plans = read_json(plans_json, "copy it from nnUNet_preprocessed, or train again")
    for name, configuration in plans.get("configurations", {}).items():
        architecture = configuration.get("architecture", {})
        arguments = architecture.get("arch_kwargs", {})
        imported = [arguments.get(key) for key in architecture.get("_kw_requires_import", ())]
        network = architecture.get("network_class_name", _NETWORKS)
        foreign = [n for n in imported if n is not None and not str(n).startswith("torch.nn.")]
        if not str(network).startswith(_NETWORKS) or foreign:
            raise UserError(
                f"{plans_json}: configuration {name} names code from elsewhere, "
                f"{', '.join(map(str, foreign or [network]))}: if you trust it, use nnU-Net's own commands"
            )


def existing_file(path: str, what: str) -> None:
    """Refuse a file that is not there.

    Raises:
        UserError: It is not there.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist: {what}")


def known_folds(folds: Sequence[str]) -> None:
    """Refuse a fold that is neither a number nor ``all``.

    Raises:
        UserError: Such a fold.
    """
    for fold in folds:
        if fold != "all" and not fold.isdigit():
            raise UserError(f"{fold} is no fold: give a number such as 0, or all")
