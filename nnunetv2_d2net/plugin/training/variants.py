"""Every trainer that nnU-Net can find by name: the paper's settings, the ablations of its Table II, and all lengths.

Those that only differ in a setting or in length are made when they are looked up.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from nnunetv2_d2net.plugin.start import COMPANION
from nnunetv2_d2net.plugin.training.adamw import D2NetTrainerAdamW, nnUNetTrainerModalityDropoutAdamW
from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.conditioned import nnUNetTrainerModalityDropoutConditioned
from nnunetv2_d2net.plugin.training.demo import D2NetTrainerDemo
from nnunetv2_d2net.plugin.training.dropping import (
    ModalityDroppingTrainer,
    nnUNetTrainerModalityDropout,
    nnUNetTrainerModalityDropoutModulated,
)
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.nested import nnUNetTrainerModalityDropoutImputedNested
from nnunetv2_d2net.plugin.training.paper import ROWS, D2NetTrainerPaper
from nnunetv2_d2net.plugin.training.pretraining import nnUNetTrainerModalityDropoutPretraining
from nnunetv2_d2net.plugin.training.repeating import nnUNetTrainerModalityDropoutConditionedRepeated
from nnunetv2_d2net.plugin.training.trainer import PAPER_WEIGHTS, D2NetTrainer, ablated

LENGTHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)  # those that nnU-Net offers
_EPOCHS = {f"{n}epoch{'s' if n > 1 else ''}": n for n in LENGTHS}
_WEIGHTS, _OPTIONS = D2NetTrainer.loss_weights, D2NetTrainer.network_options


class nnUNetTrainerModalityDropoutCompleteFirst(nnUNetTrainerModalityDropout):
    """Modality dropout whose first half sees complete input only; then the learning rate rises again."""

    complete_share: ClassVar[float] = 0.5


_TABLE_II: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "NoSFMCNoKD": ("row 1: neither contrastive nor distillation losses", ()),
    "OnlySC": ("row 2: only the spatial contrastive loss", ("sc",)),
    "OnlyFC": ("row 3: only the frequency contrastive loss", ("fc",)),
    "NoKD": ("row 4: both contrastive losses, no distillation", ("sc", "fc")),
    "OnlyKDFeature": ("row 5: only feature distillation", ("kd_feature",)),
    "OnlyKDLogit": ("row 6: only logit distillation", ("kd_logit",)),
    "NoSFMC": ("row 7: both distillation losses, no contrastive ones", ("kd_feature", "kd_logit")),
}
"""By the end of the trainer's name: what is left of the four losses that the table ablates."""

_VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "D2NetTrainerCompleteFirst": (
        "D2NetTrainer whose first half sees complete input only; then the learning rate rises again.",
        {"complete_share": 0.5},
    ),
    **{
        f"D2NetTrainer{row}": (f"Table II, {what}.", {"loss_weights": ablated(_WEIGHTS, *kept)})
        for row, (what, kept) in _TABLE_II.items()
    },
    "D2NetTrainerSegOnly": (
        "D2-Net's network with nnU-Net's segmentation loss alone.",
        {"loss_weights": dict.fromkeys(_WEIGHTS, 0.0)},
    ),
    "D2NetTrainerPaperWeights": (
        "D2NetTrainer with the paper's weights, all 1 and not ramped, on nnU-Net's schedule.",
        {"loss_weights": PAPER_WEIGHTS, "loss_ramps": {}},
    ),
    "D2NetTrainerModulatedSkips": (
        "D2NetTrainer whose tumor-specific codes also modulate the student's skips.",
        {"network_options": _OPTIONS._replace(modulate_skips=True)},
    ),
    "D2NetTrainerModulatedEncoder": (
        "D2NetTrainer whose tumor encoder is told at every stage which modalities there are.",
        {"network_options": _OPTIONS._replace(modulate_encoder=True)},
    ),
    "D2NetTrainerFullTeacher": (
        "D2NetTrainer whose teacher decodes up to full resolution, as the paper says.",
        {"network_options": _OPTIONS._replace(teacher_level=0)},
    ),
    "D2NetTrainerIndependentEncoders": (
        "D2NetTrainer with one modality encoder per modality, as the paper says.",
        {"network_options": _OPTIONS._replace(independent_encoders=True)},
    ),
}

