"""Seconds of one forward pass in prediction: D2-Net against the planned U-Net alone, which is a part of it.

Usage: python benchmarks/inference_forward.py [--device cpu|cuda] [--runs 5] [--json FILE]

Both run in evaluation mode on the same weights, without deep supervision; on a GPU under autocast, as nnU-Net predicts.
"""

import argparse
import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from measuring import Seconds, interleave, make_parser, parse, ratio, report
from synthetic import HALVES, Setting, make_unet
from torch import Tensor, nn

from nnunetv2_d2net.method.network.d2net import D2Net

SETTINGS = (Setting((128, 128, 128), n_cases=1), Setting((512, 512), n_cases=1))
TOY_SETTINGS = (Setting((16, 16, 16), 4, n_cases=1), Setting((32, 32), 4, n_cases=1))


def main() -> None:
    """Measure and print."""
    args = parse(make_parser(__doc__))
    rows, all_seconds = [], {}
    for setting in TOY_SETTINGS if args.toy else SETTINGS:
        seconds = measure(setting, args)
        all_seconds[str(setting)] = seconds
        rows.append({"size": str(setting), **row(seconds)})
    report(rows, args, seconds=all_seconds)


def measure(
    setting: Setting, args: argparse.Namespace, half: str = "float16", prepare: Callable = lambda network: network
) -> dict[str, list[float]]:
    """Return the seconds of every pass, by network.

    Args:
        setting: Size of the networks and of their input.
        args: Of the command line.
        half: One of ``HALVES``, on a GPU alone.
        prepare: What is done to both networks, such as compiling.
    """
    unet = make_unet(setting).to(args.device).eval()
    d2net = D2Net(unet, setting.n_modalities).to(args.device).eval()
    inputs = torch.randn(1, setting.n_modalities, *setting.patch, device=args.device)
    available = torch.ones(1, setting.n_modalities, dtype=torch.bool, device=args.device)
    arms = {
        "U-Net": functools.partial(predict, prepare(unet), HALVES[half], inputs),
        "D2-Net": functools.partial(predict, prepare(d2net), HALVES[half], inputs, available),
    }
    return interleave(arms, args)


def row(seconds: Seconds) -> dict[str, Any]:
    """Return the figures of one line of the table."""
    medians = {f"{name}, s": statistics.median(values) for name, values in seconds.items()}
    return {**medians, "ratio": ratio(seconds, "D2-Net", "U-Net"), "target": 1.10}


def predict(network: nn.Module, half: torch.dtype, *inputs: Tensor) -> None:
    """Run the network as nnU-Net's predictor does."""
    with torch.inference_mode(), torch.autocast(inputs[0].device.type, half, enabled=inputs[0].is_cuda):
        network(*inputs)


if __name__ == "__main__":
    main()
