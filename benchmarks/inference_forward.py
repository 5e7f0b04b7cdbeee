"""Seconds of one forward pass in prediction: D2-Net against the planned U-Net alone, which is a part of it.

Usage: python benchmarks/inference_forward.py [--device cpu|cuda] [--runs 5] [--json FILE]

Both run in evaluation mode on the same weights, without deep supervision; on a GPU under autocast, as nnU-Net predicts.
"""

import functools
import statistics

import torch
from measuring import interleave, make_parser, parse, ratio, report
from synthetic import Setting, make_unet
from torch import Tensor, nn

from nnunetv2_d2net.method.network.d2net import D2Net

SETTINGS = (Setting((128, 128, 128), n_cases=1), Setting((512, 512), n_cases=1))
TOY_SETTINGS = (Setting((16, 16, 16), 4, n_cases=1), Setting((32, 32), 4, n_cases=1))


def main() -> None:
    """Measure and print."""
    args = parse(make_parser(__doc__))
    rows, all_seconds = [], {}
    for setting in TOY_SETTINGS if args.toy else SETTINGS:
        unet = make_unet(setting).to(args.device).eval()
        d2net = D2Net(unet, setting.n_modalities).to(args.device).eval()
        inputs = torch.randn(1, setting.n_modalities, *setting.patch, device=args.device)
        available = torch.ones(1, setting.n_modalities, dtype=torch.bool, device=args.device)
        arms = {
            "U-Net": functools.partial(predict, unet, inputs),
            "D2-Net": functools.partial(predict, d2net, inputs, available),
        }
        seconds = interleave(arms, args)
        all_seconds[str(setting)] = seconds
        medians = {f"{name}, s": statistics.median(values) for name, values in seconds.items()}
        rows.append({"size": str(setting), **medians, "ratio": ratio(seconds, "D2-Net", "U-Net"), "target": 1.10})
    report(rows, args, seconds=all_seconds)


def predict(network: nn.Module, *inputs: Tensor) -> None:
    """Run the network as nnU-Net's predictor does."""
    with torch.inference_mode(), torch.autocast(inputs[0].device.type, enabled=inputs[0].is_cuda):
        network(*inputs)


if __name__ == "__main__":
    main()
