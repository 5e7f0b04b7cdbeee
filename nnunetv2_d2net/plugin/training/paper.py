"""The paper's training as printed, and its tables: which arm is which row, and what is printed there."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch.optim import Optimizer

from nnunetv2_d2net.method.losses.d2net_loss import PAPER_LOSSES, LossOptions
from nnunetv2_d2net.method.network.d2net import PAPER_OPTIONS, D2NetOptions
from nnunetv2_d2net.plugin.seams import loader_seam
from nnunetv2_d2net.plugin.training.passes import PassLoader
from nnunetv2_d2net.plugin.training.trainer import PAPER_WEIGHTS, D2NetTrainer, ablated


class D2NetTrainerPaper(D2NetTrainer):
    """The paper's network and training (sections III and IV-B), on plans of D2NetPaperPlanner.

    Adam, batches of 2, 400 passes in which every case comes once, three folds where there are no splits yet, all
    weights 1. The paper names an initial learning rate and no schedule; it decays as in nnU-Net, polynomially.
    """

    p_complete: ClassVar[float] = 0.0
    n_epochs: ClassVar[int | None] = 400
    n_folds: ClassVar[int] = 3
    network_options: ClassVar[D2NetOptions] = PAPER_OPTIONS
    loss_options: ClassVar[LossOptions] = PAPER_LOSSES
    loss_weights: ClassVar[Mapping[str, float]] = PAPER_WEIGHTS
    loss_ramps: ClassVar[Mapping[str, float]] = {}

    def configure_optimizers(self) -> tuple[Optimizer, Any]:
        """Return Adam with the paper's learning rate and weight decay."""
        self.initial_lr, self.weight_decay = 3e-4, 5e-5
        optimizer = torch.optim.Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, self.schedule_of(optimizer)

    def get_dataloaders(self) -> Any:  # noqa: ANN401 - nnU-Net's two loaders
        """Return nnU-Net's loaders; that of the training cases goes through them pass by pass."""
        with loader_seam(PassLoader):
            return super().get_dataloaders()

    def on_train_start(self) -> None:
        """Make an epoch one pass over the training cases."""
        super().on_train_start()
        training_cases, _ = self.do_split()
        self.num_iterations_per_epoch = math.ceil(len(training_cases) / self.configuration_manager.batch_size)

    def _set_batch_size_and_oversample(self) -> None:
        self.configuration_manager.configuration["batch_size"] = 2
        super()._set_batch_size_and_oversample()


class Row(NamedTuple):
    """A row of one of the paper's tables, or a point of its Fig. 8.

    Attributes:
        table: Such as ``Table III``.
        name: Of the row.
        variant: The end of the trainer's name; empty for D2NetTrainerPaper itself.
        settings: Attributes in which the trainer differs.
        published: Dice of WT, TC and ET and their mean, in percent, of 15 subsets on BraTS 2018; empty where the paper
            prints a curve only.
    """

    table: str
    name: str
    variant: str
    settings: Mapping[str, Any]
    published: tuple[float, ...] = ()

    @property
    def trainer(self) -> str:
        """Name of the trainer."""
        return D2NetTrainerPaper.__name__ + self.variant


FIGURE_8 = {"sc": "SC", "fc": "FC", "rec": "Rec", "kd_feature": "KDFeature", "kd_logit": "KDLogit"}
"""Losses whose weights Fig. 8 varies, and how trainers' names call them."""

_WEIGHTS = {"0": 0.0, "0p5": 0.5, "2": 2.0}  # beside 1


def _weights(**weights: float) -> dict[str, Any]:
    return {"loss_weights": {**PAPER_WEIGHTS, **weights}}


def _only(*kept: str) -> dict[str, Any]:
    return {"loss_weights": ablated(PAPER_WEIGHTS, *kept)}


def _losses(**options: object) -> dict[str, Any]:
    return {"loss_options": PAPER_LOSSES._replace(**options)}  # pyright: ignore[reportArgumentType]


def _network(**options: object) -> dict[str, Any]:
    return {"network_options": PAPER_OPTIONS._replace(**options)}  # pyright: ignore[reportArgumentType]


_REFERENCE = (76.7, 66.7, 42.6, 62.0)  # of Tables III, IV, VI, VIII and IX; I and II have another run

