"""Parameters and operations of D2NetTrainerPaper's network by reading of the paper, beside its Table VII.

Counted on tensors without data, for one patch of 128^3, four modalities and four classes.

Usage: python benchmarks/paper_size.py [--json FILE]
"""

from typing import Any, NamedTuple

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from measuring import make_parser, parse, report
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_d2net.method.network.d2net import PAPER_OPTIONS, D2Net, D2NetOptions, count_parameters
from nnunetv2_d2net.plugin.planning.planner import D2NetPaperPlanner

PARAMETERS, OPERATIONS = 5.1e6, 4.2e10
FEATURES = D2NetPaperPlanner.features


class Reading(NamedTuple):
    """Widths by level, convolutions per level of encoder and decoder, and the rest of the network."""

    features: tuple[int, ...] = FEATURES
    n_encoder: int = 1
    n_decoder: int = 2
    options: D2NetOptions = PAPER_OPTIONS


READINGS = {
    "planned: 1 and 2 convolutions per level of encoder and decoder": Reading(),
    "1 and 1": Reading(n_decoder=1),
    "2 and 2": Reading(n_encoder=2),
    "2 and 2, one D_R": Reading(n_encoder=2, options=PAPER_OPTIONS._replace(independent_image_decoders=False)),
    "classifiers of one convolution": Reading(options=PAPER_OPTIONS._replace(classifier_convs=1)),
    "8 channels at full resolution": Reading((8, *FEATURES[1:])),
    "no level below 8^3": Reading(FEATURES[:-1]),
    "D2NetTrainer's network on these plans": Reading(options=D2NetOptions()),
}


def main() -> None:
    """Count and print."""
    args = parse(make_parser(__doc__))
    rows = []
    for name, reading in list(READINGS.items())[: 1 if args.toy else None]:
        network = build(reading)
        n_parameters, training, prediction = count_parameters(network), *operations(network)
        rows.append(
            {
                "reading": name,
                "parameters, 10^6": n_parameters / 1e6,
                "to 5.1": f"{n_parameters / PARAMETERS - 1:+.0%}",
                "multiply-adds of a training pass, 10^10": training / 1e10,
                "to 4.2": f"{training / OPERATIONS - 1:+.0%}",
                "of a prediction, 10^10": prediction / 1e10,
                "parameters with separable convolutions, 10^6": separable(network) / 1e6,
            }
        )
    report(rows, args)


def build(reading: Reading) -> D2Net:
    """Build a reading's network without memory for its weights."""
    n = len(reading.features)
    shapes: Any = {"kernel_sizes": [[3] * 3] * n, "strides": [[1] * 3, *[[2] * 3] * (n - 1)]}
    with torch.device("meta"):
        unet = PlainConvUNet(
            input_channels=4,
            n_stages=n,
            features_per_stage=reading.features,
            conv_op=nn.Conv3d,
            **shapes,
            n_conv_per_stage=[reading.n_encoder] * n,
            num_classes=4,
            n_conv_per_stage_decoder=[reading.n_decoder] * (n - 1),
            conv_bias=True,
            norm_op=nn.BatchNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=True,
        )
        return D2Net(unet, 4, reading.options)


def operations(network: D2Net) -> tuple[int, int]:
    """Return the multiply-adds of a forward pass in training, and of one in prediction."""
    counts = []
    for training in (True, False):
        network.train(training)
        network.decoder.deep_supervision = training
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 4, 128, 128, 128), torch.ones(1, 4, dtype=torch.bool))
        counts.append(counter.get_total_flops() // 2)
    return counts[0], counts[1]


def separable(network: D2Net) -> int:
    """Count the parameters if every 3x3x3 convolution were one per channel and one of kernel size 1, as in [25]."""
    convs = [m for m in network.modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (3, 3, 3)]
    saved = sum(m.weight.numel() - m.in_channels * (27 + m.out_channels) for m in convs)
    return count_parameters(network) - saved


if __name__ == "__main__":
    main()
