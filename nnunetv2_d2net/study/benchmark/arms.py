"""Which arms a benchmark has unless told otherwise, and which stock arm a companion starts from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.plugin.start import SEPARATOR, STUDENT, companion_of, is_companion
from nnunetv2_d2net.plugin.training.variants import LENGTHS

STOCK, DROPOUT, OURS = ARMS = ("nnUNetTrainer", "nnUNetTrainerModalityDropout", "D2NetTrainer")
CONTROL = f"{DROPOUT}AdamW"  # trained as the companions' default student is

_NNUNETS = 1000  # epochs of a trainer whose name has no length


class DefaultArms(NamedTuple):
    """The arms of a benchmark.

    Attributes:
        names: Of their trainers, in the order of the tables.
        problem: What they cannot compare, in one line; empty if there is no such.
    """

    names: tuple[str, ...]
    problem: str = ""


def default_arms(start: str) -> DefaultArms:
    """Choose the arms where nobody names any.

    Companions have seen the steps of the stock network before their own, so they are compared with trainers of as many
    steps in all: modality dropout as the default student is trained, and stock nnU-Net.

    Args:
        start: What companions start from: the name of a stock trainer, or a path; empty for no companions.

    Example:
        >>> default_arms("nnUNetTrainer_50epochs").names[2:]  # doctest: +NORMALIZE_WHITESPACE
        ('D2NetTrainerCompanion_50epochs', 'nnUNetTrainerModalityDropoutAdamW_100epochs', 'nnUNetTrainer_100epochs')
        >>> default_arms("nnUNetTrainer_100epochs").problem
        'nnU-Net has no trainers of 200 epochs: the controls have fewer steps than stock and companion together'
    """
    if not start:
        return DefaultArms(ARMS)
    is_path = "/" in start or Path(start).exists()
    _, _, length = (_trainer_in(Path(start)) if is_path else start).partition("_")
    digits = length.removesuffix("s").removesuffix("epoch")
    n_epochs = int(digits) if digits.isdecimal() else _NNUNETS
    companions = [companion_of(with_epochs(trainer, n_epochs)) for trainer in (STUDENT, OURS)]
    names = [*([] if is_path else [start]), *companions]
    if 2 * n_epochs in (*LENGTHS, _NNUNETS):
        return DefaultArms((*names, *(with_epochs(trainer, 2 * n_epochs) for trainer in (CONTROL, STOCK))))
    fewer = f"nnU-Net has no trainers of {2 * n_epochs} epochs: the controls have fewer steps than stock and companion"
    return DefaultArms((*names, with_epochs(CONTROL, n_epochs)), f"{fewer} together")


def stock_arm(companion: str, arms: Sequence[str]) -> str:
    """Choose the arm that a companion starts from: the stock one of its own length, or the only stock one.

    Returns:
        Its name; empty where there is none, or several and none of the companion's length.

    Example:
        >>> stock_arm("D2NetTrainerCompanion_5epochs", ["nnUNetTrainer_5epochs", "nnUNetTrainer_10epochs"])
        'nnUNetTrainer_5epochs'
    """
    stock = [arm for arm in arms if arm.startswith(STOCK) and not arm.startswith(DROPOUT) and not is_companion(arm)]
    alike = [arm for arm in stock if arm.partition("_")[2] == companion.partition("_")[2]]
    found = alike or stock
    return found[0] if len(found) == 1 else ""


def with_epochs(trainer: str, n_epochs: int, own: int = _NNUNETS) -> str:
    """Name the trainer of another length.

    Args:
        trainer: Name without a length.
        n_epochs: Of the training.
        own: Those of the trainer itself.

    Example:
        >>> with_epochs("D2NetTrainer", 5), with_epochs("D2NetTrainerPaper", 400, own=400)
        ('D2NetTrainer_5epochs', 'D2NetTrainerPaper')
    """
    return trainer if n_epochs == own else f"{trainer}_{n_epochs}epoch{'s' if n_epochs > 1 else ''}"


def _trainer_in(path: Path) -> str:
    """Name the trainer of a model by its folder, or by where its fold or checkpoint lies."""
    model = path.absolute().parent.parent if path.suffix == ".pth" else path.absolute()
    model = model.parent if model.name.startswith("fold_") else model
    return model.name.partition(SEPARATOR)[0]