ROWS = (
    Row("Table II", "none of the four", "NoSFMCNoKD", _only(), (58.0, 42.3, 38.1, 46.1)),
    Row("Table II", "sc", "OnlySC", _only("sc"), (68.5, 58.8, 38.8, 55.4)),
    Row("Table II", "fc", "OnlyFC", _only("fc"), (68.3, 57.8, 38.1, 54.7)),
    Row("Table II", "sc, fc", "NoKD", _only("sc", "fc"), (72.9, 65.5, 42.2, 60.2)),
    Row("Table II", "kd_feature", "OnlyKDFeature", _only("kd_feature"), (69.7, 58.1, 41.7, 56.5)),
    Row("Table II", "kd_logit", "OnlyKDLogit", _only("kd_logit"), (71.7, 59.6, 40.5, 57.3)),
    Row("Table II", "both kd", "NoSFMC", _only("kd_feature", "kd_logit"), (72.2, 61.9, 41.7, 58.6)),
    Row("Table II", "all", "", {}, (76.2, 66.5, 42.3, 61.7)),
    Row("Table III", "1 positive", "", {}, _REFERENCE),
    Row("Table III", "2 positives", "Positives2", _losses(n_positives=2), (77.4, 66.2, 43.0, 62.2)),
    Row("Table III", "4 positives", "Positives4", _losses(n_positives=4), (76.9, 66.4, 43.6, 62.3)),
    Row("Table III", "8 positives", "Positives8", _losses(n_positives=8), (77.1, 66.2, 43.2, 62.2)),
    Row("Table III", "24 negatives", "Negatives24", _losses(negative_radius=4), (75.9, 66.4, 42.7, 61.7)),
    Row("Table III", "48 negatives", "", {}, _REFERENCE),
    Row("Table III", "96 negatives", "Negatives96", _losses(negative_radius=16), (76.2, 67.2, 42.9, 62.1)),
    Row("Table III", "192 negatives", "Negatives192", _losses(negative_radius=32), (76.4, 67.0, 42.5, 62.0)),
    Row("Table IV", "without E_TM", "NoProjection", _network(tumor_projection=False), (75.8, 65.9, 41.8, 61.2)),
    Row("Table IV", "D2-Net", "", {}, _REFERENCE),
    Row("Table VI", "1 level", "Distilled1", _network(distilled_levels=1), (73.1, 65.8, 42.2, 60.4)),
    Row("Table VI", "2 levels", "Distilled2", _network(distilled_levels=2), (75.4, 66.0, 42.3, 61.2)),
    Row("Table VI", "3 levels", "Distilled3", _network(distilled_levels=3), (76.2, 66.5, 42.5, 61.7)),
    Row("Table VI", "4 levels", "", {}, _REFERENCE),
    Row("Table VI", "5 levels", "Distilled5", _network(distilled_levels=5), (76.9, 66.8, 42.6, 62.1)),
    Row("Table VI", "6 levels", "Distilled6", _network(distilled_levels=6), (77.0, 66.7, 42.7, 62.1)),
    Row("Table VIII", "input", "FrequencyInput", _network(frequency_level=0), (73.3, 65.5, 42.0, 60.3)),
    Row("Table VIII", "level 1", "FrequencyLevel1", _network(frequency_level=1), (74.0, 65.9, 42.1, 60.7)),
    Row("Table VIII", "level 2", "FrequencyLevel2", _network(frequency_level=2), (74.2, 66.1, 42.4, 60.9)),
    Row("Table VIII", "level 3", "FrequencyLevel3", _network(frequency_level=3), (75.2, 66.6, 42.5, 61.4)),
    Row("Table VIII", "codes", "", {}, _REFERENCE),
    Row("Table IX", "student 1", "", {}, _REFERENCE),
    Row("Table IX", "student 1/2", "StudentHalf", _network(student_width=0.5), (73.4, 63.6, 41.2, 59.4)),
    Row("Table IX", "student 1/4", "StudentQuarter", _network(student_width=0.25), (70.8, 60.1, 40.5, 57.1)),
    *(
        Row("Fig. 8", f"{term} {weight:g}", f"{called}{digits}", _weights(**{term: weight}))
        for term, called in FIGURE_8.items()
        for digits, weight in _WEIGHTS.items()
    ),
    *(Row("Fig. 8", f"{term} 1", "", {}) for term in FIGURE_8),
)
"""Every row that is D2-Net's, those that are D2NetTrainerPaper itself among them.

Table V compares with rivals, whose methods are not built here; its rows of D2-Net are rows 4 and 7 of Table II.
"""
