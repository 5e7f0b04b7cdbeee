"""Time d2net predict --all_subsets against its parts and against one nnUNetv2_predict per subset.

For the first case of every folder: reading and preprocessing once, one forward pass per subset, and writing every
segmentation, each timed alone; their sum is what separate passes cannot undercut. Then the one pass, and
nnUNetv2_predict as a shell starts it, on a folder that lacks the subset's other files. Medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.registration import announce_trainers


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="DATASET/TRAINER__PLANS__CONFIGURATION, with a fold")
    parser.add_argument("images", type=Path, nargs="+", help="folders of complete cases; the first case is taken")
    parser.add_argument("--fold", default="all")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--nnunet_runs", type=int, default=3, help="of nnUNetv2_predict, for a subset each")
    parser.add_argument("--subsets_per_pass", type=int, default=AllSubsetsPredictor.subsets_per_pass)
    parser.add_argument("--out", type=Path, default=Path("all_subsets.json"))
    args = parser.parse_args()
    announce_trainers()
    rows = [measure(folder, args) for folder in args.images]
    args.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    names = list(rows[0])
    for line in (names, ["---"] * len(names), *(list(row.values()) for row in rows)):
        sys.stdout.write("| " + " | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in line) + " |\n")


def measure(folder: Path, args: argparse.Namespace) -> dict[str, float | str]:
    """Time one case of a folder, in seconds."""
    predictor = AllSubsetsPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.subsets_per_pass = args.subsets_per_pass
    predictor.initialize_from_trained_model_folder(str(args.model), (args.fold,))
    files = next(iter(predictor.dataset.find_cases(folder).files.values()))
    subsets = modality_subsets(len(predictor.dataset.channels))
    item = predictor._read((files, None))
    data, properties = item["data"], item["data_properties"]
    logits = predictor.predict_logits_from_preprocessed_data(data)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        one_case = root / "images"
        one_case.mkdir()
        for file in files:
            shutil.copy(file, one_case)
        (root / "out").mkdir()
        parts: dict[str, Callable[[], object]] = {
            "read and preprocess": lambda: predictor._read((files, None)),
            "forward, one subset at a time": lambda: [
                predictor.predict_logits_of_subsets(data, subset[None]) for subset in subsets
            ],
            "write": lambda: [
                predictor._finish(logits, dict(properties), str(root / "out" / str(i)), False)  # noqa: FBT003
                for i in range(len(subsets))
            ],
            "all subsets in one pass": lambda: predictor.predict_from_files(str(one_case), str(root / "all")),
        }
        times: dict[str, list[float]] = {name: [] for name in parts}
        for run in range(args.runs + 1):
            for name, work in parts.items():
                start = time.perf_counter()
                work()
                if run:  # the first one warms up
                    times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in times.items()}
        commands = [
            nnunet(files, subset.tolist(), root / str(i), args) for i, subset in enumerate(subsets[: args.nnunet_runs])
        ]
    parts_sum = sum(medians.values()) - medians["all subsets in one pass"]
    alone = len(subsets) * statistics.median(commands or [float("nan")])
    return {
        "images": folder.name,
        "voxels": "x".join(str(n) for n in data.shape[1:]),
        **medians,
        "one pass / sum of parts": medians["all subsets in one pass"] / parts_sum,
        f"{len(subsets)} x nnUNetv2_predict": alone,
        "nnUNetv2_predict / one pass": alone / medians["all subsets in one pass"],
    }


def nnunet(files: list[str], subset: list[bool], folder: Path, args: argparse.Namespace) -> float:
    """Seconds that nnU-Net's command takes for one case with one subset of its files."""
    (folder / "in").mkdir(parents=True)
    for file, available in zip(files, subset, strict=True):
        if available:
            shutil.copy(file, folder / "in")
    words = ["-i", folder / "in", "-o", folder / "out", "-m", args.model, "-f", args.fold]
    code = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as f; f()"
    command = [sys.executable, "-c", code, *map(str, words), "--disable_tta", "-device", "cpu"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
