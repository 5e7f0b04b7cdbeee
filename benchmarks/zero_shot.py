"""Score a model on patients that it was not trained for, one by one: every subset of what each of them has.

RAW is a raw data set of nnU-Net, as ``d2net convert`` writes it, with the model's channels in the same order, of which
the patients may lack any, and with the model's regions. MODEL is a trained model's folder; without it, the model that
comes with the package. For each patient, subset and region: Dice, HD95, precision, recall and ml; also with small or
faint components taken away (``believed_components``). The rival in the last row of each patient is a threshold on
FLAIR: of all thresholds the one with the best Dice of its largest component, chosen knowing the answer.

    python benchmarks/zero_shot.py RAW -o OUT [-m MODEL] [--mirror]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.images import Image, read_image
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.patient.model import find_model, folds_of, shipped_model
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.study.scores.metrics import score_labels

HEADER = ["patient", "given", "region", "Dice", "HD95, mm", "precision", "recall", "ml", "reference, ml"]
THRESHOLD = "threshold on FLAIR"


def main() -> None:
    """Predict what has not been predicted, and print the table of patients and that of means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="raw data set with imagesTr and labelsTr")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="for the segmentations")
    parser.add_argument("-m", dest="model", type=Path, help="folder of the model (that of the package)")
    parser.add_argument("--mirror", action="store_true", help="average over eight mirrored views")
    args = parser.parse_args()
    model = find_model(args.model) if args.model else shipped_model()
    predictor = AllSubsetsPredictor(use_mirroring=args.mirror, device=torch.device("cpu"), allow_tqdm=True)
    predictor.initialize_from_trained_model_folder(str(model), folds_of(model), "checkpoint_final.pth")
    predictor.predict_from_files(str(args.raw / "imagesTr"), str(args.out), overwrite=False)
    dataset, rows = Dataset.read(model / "dataset.json"), []
    for reference in sorted((args.raw / "labelsTr").glob(f"*{dataset.file_ending}")):
        rows += score_patient(reference, args.raw / "imagesTr", args.out, dataset)
    sys.stdout.write(markdown_table([HEADER, *map(worded, rows)]))
    sys.stdout.write("\n" + markdown_table([["given", "region", "patients", "Dice"], *means(rows)]))


def score_patient(reference: Path, images: Path, predictions: Path, dataset: Dataset) -> list[list[Any]]:
    """Score all that was predicted of one patient, and the threshold."""
    name = reference.name.removesuffix(dataset.file_ending)
    truth = read_image(reference)
    bright = {
        channel: images / f"{name}_{number:04d}{dataset.file_ending}" for number, channel in enumerate(dataset.channels)
    }
    rows: list[list[Any]] = []
    for predicted in sorted(predictions.glob(f"*/{reference.name}"), key=lambda path: (len(path.parent.name), path)):
        given, labels = predicted.parent.name, read_image(predicted).voxels[0]
        rows += scored(name, given, labels, truth, dataset)
        contrast = next((c for c in ("FLAIR", "T2") if c in given.split("+")), None)
        if contrast:
            kept = believed_components(labels, read_image(bright[contrast]).voxels[0])
            rows += scored(name, f"{given}, components", kept, truth, dataset)
    if bright["FLAIR"].is_file():
        flair = read_image(bright["FLAIR"]).voxels[0]
        rows += scored(name, THRESHOLD, thresholded(flair, truth.voxels[0]), truth, dataset)
    return rows


def believed_components(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Take away the components of a lesion that weigh less than a tenth of the heaviest one.

    A component's weight is its volume times how far its mean lies above the healthy brain's median, as a share of that:
    false components in healthy tissue are large or bright, but seldom both.
    """
    found: Any = ndimage.label(labels > 0, np.ones((3, 3, 3)))
    components, n_components = found
    if not n_components:
        return labels
    healthy = np.median(image[(image > 0) & (labels == 0)])
    numbers = np.arange(1, n_components + 1)
    brightness = ndimage.mean(image, components, numbers) / healthy - 1
    weights = ndimage.sum_labels(labels > 0, components, numbers) * brightness
    kept = numbers[weights >= 0.1 * weights.max()] if weights.max() > 0 else numbers
    return np.where(np.isin(components, kept), labels, 0)


def scored(name: str, given: str, labels: np.ndarray, truth: Image, dataset: Dataset) -> list[list[Any]]:
    """Return a row for each region; of a threshold for the first one alone."""
    spacing = truth.properties["spacing"]
    ml = float(np.prod(spacing)) / 1000
    rows = []
    for region, row in score_labels(labels, truth.voxels[0], spacing, dataset.regions).items():
        dice, hd95, _, _, n_reference, n_predicted = row
        overlap = dice * (n_reference + n_predicted) / 2
        precision, recall = (overlap / n if n else np.nan for n in (n_predicted, n_reference))
        rows.append([name, given, region, dice, hd95, precision, recall, n_predicted * ml, n_reference * ml])
    return rows[:1] if given == THRESHOLD else rows


def thresholded(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the largest component above the threshold that suits the reference best."""
    best, chosen = -1.0, np.zeros(image.shape, np.uint8)
    for level in np.quantile(image[image > 0], np.linspace(0.8, 0.995, 40)):
        found: Any = ndimage.label(image > level)
        components, n_components = found
        if not n_components:
            continue
        largest = components == 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
        dice = 2 * (largest & (truth > 0)).sum() / (largest.sum() + (truth > 0).sum())
        if dice > best:
            best, chosen = dice, largest.astype(np.uint8)
    return chosen


def worded(row: list[Any]) -> list[str]:
    """Return a row as text."""
    name, given, region, dice, hd95, precision, recall, ml, of_reference = row
    numbers = (f"{dice:.3f}", f"{hd95:.1f}", f"{precision:.3f}", f"{recall:.3f}", f"{ml:.1f}", f"{of_reference:.1f}")
    return [name, given, region, *numbers]


def means(rows: list[list[Any]]) -> list[list[str]]:
    """Average Dice over the patients."""
    found: dict[tuple[str, str], list[float]] = {}
    for _, given, region, dice, *_ in rows:
        found.setdefault((given, region), []).append(dice)
    return [[*key, str(len(values)), f"{np.mean(values):.3f}"] for key, values in found.items()]


if __name__ == "__main__":
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    main()
