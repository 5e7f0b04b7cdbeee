"""The note beside each segmentation: which modalities were used, by which model, and how far to trust it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.appearance import CohortAppearance
from nnunetv2_d2net.base.dataset import subset_name
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, sha256_of, write_json
from nnunetv2_d2net.base.text import counted, version_of
from nnunetv2_d2net.plugin.prediction.agreement import AGREEMENT, worst_agreement
from nnunetv2_d2net.plugin.prediction.likeness import compared_with_training, read_appearance, read_fingerprint

EXPECTED_DICE = "dice_by_subset.json"
"""File in a model's folder with the Dice that each subset of modalities reached, by region."""

UNRELIABLE = 0.8
"""A region is unreliable where its Dice falls below this share of what all modalities reach."""

FLOOR = 0.5
"""A region is unreliable where its Dice falls below this, whatever all modalities reach."""

VOLUMES = "volumes (ml)"

NEVER_MEASURED = "never measured"


CHECKPOINTS = "checkpoints (sha256)"
AVAILABLE_NAMES = "available modalities"
CONSTANT = "constant images, taken as absent"
IMAGES = "images of the case (size, sha256)"
DICE = "mean Dice measured with these modalities"
SD = "SD over cases of the measured Dice"
N_CASES = "cases of the measured Dice"
FALSE_ML = "mean ml found in cases without the region"
N_WITHOUT = "cases without the region"


class Measured(NamedTuple):
    """Dice of one subset and region over the cases of a measurement.

    Attributes:
        dice: Mean.
        sd: Standard deviation over the cases, of a sample; None for a single case, or where nobody noted it.
        n: How many cases; None where nobody noted it.
        false_ml: Mean volume that was found in the cases without the region; None likewise.
        n_without: How many these are; None likewise.
    """

    dice: float
    sd: float | None = None
    n: int | None = None
    false_ml: float | None = None
    n_without: int | None = None


MeasuredTable = Mapping[str, Mapping[str, Measured]]
"""By subset (as :func:`subset_name` names it), then by region."""


class Model(NamedTuple):
    """A trained model as it is on disk.

    Attributes:
        folder: ``TRAINER__PLANS__CONFIGURATION``.
        checkpoints: SHA-256 of each fold's checkpoint, by its path below the folder.
        measured: Dice by subset and region; empty if nobody has measured it.
        measured_on: Which cases it was measured on.
        fingerprint: nnU-Net's, of the training data; empty if the folder does not have it.
        cohort: What the training cases look like; None where the fingerprint does not say it.
    """

    folder: Path
    checkpoints: dict[str, str]
    measured: MeasuredTable
    measured_on: str = ""
    fingerprint: Mapping[str, Any] = MappingProxyType({})
    cohort: CohortAppearance | None = None

    @property
    def compared(self) -> list[str]:
        """What of a case is compared with the training data."""
        return compared_with_training(self.fingerprint, self.cohort)


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
    table = read_measured(folder, checkpoints)
    content = read_json(folder / EXPECTED_DICE, "repair or remove it") if table else {}
    measured_on, fingerprint = str(content.get("measured on", "")), read_fingerprint(folder)
    return Model(folder, checkpoints, table, measured_on, fingerprint, read_appearance(fingerprint))


def read_measured(folder: Path, checkpoints: Mapping[str, str] | None = None) -> MeasuredTable:
    """Return the Dice by subset and region that was measured with a model.

    Args:
        folder: The model's folder.
        checkpoints: SHA-256 of those in use, by path below the folder; None for whatever was measured.

    Returns:
        Empty where the file is not there, or names checkpoints, and not all of those in use as they are.

    Raises:
        UserError: The file holds something else.
    """
    path = folder / EXPECTED_DICE
    if not path.is_file():
        return {}
    content = read_json(path, "repair or remove it", {"dice": dict})
    made_by, *others = (content.get(key, {}) for key in ("checkpoints", *Measured._fields[1:]))  # older files lack some
    try:
        if made_by and any(made_by.get(name) != digest for name, digest in (checkpoints or {}).items()):
            return {}
        return {
            subset: {
                region: Measured(float(value), *(_number(table, subset, region) for table in others))
                for region, value in regions.items()
            }
            for subset, regions in content["dice"].items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} does not hold {{"dice": {{SUBSET: {{REGION: NUMBER}}}}}}: repair or remove it'
        ) from error


def _number(table: Mapping[str, Any], subset: str, region: str) -> Any:  # noqa: ANN401 - JSON
    value = table.get(subset, {}).get(region)
    return value if value is None or isinstance(value, int) else float(value)


