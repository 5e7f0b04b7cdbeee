"""D2-Net for nnU-Net v2: one model for every subset of modalities.

The names below are imported when they are first used: ``import nnunetv2_d2net`` needs neither torch nor nnU-Net.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunetv2_d2net.base.errors import UserError
    from nnunetv2_d2net.data.convert.convert import convert_folder
    from nnunetv2_d2net.data.inspect.cohort import inspect_dataset
    from nnunetv2_d2net.method.losses.d2net_loss import D2NetLoss
    from nnunetv2_d2net.method.network.d2net import D2Net, D2NetOptions
    from nnunetv2_d2net.patient.segment import segment
    from nnunetv2_d2net.plugin.planning.planner import D2NetPlanner
    from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
    from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
    from nnunetv2_d2net.study.scores.comparison import compare_arms
    from nnunetv2_d2net.study.scores.evaluate import evaluate_folder

__version__ = "0.2.0"

__all__ = [
    "D2Net",
    "D2NetLoss",
    "D2NetOptions",
    "D2NetPlanner",
    "D2NetPredictor",
    "D2NetTrainer",
    "UserError",
    "__version__",
    "compare_arms",
    "convert_folder",
    "evaluate_folder",
    "inspect_dataset",
    "segment",
]

_MODULES = {
    "D2Net": "method.network.d2net",
    "D2NetLoss": "method.losses.d2net_loss",
    "D2NetOptions": "method.network.d2net",
    "D2NetPlanner": "plugin.planning.planner",
    "D2NetPredictor": "plugin.prediction.predictor",
    "D2NetTrainer": "plugin.training.trainer",
    "UserError": "base.errors",
    "compare_arms": "study.scores.comparison",
    "convert_folder": "data.convert.convert",
    "evaluate_folder": "study.scores.evaluate",
    "inspect_dataset": "data.inspect.cohort",
    "segment": "patient.segment",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has this name
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
