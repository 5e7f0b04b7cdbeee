"""The note beside each segmentation: which modalities were used, by which model, and how far to trust it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.dataset import subset_name
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, sha256_of, write_json
from nnunetv2_d2net.base.text import version_of
from nnunetv2_d2net.plugin.prediction.likeness import read_fingerprint

EXPECTED_DICE = "dice_by_subset.json"
"""File in a model's folder with the mean Dice that each subset of modalities reached, by region."""

UNRELIABLE = 0.8
"""A region is unreliable where its Dice falls below this share of what all modalities reach."""

FLOOR = 0.5
"""A region is unreliable where its Dice falls below this, whatever all modalities reach."""

NEVER_MEASURED = "never measured"


class Model(NamedTuple):
    """A trained model as it is on disk.

    Attributes:
        folder: ``TRAINER__PLANS__CONFIGURATION``.
        checkpoints: SHA-256 of each fold's checkpoint, by its path below the folder.
        expected_dice: Mean Dice by subset and region; empty if nobody has measured it.
        measured_on: Which cases it was measured on, and how many.
        fingerprint: nnU-Net's, of the training data; empty if the folder does not have it.
    """

    folder: Path
    checkpoints: dict[str, str]
    expected_dice: dict[str, dict[str, float]]
    measured_on: str = ""
    fingerprint: Mapping[str, Any] = MappingProxyType({})


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
    dice = read_expected_dice(folder, checkpoints)
    content = read_json(folder / EXPECTED_DICE, "repair or remove it") if dice else {}
    return Model(folder, checkpoints, dice, str(content.get("measured on", "")), read_fingerprint(folder))


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


def note(
    model: Model | None,
    available: Sequence[bool],
    names: Sequence[str],
    constant: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Say what a segmentation was made from.

    Args:
        model: What made it, None if it did not come from a folder.
        available: M flags.
        names: M modality names.
        constant: Files that counted as absent because all their voxels are alike.
        remarks: What is odd about the images.

    Returns:
        The note, ready for JSON.
    """
    pairs = list(zip(names, available, strict=True))
    content: dict[str, Any] = {
        "available modalities": [name for name, flag in pairs if flag],
        "absent modalities": [name for name, flag in pairs if not flag],
        "constant images, taken as absent": list(constant),
        "model": model.folder.name if model else None,
        "data set": model.folder.parent.name if model else None,
        "checkpoints (sha256)": model.checkpoints if model else {},
        "versions": {"nnunetv2_d2net": __version__, "nnunetv2": version_of("nnunetv2"), "torch": version_of("torch")},
        "remarks on the images": list(remarks),
        "Dice measured on": NEVER_MEASURED,
    }
    if model and model.expected_dice:
        subset, complete = subset_name(available, names), subset_name([True] * len(names), names)
        measured = model.expected_dice.get(subset, {})
        content["mean Dice measured with these modalities"] = measured
        content["Dice measured on"] = (
            (model.measured_on or "cases that nobody has named") if measured else NEVER_MEASURED
        )
        content["warnings"] = warnings(model.expected_dice, subset, complete, content["absent modalities"])
    return content


def warnings(
    expected_dice: dict[str, dict[str, float]], subset: str, complete: str, absent: Sequence[str]
) -> list[str]:
    """One line for each region that is unreliable, without the absent modalities or whatever there is.

    Args:
        expected_dice: Mean Dice by subset and region.
        subset: Name of what is available.
        complete: Name of all modalities.
        absent: Names of what is not.
    """
    lines = []
    for region, reached in expected_dice.get(subset, {}).items():
        best = expected_dice.get(complete, {}).get(region, reached)
        if reached < UNRELIABLE * best and f"{reached:.2f}" != f"{best:.2f}":
            lines.append(
                f"{region} is unreliable without {', '.join(absent)}: "
                f"mean Dice {reached:.2f} instead of {best:.2f} with all modalities"
            )
        elif reached < FLOOR:
            used = f"without {', '.join(absent)}" if absent else "even with all modalities"
            lines.append(f"{region} is unreliable {used}: mean Dice {reached:.2f}")
    return lines


def closing_line(content: Mapping[str, Any]) -> str:
    """Say of one segmentation how large each region is and how good the model was with these modalities.

    Args:
        content: The note, with volumes.

    Example:
        >>> content = {"available modalities": ["T2"], "volumes (ml)": {"core": 12.34}, "Dice measured on": "2 cases"}
        >>> closing_line(content | {"mean Dice measured with these modalities": {"core": 0.7}})
        'core 12.3 ml; Dice with T2: core 0.70 on 2 cases'
    """
    dice = content.get("mean Dice measured with these modalities", {})
    sizes = ", ".join(f"{region} {volume:.1f} ml" for region, volume in content.get("volumes (ml)", {}).items())
    figures = ", ".join(f"{region} {value:.2f}" for region, value in dice.items())
    measured = f"{figures} on {content['Dice measured on']}" if figures else NEVER_MEASURED
    return f"{sizes or 'no volumes'}; Dice with {', '.join(content['available modalities'])}: {measured}"
