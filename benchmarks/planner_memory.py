"""Does D2NetPlanner keep to its memory target? Plans for 8, 16 and 24 GB, and the peak memory of a step on each.

Usage: python benchmarks/planner_memory.py [--device cpu|cuda] [--json FILE]

The peak needs a GPU. Without one the script compares the elements that the planner counts with those that autograd
keeps in a forward pass, on tensors without data. nnU-Net's count for its own U-Net is about half of what autograd
keeps; the planner is right if D2-Net's count has the same ratio ("kept / counted").
"""

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import make_parser, parse, peak_bytes, report
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from synthetic import NAME, Setting, do_step, make_batch, make_trainer, nnunet_folders, state_bytes
from torch import Tensor, nn

from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.plugin.planning.planner import D2NetPlanner
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer

TARGETS_GB, TOY_TARGETS_GB = (8.0, 16.0, 24.0), (1.0,)
CONFIGURATIONS = ("3d_fullres", "2d")
SHAPE = (140, 171, 137)  # median of brain crops at 1 mm
N_CASES, N_MODALITIES = 400, 4


def main() -> None:
    """Plan, measure and print."""
    args = parse(make_parser(__doc__))
    report(list(measure(args)), args)


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the line of each target and configuration."""
    with nnunet_folders() as root:
        write_cohort(root)
        for target in TOY_TARGETS_GB if args.toy else TARGETS_GB:
            with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):  # the planner only counts
                plans = D2NetPlanner(NAME, target, plans_name=f"Plans{target:g}").plan_experiment()
            for name in CONFIGURATIONS[-1:] if args.toy else CONFIGURATIONS:
                configuration = plans["configurations"][name]
                setting = Setting(tuple(configuration["patch_size"]), n_cases=configuration["batch_size"])
                row = {"configuration": name, "size": str(setting), **count(configuration), "target, GB": target}
                yield row | peak(setting, target, args.device)


def write_cohort(root: Path, shape: tuple[int, ...] = SHAPE) -> None:
    """Write what the planner reads of a cohort: names of files, and a fingerprint of cases of one shape."""
    raw, preprocessed = root / "raw" / NAME, root / "preprocessed" / NAME
    for kind in ("imagesTr", "labelsTr"):
        (raw / kind).mkdir()
    (raw / "labelsTr" / "case.nii.gz").touch()
    for m in range(N_MODALITIES):
        (raw / "imagesTr" / f"case_{m:04d}.nii.gz").touch()
    dataset_json = {
        "channel_names": {str(m): f"modality {m}" for m in range(N_MODALITIES)},
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
        "regions_class_order": [1, 2, 3],
        "numTraining": N_CASES,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    statistics = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0]] * N_CASES,
        "shapes_after_crop": [list(shape)] * N_CASES,
        "foreground_intensity_properties_per_channel": {
            str(m): dict.fromkeys(statistics, 1.0) for m in range(N_MODALITIES)
        },
        "median_relative_size_after_cropping": 1.0,
    }
    (raw / "dataset.json").write_text(json.dumps(dataset_json), encoding="utf-8")
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint), encoding="utf-8")


def count(configuration: dict[str, Any]) -> dict[str, float]:
    """Return the planner's count of one case in millions, and what autograd keeps over it, for D2-Net and its U-Net."""
    architecture = configuration["architecture"]
    names = architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"]
    with torch.device("meta"):
        unet = get_network_from_plans(*names, N_MODALITIES, 3, allow_init=False, deep_supervision=True)
        images = torch.empty(1, N_MODALITIES, *configuration["patch_size"])
        counted = unet.compute_conv_feature_map_size(configuration["patch_size"])
        of_unet = kept_elements(unet, images) / counted
        network = D2Net(unet, N_MODALITIES)
        counted = network.compute_conv_feature_map_size(configuration["patch_size"])
        available = torch.ones(1, N_MODALITIES, dtype=torch.bool)
        of_d2net = kept_elements(network, images, available) / counted
    return {"counted, M": counted / 1e6, "kept / counted": of_d2net, "U-Net: kept / counted": of_unet}


def kept_elements(network: nn.Module, *inputs: Tensor) -> float:
    """Return how many float32 values autograd keeps in a forward pass, weights left out."""
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        alive.append(tensor)  # else another tensor could take its place
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(*inputs)
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    del outputs
    return sum(n for storage, n in kept.items() if storage not in weights) / 4


def peak(setting: Setting, target: float, device: str) -> dict[str, Any]:
    """Return the peak memory of a step and its share of the target; GB are 2^30 bytes, as in nnU-Net's targets.

    What the process reserves is what the GPU must have beside the 0.5 GB or so of CUDA itself.
    """
    if device != "cuda":
        return dict.fromkeys(("peak, GB", "reserved, GB", "reserved / target"), "needs --device cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer = make_trainer(D2NetTrainer, setting, device)
    batch = make_batch(setting, trainer)
    allocated = (peak_bytes(lambda: do_step(trainer, batch), device) + state_bytes(trainer)) / 2**30
    reserved = torch.cuda.max_memory_reserved() / 2**30
    return {"peak, GB": allocated, "reserved, GB": reserved, "reserved / target": reserved / target}


if __name__ == "__main__":
    main()
