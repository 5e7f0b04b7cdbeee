"""How nnU-Net finds our classes: a folder of trainers by environment variable, or shims inside nnU-Net.

nnU-Net looks for trainers below ``nnunetv2/training/nnUNetTrainer`` and then in the folders of ``nnUNet_extTrainer``,
for planners below ``nnunetv2/experiment_planning`` only. Nothing here imports torch or nnU-Net.
"""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import explaining_disk_errors, make_folder, write_text

TRAINERS_VARIABLE = "nnUNet_extTrainer"
MARKER = '# Written by "d2net register", removed by "d2net unregister": changes are lost.'

# Without the guard, every lookup of every trainer would fail once this package is uninstalled.
_SHIM = f'''{MARKER}
"""The classes of {{module}}, where nnU-Net looks for them; empty while nnunetv2_d2net is not installed."""

try:
    import {{module}} as _module
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "nnunetv2_d2net":
        raise
else:
    globals().update({{{{name: getattr(_module, name) for name in _module.__all__}}}})
    if hasattr(_module, "__getattr__"):  # it makes classes when they are looked up
        __getattr__ = _module.__getattr__
'''

_READ_ONLY = "use 'd2net train' and 'd2net plan_and_preprocess', which need no registration, or change its permissions"

SHIMS = {
    "training/nnUNetTrainer/variants/D2NetTrainer.py": "nnunetv2_d2net.plugin.training.variants",
    "experiment_planning/experiment_planners/D2NetPlanner.py": "nnunetv2_d2net.plugin.planning.planner",
}


def trainers_folder() -> Path:
    """Return the folder that ``nnUNet_extTrainer`` has to name, in an installed package as in a checkout.

    Raises:
        UserError: The folder is not there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "trainers", package.parent / "trainers"):
        if (folder / "D2NetTrainer.py").is_file():
            return folder
    raise UserError(f"{package / 'trainers'} is missing: install nnunetv2_d2net again")


def announce_trainers() -> None:
    """Let nnU-Net find our trainers in this process and in those that it starts, before any folder the user has set."""
    folders = os.environ.get(TRAINERS_VARIABLE, "").split(os.pathsep)
    ours = str(trainers_folder())
    os.environ[TRAINERS_VARIABLE] = os.pathsep.join([ours, *(folder for folder in folders if folder not in ("", ours))])


def nnunet_folder() -> Path:
    """Return the folder of the nnunetv2 that Python would import.

    Raises:
        UserError: nnU-Net is not installed.
    """
    spec = find_spec("nnunetv2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("nnU-Net is not installed in this Python: pip install 'nnunetv2>=2.8.1,<2.9'")
    return Path(next(iter(spec.submodule_search_locations)))


def register(nnunet: Path) -> list[Path]:
    """Write the shims; calling it again changes nothing.

    Args:
        nnunet: Folder of the package nnunetv2.

    Returns:
        The shims' paths.

    Raises:
        UserError: nnU-Net's folder cannot be written, or holds a file of that name that is not ours.
    """
    shims = {nnunet / path: _SHIM.format(module=module) for path, module in SHIMS.items()}
    _refuse_foreign(shims)
    for path in shims:  # so that a folder that is read-only leaves nothing half done
        make_folder(path.parent, _READ_ONLY)
    for path, text in shims.items():
        write_text(path, text, _READ_ONLY)
    return list(shims)


def unregister(nnunet: Path) -> list[Path]:
    """Remove the shims that ``register`` wrote.

    Args:
        nnunet: Folder of the package nnunetv2.

    Returns:
        The paths that were removed, none if there were none.

    Raises:
        UserError: nnU-Net's folder cannot be written, or holds a file of that name that is not ours.
    """
    shims = [nnunet / path for path in SHIMS]
    _refuse_foreign(shims)
    removed = [path for path in shims if path.exists()]
    for path in removed:
        with explaining_disk_errors(path, "remove this file as the user who owns it"):
            path.unlink()
    return removed


def _refuse_foreign(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(MARKER):
            raise UserError(f"{path} was not written by 'd2net register': move it away first")
