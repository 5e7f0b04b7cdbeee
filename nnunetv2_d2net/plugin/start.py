"""Which stock model a training starts from, and what the trainer of its companion is called; without torch."""

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.text import listed

STUDENT = "nnUNetTrainerModalityDropoutImputed"
"""The trainer of a companion's student where nobody names another one: the best of those in docs/results.md."""

COMPANION = "Companion"
"""What a trainer's name ends with, before its length, where it trains the companion of a stock nnU-Net."""

STOCK_TRAINER = "nnUNetTrainer"
"""nnU-Net's own, whose model a companion starts from where nobody names another one."""

SEPARATOR = "__"
"""nnU-Net's, between trainer, plans and configuration in the name of a model's folder."""


def companion_of(trainer: str) -> str:
    """Return the name of the trainer that trains a companion with this one's student.

    Example:
        >>> companion_of("D2NetTrainer_50epochs"), companion_of("D2NetTrainerCompanion")
        ('D2NetTrainerCompanion_50epochs', 'D2NetTrainerCompanion')
    """
    base, length = trainer.partition("_")[::2]
    base = base.removesuffix(COMPANION) + COMPANION
    return f"{base}_{length}" if length else base


def is_companion(trainer: str) -> bool:
    """Tell by its name whether a trainer trains a companion.

    Example:
        >>> is_companion("D2NetTrainerCompanion_50epochs"), is_companion("D2NetTrainer_50epochs")
        (True, False)
    """
    return trainer.partition("_")[0].endswith(COMPANION)


def find_stock(results: Path, start: str, configuration: str, plans: str = "") -> tuple[Path, str]:
    """Find the model that a companion starts from.

    Args:
        results: The data set's folder below nnUNet_results.
        start: Name of a trainer, folder of a model, or a checkpoint; a fold's folder stands for its final one.
        configuration: Of the plans.
        plans: Name of the plans; empty for those that the model was trained with.

    Returns:
        The model's folder, or the checkpoint; and the name of the plans.

    Raises:
        UserError: There is no such model, it is of another configuration, or several fit.
    """
    path = Path(start)
    if path.is_dir() and path.resolve().name.startswith("fold_"):
        path /= "checkpoint_final.pth"
    if path.is_file() or any(path.glob("fold_*")):
        model = path.resolve() if path.is_dir() else path.resolve().parent.parent
        of_plans = _plans_of(model, configuration)
        if not of_plans and not plans:
            raise UserError(f"{model} is not named TRAINER__PLANS__{configuration}: pass the plans with -p")
        return path.resolve(), plans or of_plans
    of_configuration = sorted(results.glob(SEPARATOR.join(("*", "*", configuration))))
    with_plans = {model: _plans_of(model, configuration) for model in of_configuration if _trainer_of(model) == start}
    models = [model for model, its in with_plans.items() if plans in ("", its)]
    if with_plans and not models:
        its = listed([*with_plans.values()], 5)
        raise UserError(f"{start} was trained with {its}, not with {plans}: pass one of these with -p")
    if not models:
        trained = [model.name for model in of_configuration or sorted(results.glob(f"*{SEPARATOR}*{SEPARATOR}*"))]
        there = f" (there: {listed(trained, 5)})" if trained else ""
        named = f"{path}, a folder without folds," if path.is_dir() else path
        there = f"{there}; {path} does not exist" if "/" in start and not path.exists() else there
        raise UserError(
            f"no model of {named} for {configuration} in {results}{there}: "
            "train it first, or pass a trainer, the folder of a model or a checkpoint that is there"
        )
    if len(models) > 1:
        names = listed([model.name for model in models], 5)
        raise UserError(f"{start} was trained with several plans ({names}): choose with -p")
    return models[0], _plans_of(models[0], configuration)


def check_begun(results: Path, trainer: str, settings: str, fold: str) -> None:
    """See that it is this companion's training that was begun, where one is to go on and nobody has named it.

    Args:
        results: The data set's folder below nnUNet_results.
        trainer: Of the companion.
        settings: Plans and configuration, as in the name of a model's folder.
        fold: Its number, or ``all``.

    Raises:
        UserError: Only companions of other trainers were.
    """
    begun = {path.parents[1].name for path in results.glob(f"*{SEPARATOR}{settings}/fold_{fold}/checkpoint_*.pth")}
    companions = sorted({name.partition(SEPARATOR)[0] for name in begun if is_companion(name.partition(SEPARATOR)[0])})
    if companions and trainer not in companions:
        raise UserError(
            f"fold {fold} of {trainer} has not been begun in {results}, but that of {listed(companions, 5)}: "
            f"go on with -tr {companions[0]}"
        )


def start_checkpoint(model: Path, fold: str) -> Path:
    """Return the checkpoint that a fold's companion starts from.

    Args:
        model: Folder of a model, or a checkpoint.
        fold: A number or ``all``.

    Raises:
        UserError: It does not exist, or its training has seen the cases that this fold leaves out.
    """
    checkpoint = model if model.is_file() else model / f"fold_{fold}" / "checkpoint_final.pth"
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint} does not exist: train fold {fold} of that model to its end first")
    if checkpoint.parent.name.startswith("fold_"):
        check_same_fold(checkpoint, checkpoint.parent.name.removeprefix("fold_"), fold)
    return checkpoint


def check_same_fold(checkpoint: Path, its_fold: object, fold: object) -> None:
    """See that a stock model has not trained on the cases by which its companion chooses.

    Args:
        checkpoint: Of the stock model.
        its_fold: On which it was trained, a number or ``all``.
        fold: That of the companion.

    Raises:
        UserError: It has.
    """
    if str(fold) not in ("all", str(its_fold)):
        raise UserError(f"{checkpoint} has seen validation cases of fold {fold}: start from fold {fold} of that model")


def _trainer_of(model: Path) -> str:
    return model.name.partition(SEPARATOR)[0]


def _plans_of(model: Path, configuration: str) -> str:
    parts: Sequence[str] = model.name.split(SEPARATOR)
    return parts[1] if len(parts) == 3 and parts[2] == configuration else ""
