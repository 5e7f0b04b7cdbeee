"""The folder of the model that segments: the one that comes with this package, or any other."""

from pathlib import Path

from nnunetv2_d2net.base.errors import UserError

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
"""Holds the model of this package, at any depth."""

CHECKPOINT = "checkpoint_final.pth"


def shipped_model() -> Path:
    """Return the folder of the model that comes with this package.

    Raises:
        UserError: There is none, as in a checkout without weights.
    """
    if not any(WEIGHTS.glob("**/plans.json")):
        raise UserError(f"{WEIGHTS} holds no model: install a release of nnunetv2_d2net, or pass -m MODEL")
    return find_model(WEIGHTS)


def shipped_checkpoint() -> Path:
    """Return the weights of the model that comes with this package.

    Raises:
        UserError: There are none, as in a checkout without weights.
    """
    model = shipped_model()
    return model / f"fold_{folds_of(model)[0]}" / CHECKPOINT


def find_model(folder: Path) -> Path:
    """Return the folder of a model: the one given, or the only one below it, as in what ``d2net export`` has written.

    Raises:
        UserError: There is none, or there are several.
    """
    found = [folder] if (folder / "plans.json").is_file() else sorted(p.parent for p in folder.glob("**/plans.json"))
    if not found:
        raise UserError(f"{folder} is no model: pass the folder of a trained one, which has a plans.json")
    if len(found) > 1:
        raise UserError(f"{folder} holds {len(found)} models: pass the folder of one, such as {found[0]}")
    return found[0]


def folds_of(model: Path) -> list[str]:
    """Name the folds that are trained: those with numbers, or else ``all``.

    Raises:
        UserError: None is.
    """
    found = [path.parent.name.removeprefix("fold_") for path in sorted(model.glob(f"fold_*/{CHECKPOINT}"))]
    if not found:
        raise UserError(f"{model / 'fold_*' / CHECKPOINT} does not exist: finish the training, or pass another model")
    return [fold for fold in found if fold != "all"] or found
