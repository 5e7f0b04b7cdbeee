"""From simulated patients to a model for real ones: simulate, plan, preprocess, train, choose thresholds, export."""

import os
from pathlib import Path
from typing import NamedTuple

import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, write_json
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.data.phantom.dataset import PhantomSpec, write_phantom
from nnunetv2_d2net.plugin.prediction.export import export_model
from nnunetv2_d2net.plugin.prediction.operating_point import choose_thresholds
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from nnunetv2_d2net.plugin.training.seeds import check_seed
from nnunetv2_d2net.plugin.training.variants import LENGTHS
from nnunetv2_d2net.study.pipeline import Model, quiet, train_once, work_below

TRAINER, PLANS = "nnUNetTrainerModalityDropoutPretraining", "D2NetWholeHead"
DATASET_ID, NAME = 998, "SimulatedGliomas"
FOLD, CONFIGURATION = "all", "3d_fullres"

N_CHOICE_CASES = 24
"""Further patients, at most, from which the thresholds are chosen."""


class Pretraining(NamedTuple):
    """How weights are made.

    Attributes:
        n_cases: Simulated patients.
        n_epochs: Of the training, 250 steps each.
        seed: Of patients and training.
    """

    n_cases: int = 300
    n_epochs: int = 20
    seed: int = 0


def check_settings(settings: Pretraining) -> None:
    """Refuse settings before anything is simulated.

    Raises:
        UserError: There is no training of this length, or a number is out of range.
    """
    if settings.n_epochs not in LENGTHS:
        known = listed(LENGTHS, len(LENGTHS))
        raise UserError(f"there is no training of {settings.n_epochs} epochs: choose --epochs from {known}")
    if not 1 <= settings.n_cases <= 9999:
        raise UserError(f"{settings.n_cases} patients: choose --cases between 1 and 9999")
    check_seed(settings.seed)


def run_pretraining(
    out: Path, settings: Pretraining, device: torch.device, *, processes: int, progress: bool = False
) -> Path:
    """Do every step that has not been done yet below ``out``.

    Args:
        out: Folder for everything, the log of nnU-Net's own words included; made if it does not exist.
        settings: How.
        device: Where to train.
        processes: Patients simulated and preprocessed at a time.
        progress: Show bars.

    Returns:
        The zip file of the model, which is named after its trainer: another length is another model.

    Raises:
        UserError: There is no training of this length, a number is out of range, or the folder cannot be written or
            holds something else.
    """
    check_settings(settings)
    out = work_below(out, "pretraining")
    os.environ.setdefault("nnUNet_compile", "f")
    n_choice_cases = min(N_CHOICE_CASES, settings.n_cases)
    spec = PhantomSpec(DATASET_ID, settings.n_cases, n_choice_cases, "medium", settings.seed, NAME, kind="varied")
    raw = write_phantom(out / "nnUNet_raw", spec, processes=processes, resume=True, progress=progress)
    trainer = f"{TRAINER}_{settings.n_epochs}epoch{'s' * (settings.n_epochs > 1)}"
    model = Model(out / "nnUNet_results" / raw.name, trainer, f"{PLANS}Plans", CONFIGURATION)
    archive = out / f"{trainer}.zip"
    with quiet(out / "nnunet.log"):
        train_once(model, FOLD, device, processes=processes, seed=settings.seed, progress=progress)
        if not archive.exists():
            thresholds = _thresholds(model, raw, device, progress=progress)
            export_model(model.folder, archive, [FOLD], half=True, thresholds=thresholds)
    return archive


def _thresholds(model: Model, raw: Path, device: torch.device, *, progress: bool) -> list[float]:
    """Return the probability at which each region begins, as it was chosen once and for all."""
    note = model.checkpoint(FOLD).with_name("thresholds.json")
    if not note.is_file():
        predictor = D2NetPredictor(use_mirroring=False, device=device, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model.folder), [FOLD])
        chosen = choose_thresholds(predictor, raw / "imagesTs", raw / "labelsTs", progress=progress)
        write_json(note, dict(zip(predictor.dataset.regions, chosen, strict=True)))
    return list(read_json(note, "remove it, and the same command chooses again").values())
