"""The whole path once, on phantom data: simulate, plan, preprocess, train briefly, predict every subset, tabulate."""

# pyright: reportIncompatibleMethodOverride=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportFunctionMemberAccess=false, reportOptionalSubscript=false
# nnU-Net declares attributes as None until they are initialized, and narrower types than it uses.

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
    preprocess_dataset,
)
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from tqdm import tqdm

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.phantom.dataset import PhantomSpec, write_phantom
from nnunetv2_d2net.plugin.planning.planner import D2NetSmallPlanner
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.prediction.used import describe_model, write_expected_dice
from nnunetv2_d2net.plugin.registration import announce_trainers
from nnunetv2_d2net.study.scores.case_picture import draw_case
from nnunetv2_d2net.study.scores.subset_table import mean_by_subset, regions_of, score_subsets, write_tables

DATASET = PhantomSpec(dataset_id=999, n_train=20, n_test=6, size="small", seed=0, name="D2NetDemo")
N_PROCESSES = os.cpu_count() or 1
PLANS, CONFIGURATION, TRAINER = "D2NetSmallPlans", "3d_fullres", "D2NetTrainerDemo"


class QuickFingerprint(DatasetFingerprintExtractor):
    """nnU-Net's fingerprint from fewer voxels: it draws 10^8 of them however small the images are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - nnU-Net's arguments
        super().__init__(*args, **kwargs)
        self.num_foreground_voxels_for_intensitystats = 10**6


def run_demo(out: Path) -> str:
    """Run every step that has not been done yet below ``out``.

    Args:
        out: Folder for everything, the log of nnU-Net's own words included; made if it does not exist.

    Returns:
        The table subset x region, as Markdown.

    Raises:
        UserError: The folder cannot be written, or holds something else.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "nnUNet_raw").is_dir())):
        raise UserError(f"{out} is not empty and no demo: pass another folder with --out")
    for kind in ("raw", "preprocessed", "results"):
        folder = out / f"nnUNet_{kind}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: pass another folder with --out ({error.strerror})") from error
        os.environ[f"nnUNet_{kind}"] = str(folder)
    announce_trainers()
    os.environ.setdefault("nnUNet_n_proc_DA", "1")
    os.environ.setdefault("nnUNet_compile", "f")  # compiling takes longer than this training
    log = out / "nnunet.log"

    raw = _simulate(out)
    with tqdm(total=3, desc="plan and preprocess", unit="step") as bar:
        _plan_and_preprocess(out, log, bar)
    model = _train(out, log)
    predictions = _predict(model, raw, out, log)
    return _tabulate(predictions, raw, out, model)


def _simulate(out: Path) -> Path:
    return write_phantom(out / "nnUNet_raw", DATASET, processes=N_PROCESSES, resume=True)


def _plan_and_preprocess(out: Path, log: Path, bar: tqdm) -> None:
    folder = out / "nnUNet_preprocessed" / DATASET.folder_name
    done = folder / "preprocessed"
    with _quiet(log):
        if not done.exists():
            extract_fingerprint_dataset(
                DATASET.dataset_id, QuickFingerprint, num_processes=N_PROCESSES, show_progress_bar=False
            )
        bar.update()
        if not done.exists():
            plan_experiment_dataset(DATASET.dataset_id, D2NetSmallPlanner)
        bar.update()
        if not done.exists():
            preprocess_dataset(
                DATASET.dataset_id, PLANS, (CONFIGURATION,), num_processes=(N_PROCESSES,), show_progress_bar=False
            )
            done.touch()
        bar.update()


def _train(out: Path, log: Path) -> Path:
    model = out / "nnUNet_results" / DATASET.folder_name / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    if (model / "fold_all" / "checkpoint_final.pth").is_file():
        return model
    resume = (model / "fold_all" / "checkpoint_latest.pth").is_file()
    torch.set_num_threads(N_PROCESSES)
    with _quiet(log):
        trainer = get_trainer_from_args(
            str(DATASET.dataset_id), CONFIGURATION, "all", TRAINER, PLANS, resume, device=_device()
        )
        maybe_load_checkpoint(trainer, resume, validation_only=False)
        trainer.run_training()
    return model


def _predict(model: Path, raw: Path, out: Path, log: Path) -> Path:
    with _quiet(log):
        predictor = AllSubsetsPredictor(use_mirroring=False, device=_device(), allow_tqdm=True)
        predictor.initialize_from_trained_model_folder(str(model), ("all",))
        predictor.predict_from_files(str(raw / "imagesTs"), str(out / "predictions"), overwrite=False)
    return out / "predictions"


def _tabulate(predictions: Path, raw: Path, out: Path, model: Path) -> str:
    dataset_json = json.loads((raw / "dataset.json").read_text())
    scores = score_subsets(predictions, raw / "labelsTs", dataset_json)
    checkpoints = describe_model(model, ["all"], "checkpoint_final.pth").checkpoints
    write_expected_dice(model, mean_by_subset(scores), f"{DATASET.n_test} simulated cases", checkpoints)
    names = list(dataset_json["channel_names"].values())
    complete, incomplete = "+".join(names), "+".join(name for name in names if name != "T1ce")
    case = max({s.case for s in scores if s.subset == complete}, key=lambda c: _size(raw / "labelsTs", c))
    draw_case(
        out / "demo.png",
        images={name: raw / "imagesTs" / f"{case}_{i:04d}.nii.gz" for i, name in enumerate(names)},
        segmentations={
            "reference": raw / "labelsTs" / f"{case}.nii.gz",
            "all modalities": predictions / complete / f"{case}.nii.gz",
            "without T1ce": predictions / incomplete / f"{case}.nii.gz",
        },
        regions=regions_of(dataset_json),
    )
    return write_tables(scores, out)


def _size(labels: Path, case: str) -> int:
    return int((sitk.GetArrayViewFromImage(sitk.ReadImage(str(labels / f"{case}.nii.gz"))) > 0).sum())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send what nnU-Net prints to a file; progress bars go to stderr and stay."""
    with log.open("a") as file, contextlib.redirect_stdout(file):
        yield
