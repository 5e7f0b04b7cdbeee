"""Train several trainers on the same plans and compare them on the test set, over every subset of the modalities.

Usage: python benchmarks/phantom_comparison.py ID [--plans D2NetSmallPlans] [--configuration 3d_fullres]
       [--arms nnUNetTrainer_5epochs nnUNetTrainerModalityDropout_5epochs D2NetTrainer_5epochs] [--out FOLDER]

Every arm trains on all training cases (fold ``all``) in a process of its own and predicts ``imagesTs`` without
mirroring. What is there is not done again; an interrupted training goes on from its latest checkpoint.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunetv2_d2net.evaluation.subset_table import Score, markdown_table, mean_by_subset, score_subsets, write_tables
from nnunetv2_d2net.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.prediction.used import write_expected_dice
from nnunetv2_d2net.registration import announce_trainers

ARMS = ("nnUNetTrainer_5epochs", "nnUNetTrainerModalityDropout_5epochs", "D2NetTrainer_5epochs")


def main() -> None:
    """Train, predict, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_id", type=int)
    parser.add_argument("--plans", default="D2NetSmallPlans")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    parser.add_argument("--only-train", help=argparse.SUPPRESS)
    args = parser.parse_args()
    announce_trainers()
    if args.only_train:
        train(args.only_train, args)
        return
    rows = []
    for arm in args.arms:
        folder = args.out / arm
        folder.mkdir(parents=True, exist_ok=True)
        if not (model_folder(arm, args) / "fold_all" / "checkpoint_final.pth").is_file():
            words = [sys.executable, __file__, *sys.argv[1:], "--only-train", arm]
            with (folder / "training.txt").open("a") as log:
                subprocess.run(words, check=True, stdout=log)
        scores = score(arm, args, folder)
        write_tables(scores, folder)
        write_expected_dice(model_folder(arm, args), mean_by_subset(scores), "test cases of the comparison")
        rows.append([arm, *summarize(scores), *costs(folder)])
    regions = list(dict.fromkeys(s.region for s in scores))
    header = ["arm", *(f"{r}, all" for r in regions), *(f"{r}, mean" for r in regions), "all", "mean", "s", "GB"]
    table = markdown_table([header, *rows])
    (args.out / "comparison.md").write_text(table)
    sys.stdout.write(table)


def train(arm: str, args: argparse.Namespace) -> None:
    """Train one arm in this process; note its time and peak memory."""
    resume = (model_folder(arm, args) / "fold_all" / "checkpoint_latest.pth").is_file()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = get_trainer_from_args(
        str(args.dataset_id), args.configuration, "all", arm, args.plans, resume, device=device
    )
    maybe_load_checkpoint(trainer, resume, validation_only=False)
    trainer.run_training()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    times = [trainer.logger.get_value(f"epoch_{edge}_timestamps", None) for edge in ("start", "end")]
    seconds = sum(end - start for start, end in zip(*times, strict=True))
    record = {"seconds": round(seconds), "peak_GiB": round(peak, 2), "threads": torch.get_num_threads()}
    (args.out / arm / "cost.json").write_text(json.dumps(record))


def score(arm: str, args: argparse.Namespace, folder: Path) -> list[Score]:
    """Predict every test case with every subset, as far as not done, and score."""
    raw = next(Path(os.environ["nnUNet_raw"]).glob(f"Dataset{args.dataset_id:03d}_*"))
    predictor = AllSubsetsPredictor(use_mirroring=False, device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(model_folder(arm, args)), ("all",))
    predictor.predict_from_files(str(raw / "imagesTs"), str(folder / "predictions"), overwrite=False)
    return score_subsets(folder / "predictions", raw / "labelsTs", json.loads((raw / "dataset.json").read_text()))


def summarize(scores: list[Score]) -> list[str]:
    """Return the mean Dice of each region with all modalities, then over all subsets, then both averaged."""
    regions = list(dict.fromkeys(s.region for s in scores))
    complete = max((s.subset for s in scores), key=lambda name: name.count("+"))
    full = [fmean(s.dice for s in scores if s.region == r and s.subset == complete) for r in regions]
    every = [fmean(s.dice for s in scores if s.region == r) for r in regions]
    return [f"{value:.3f}" for value in (*full, *every, fmean(full), fmean(every))]


def costs(folder: Path) -> list[str]:
    """Return the seconds and the peak memory that training noted."""
    record = json.loads((folder / "cost.json").read_text())
    return [str(record["seconds"]), str(record["peak_GiB"])]


def model_folder(arm: str, args: argparse.Namespace) -> Path:
    """Return nnU-Net's folder of a trained model."""
    results = next(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{args.dataset_id:03d}_*")).name
    return Path(os.environ["nnUNet_results"]) / results / f"{arm}__{args.plans}__{args.configuration}"


if __name__ == "__main__":
    main()