def write_measured(
    folder: Path, table: MeasuredTable, cases: str, checkpoints: Mapping[str, str] | None = None
) -> None:
    """Keep the Dice by subset and region with the model, for the notes of later predictions.

    Args:
        folder: The model's folder.
        table: What was measured.
        cases: Which cases it was measured on, in words.
        checkpoints: SHA-256 of the checkpoints that were measured, by path below the folder: the figures are not told
            for others.
    """
    content: dict[str, Any] = {"measured on": cases, "checkpoints": dict(checkpoints or {})}
    for key in Measured._fields:
        content[key] = {
            subset: {region: getattr(measured, key) for region, measured in regions.items()}
            for subset, regions in table.items()
        }
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
        AVAILABLE_NAMES: [name for name, flag in pairs if flag],
        "absent modalities": [name for name, flag in pairs if not flag],
        CONSTANT: list(constant),
        "model": model.folder.name if model else None,
        "data set": model.folder.parent.name if model else None,
        CHECKPOINTS: model.checkpoints if model else {},
        "versions": {"nnunetv2_d2net": __version__, "nnunetv2": version_of("nnunetv2"), "torch": version_of("torch")},
        "remarks on the images": list(remarks),
        "compared with the training data": model.compared if model else [],
        "Dice measured on": NEVER_MEASURED,
    }
    if model and model.measured:
        subset, complete = subset_name(available, names), subset_name([True] * len(names), names)
        measured = model.measured.get(subset, {})
        for key, field in zip((DICE, SD, N_CASES, FALSE_ML, N_WITHOUT), Measured._fields, strict=True):
            content[key] = {region: getattr(of_region, field) for region, of_region in measured.items()}
        if measured:
            content["Dice measured on"] = model.measured_on or "cases that nobody has named"
        content["warnings"] = warnings(model.measured, subset, complete, content["absent modalities"])
    return content


def made_otherwise(
    content: Mapping[str, Any], model: Model | None, names: Collection[str] | None, images: Mapping[str, Any]
) -> str:
    """Say how a segmentation was made otherwise than it would be now; empty if it was not, or nobody knows.

    Args:
        content: Its note.
        model: That of now.
        names: Of the modalities that are used now, constant images among them; None if nobody knows.
        images: What tells the content of each image that is used now, by the name of its modality.

    Example:
        >>> made_otherwise({"available modalities": ["T1", "T2"]}, None, ["T1", "T2", "FLAIR"], {})
        'from other modalities (T1, T2)'
    """
    made_by, made_of = content.get(CHECKPOINTS), content.get(AVAILABLE_NAMES)
    if made_by and model and made_by != model.checkpoints:
        return "by other checkpoints"
    noted = content.get(IMAGES, {})  # which earlier versions did not write
    if names is not None and made_of is not None:
        alike = set(made_of) <= set(names) and len(names) == len(made_of) + len(content.get(CONSTANT, ()))
        if not (set(noted) == set(names) if noted else alike):
            return f"from other modalities ({', '.join(made_of)})"
    others = [name for name, state in images.items() if noted.get(name, state) != state]
    return f"from other images ({', '.join(others)})" if others else ""


def warnings(table: MeasuredTable, subset: str, complete: str, absent: Sequence[str]) -> list[str]:
    """One line for each region that is unreliable, without the absent modalities or whatever there is.

    Args:
        table: Dice by subset and region.
        subset: Name of what is available.
        complete: Name of all modalities.
        absent: Names of what is not.
    """
    lines = []
    for region, measured in table.get(subset, {}).items():
        reached, best = measured.dice, table.get(complete, {}).get(region, measured).dice
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
    """Say of one segmentation how large each region is, how good the model was with these modalities, what it hangs on.

    Args:
        content: The note, with volumes.

    Example:
        >>> content = {"available modalities": ["T2"], "volumes (ml)": {"core": 12.34}}
        >>> content["Dice measured on"] = "cases of A"
        >>> content |= {DICE: {"core": 0.7}, SD: {"core": 0.21}, N_CASES: {"core": 9}}
        >>> closing_line(content)
        'core 12.3 ml; Dice with T2: core 0.70 ± 0.21 (mean ± SD over 9 cases) on cases of A'
        >>> closing_line(content | {FALSE_ML: {"core": 3.04}, N_WITHOUT: {"core": 2}})[:57]
        'core 12.3 ml (mean of 2 cases without it: 3.0 ml); Dice w'
    """
    counts, ml = content.get(N_WITHOUT, {}), content.get(FALSE_ML, {})
    without = {
        region: f" (mean of {counted(counts[region], 'case')} without it: {mean:.1f} ml)"
        for region, mean in ml.items()
        if mean is not None and counts.get(region)
    }
    volumes = content.get(VOLUMES, {}).items()
    sizes = ", ".join(f"{region} {volume:.1f} ml{without.get(region, '')}" for region, volume in volumes)
    measured = f"Dice with {', '.join(content['available modalities'])}: {_measured(content)}"
    agreement = f"; {worst_agreement(content[AGREEMENT])}" if AGREEMENT in content else ""
    return f"{sizes or 'no volumes'}; {measured}{agreement}"


def _measured(content: Mapping[str, Any]) -> str:
    """Figures of each region, over how many cases, and which."""
    spreads = {region: sd for region, sd in content.get(SD, {}).items() if sd is not None}
    figures = ", ".join(
        f"{region} {dice:.2f}" + (f" ± {spreads[region]:.2f}" if region in spreads else "")
        for region, dice in content.get(DICE, {}).items()
    )
    if not figures:
        return NEVER_MEASURED
    counts = {n for n in content.get(N_CASES, {}).values() if n is not None}
    over = f" ({'mean ± SD over' if spreads else 'of'} {counted(max(counts), 'case')})" if counts else ""
    return f"{figures}{over} on {content['Dice measured on']}"
