"""Data sets and folds that a user names, found or refused in one line. Nothing here imports torch."""

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.dataset import folder_of
from nnunetv2_d2net.base.errors import UsageError, UserError


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


def check_folds(folds: Sequence[str]) -> None:
    """Refuse a fold that is neither a number nor ``all``.

    Raises:
        UserError: Such a fold.
    """
    for fold in folds:
        if fold != "all" and not fold.isdigit():
            raise UsageError(f"{fold} is no fold: give a number such as 0, or all")