# rows of the paper's tables; too many to be named where there is no trainer of a name
_PAPER: Mapping[str, tuple[type[D2NetTrainer], str, dict[str, Any]]] = {
    **{
        row.trainer: (
            D2NetTrainerPaper,
            f"{row.table}, {row.name}: D2NetTrainerPaper with that one difference.",
            dict(row.settings),
        )
        for row in ROWS
        if row.variant
    },
    **{
        f"D2NetTrainerPaperWeights{row}": (
            D2NetTrainer,
            f"Table II, {what}, with the paper's weights on nnU-Net's schedule.",
            {"loss_weights": ablated(PAPER_WEIGHTS, *kept), "loss_ramps": {}},
        )
        for row, (what, kept) in _TABLE_II.items()
    },
}

_CLASSES = (
    nnUNetTrainerModalityDropout,
    nnUNetTrainerModalityDropoutAdamW,
    nnUNetTrainerModalityDropoutCompleteFirst,
    nnUNetTrainerModalityDropoutModulated,
    nnUNetTrainerModalityDropoutImputed,
    nnUNetTrainerModalityDropoutImputedNested,
    nnUNetTrainerModalityDropoutConditioned,
    nnUNetTrainerModalityDropoutConditionedRepeated,
    D2NetTrainer,
    D2NetTrainerAdamW,
    D2NetTrainerPaper,
    D2NetTrainerDemo,
    nnUNetTrainerModalityDropoutPretraining,
)
_STUDENTS = (
    nnUNetTrainerModalityDropout,
    nnUNetTrainerModalityDropoutAdamW,
    nnUNetTrainerModalityDropoutModulated,
    nnUNetTrainerModalityDropoutImputed,
    nnUNetTrainerModalityDropoutImputedNested,
    nnUNetTrainerModalityDropoutConditioned,
    nnUNetTrainerModalityDropoutConditionedRepeated,
    D2NetTrainer,
    D2NetTrainerAdamW,
)
_COMPANIONS = tuple(trainer.__name__ + COMPANION for trainer in _STUDENTS)
__all__ = [*(trainer.__name__ for trainer in _CLASSES), *_VARIANTS, *_COMPANIONS]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def find_trainer(name: str) -> type[ModalityDroppingTrainer]:
    """Return a trainer of this module.

    Args:
        name: Such as ``D2NetTrainer``, ``D2NetTrainerNoKD`` or ``D2NetTrainer_20epochs``.

    Raises:
        AttributeError: There is none of that name.
    """
    base, _, length = name.partition("_")
    made: tuple[tuple[type, ...], str, dict[str, Any]]
    if name in _VARIANTS:
        made = ((D2NetTrainer,), *_VARIANTS[name])
    elif name in _PAPER:
        base_class, doc, settings = _PAPER[name]
        made = ((base_class,), doc, settings)
    elif length in _EPOCHS:
        made = ((find_trainer(base),), f"{base} for {length}.", {"n_epochs": _EPOCHS[length]})
    elif name.endswith(COMPANION) and "_" not in name:
        student = find_trainer(name.removesuffix(COMPANION))
        made = (
            (CompanionTrainer, student),
            f"{student.__name__} that starts from a stock nnU-Net.",
            _superset(student),
        )
    elif name in __all__:
        return globals()[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in globals():  # the same class at every lookup
        globals()[name] = _make(name, *made)
    return globals()[name]


def _superset(student: type[ModalityDroppingTrainer]) -> dict[str, Any]:
    """Let a D2-Net begin as the planned U-Net, and stay that where nothing is missing until it has learned better."""
    if not issubclass(student, D2NetTrainer):
        return {}
    options = student.network_options
    return {"network_options": options._replace(gated_bottleneck=True, modulate_missing=True, modulate_encoder=False)}


def _make(name: str, bases: tuple[type, ...], doc: str, settings: dict[str, Any]) -> type[ModalityDroppingTrainer]:
    made: Any = type(name, bases, {**settings, "__doc__": doc})
    return made


__getattr__ = find_trainer
