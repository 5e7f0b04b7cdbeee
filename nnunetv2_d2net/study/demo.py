"""The whole path once, on phantom data: simulate, plan, preprocess, train briefly, predict every subset, tabulate."""

import os
from pathlib import Path

import torch

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import read_image
from nnunetv2_d2net.data.phantom.dataset import PhantomSpec, write_phantom
from nnunetv2_d2net.study.pipeline import Model, predict_subsets, quiet, train_once, work_below
from nnunetv2_d2net.study.scores.case_picture import draw_case
from nnunetv2_d2net.study.scores.evaluate import evaluate_folder
from nnunetv2_d2net.study.scores.measured import keep_scores
from nnunetv2_d2net.study.scores.tables import write_dice_tables

DATASET = PhantomSpec(dataset_id=999, n_train=20, n_test=6, size="small", seed=0, name="D2NetDemo")
N_PROCESSES = os.cpu_count() or 1
FOLD, CONFIGURATION = "all", "3d_fullres"


def run_demo(out: Path, *, seed: int | None = None, progress: bool = False) -> str:
    """Run every step that has not been done yet below ``out``.

    Args:
        out: Folder for everything, the log of nnU-Net's own words included; made if it does not exist.
        seed: Of the training; None to begin anywhere. The patients are the same every time.
        progress: Show bars.

    Returns:
        The table subset x region, as Markdown.

    Raises:
        UserError: The folder cannot be written, or holds something else.
    """
    out = work_below(out, "demo")
    os.environ.setdefault("nnUNet_compile", "f")  # compiling takes longer than this training
    torch.set_num_threads(N_PROCESSES)

    raw = write_phantom(out / "nnUNet_raw", DATASET, processes=N_PROCESSES, resume=True, progress=progress)
    model = Model(out / "nnUNet_results" / raw.name, "D2NetTrainerDemo", "D2NetSmallPlans", CONFIGURATION)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet(out / "nnunet.log"):
        train_once(model, FOLD, device, processes=N_PROCESSES, seed=seed, progress=progress)
        images, predictions = str(raw / "imagesTs"), out / "predictions"
        predict_subsets(model, [FOLD], images, predictions, device, mirroring=False, progress=progress)
    return _tabulate(out, raw, model, progress=progress)


def _tabulate(out: Path, raw: Path, model: Model, *, progress: bool) -> str:
    predictions, references = out / "predictions", raw / "labelsTs"
    scores, failures, *_ = evaluate_folder(predictions, references, processes=N_PROCESSES, progress=progress)
    if failures:
        raise UserError(failures[0])
    keep_scores(scores, model.folder, "simulated cases", model.digests([FOLD]))
    dataset = Dataset.read(raw / "dataset.json")
    incomplete = dataset.subset_name(dataset.available(drop=["T1ce"]))
    largest = max(dataset.segmentations(references).values(), key=lambda file: (read_image(file).voxels > 0).sum())
    name, case = largest.name, largest.name.removesuffix(dataset.file_ending)
    draw_case(
        out / "demo.png",
        images=dict(zip(dataset.channels, sorted((raw / "imagesTs").glob(f"{case}_*")), strict=True)),
        segmentations={
            "reference": references / name,
            "all modalities": predictions / dataset.complete / name,
            "without T1ce": predictions / incomplete / name,
        },
        regions=dataset.regions,
    )
    return write_dice_tables(scores, out)
