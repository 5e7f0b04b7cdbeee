"""The note beside each segmentation: which modalities were used, by which model, and how far to trust it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.dataset import subset_name
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, sha256_of, write_json
from nnunetv2_d2net.base.text import version_of

EXPECTED_DICE = "dice_by_subset.json"
"""File in a model's folder with the mean Dice that each subset of modalities reached, by region."""

UNRELIABLE = 0.8
"""A region is unreliable where its Dice falls below this share of what all modalities reach."""


class Model(NamedTuple):
    """A trained model as it is on disk.

    Attributes:
        folder: ``TRAINER__PLANS__CONFIGURATION``.
        checkpoints: SHA-256 of each fold's checkpoint, by its path below the folder.
        expected_dice: Mean Dice by subset and region; empty if nobody has measured it.
    """

    folder: Path
    checkpoints: dict[str, str]
    expected_dice: dict[str, dict[str, float]]


def describe_model(folder: Path, folds: Sequence[str | int], checkpoint_name: str) -> Model:
    """Hash a model's checkpoints and read what was measured with it.

    Args:
        folder: The model's folder.
        folds: Those in use.
        checkpoint_name: File name of the checkpoints.

    Raises:
        UserError: The file with the measurements holds something else.
    """
    names = [f"fold_{fold}/{checkpoint_name}" for fold in folds]
    checkpoints = {name: sha256_of(folder / name) for name in names}
    return Model(folder, checkpoints, read_expected_dice(folder, checkpoints))


def read_expected_dice(folder: Path, checkpoints: Mapping[str, str] | None = None) -> dict[str, dict[str, float]]:
    """Return the mean Dice by subset and region that was measured with a model.

    Args:
        folder: The model's folder.
        checkpoints: SHA-256 of those in use, by path below the folder; None for whatever was measured.

    Returns:
        Empty where the file is not there, or names a checkpoint in use that has been replaced since.

    Raises:
        UserError: The file holds something else.
    """
    path = folder / EXPECTED_DICE
    if not path.is_file():
        return {}
    content = read_json(path, "repair or remove it", {"dice": dict})
    measured = content.get("checkpoints", {})
    try:
        if any(measured.get(name, digest) != digest for name, digest in (checkpoints or {}).items()):
            return {}
        return {
            subset: {region: float(value) for region, value in regions.items()}
            for subset, regions in content["dice"].items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} does not hold {{"dice": {{SUBSET: {{REGION: NUMBER}}}}}}: repair or remove it'
        ) from error


def write_expected_dice(
    folder: Path, dice: dict[str, dict[str, float]], cases: str, checkpoints: Mapping[str, str] | None = None
) -> None:
    """Keep the mean Dice by subset and region with the model, for the notes of later predictions.

    Args:
        folder: The model's folder.
        dice: Mean Dice by subset (as :func:`subset_name` names it) and region.
        cases: Which cases it was measured on, in words.
        checkpoints: SHA-256 of the checkpoints that were measured, by path below the folder: the figures are not told
            for others.
    """
    content = {"measured on": cases, "checkpoints": dict(checkpoints or {}), "dice": dice}
    write_json(folder / EXPECTED_DICE, content)


def note(model: Model | None, available: Sequence[bool], names: Sequence[str], constant: Sequence[str] = ()) -> dict:
    """Say what a segmentation was made from.

    Args:
        model: What made it, None if it did not come from a folder.
        available: M flags.
        names: M modality names.
        constant: Files that counted as absent because all their voxels are alike.

    Returns:
        The note, ready for JSON.
    """
    pairs = list(zip(names, available, strict=True))
    content: dict = {
        "available modalities": [name for name, flag in pairs if flag],
        "absent modalities": [name for name, flag in pairs if not flag],
        "constant images, taken as absent": list(constant),
        "model": model.folder.name if model else None,
        "data set": model.folder.parent.name if model else None,
        "checkpoints (sha256)": model.checkpoints if model else {},
        "versions": {"nnunetv2_d2net": __version__, "nnunetv2": version_of("nnunetv2"), "torch": version_of("torch")},
    }
    if model and model.expected_dice:
        subset, complete = subset_name(available, names), subset_name([True] * len(names), names)
        content["mean Dice measured with these modalities"] = model.expected_dice.get(subset, {})
        content["warnings"] = warnings(model.expected_dice, subset, complete, content["absent modalities"])
    return content


def warnings(
    expected_dice: dict[str, dict[str, float]], subset: str, complete: str, absent: Sequence[str]
) -> list[str]:
    """One line for each region that is unreliable without the absent modalities.

    Args:
        expected_dice: Mean Dice by subset and region.
        subset: Name of what is available.
        complete: Name of all modalities.
        absent: Names of what is not.
    """
    lines = []
    for region, best in expected_dice.get(complete, {}).items():
        reached = expected_dice.get(subset, {}).get(region)
        if reached is not None and reached < UNRELIABLE * best and f"{reached:.2f}" != f"{best:.2f}":
            lines.append(
                f"{region} is unreliable without {', '.join(absent)}: "
                f"mean Dice {reached:.2f} instead of {best:.2f} with all modalities"
            )
    return lines
