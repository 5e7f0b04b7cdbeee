"""Multiply-adds of one forward pass in prediction, module by module, counted on tensors without data.

Usage: python benchmarks/operations.py [--json FILE]
"""

import torch
from measuring import make_parser, parse, report
from synthetic import PHANTOM, TOY, Setting, make_unet
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_d2net.method.network.d2net import D2Net

SETTINGS = (Setting((128, 128, 128), n_cases=1), Setting((512, 512), n_cases=1), PHANTOM._replace(n_cases=1))
PARTS = {
    "encoder": "D2Net.decoder.encoder",  # nnU-Net's decoder holds the encoder, too, and the counter takes that name
    "decoder": "D2Net.decoder",
    "modality encoder": "D2Net.modality_encoder",
    "content reconstruction": "D2Net.content_reconstruction",
    "fusion": "D2Net.fusion",
}


def main() -> None:
    """Count and print."""
    args = parse(make_parser(__doc__))
    rows = []
    for setting in [TOY._replace(n_cases=1)] if args.toy else SETTINGS:
        counts = count(setting)
        whole, parts = counts.pop("whole"), counts
        unet = parts["encoder"] + parts["decoder"]
        shares = {f"{name}, share": n / whole for name, n in parts.items()}
        rows.append({"size": str(setting), "multiply-adds": whole, **shares, "D2-Net / U-Net": whole / unet})
    report(rows, args)


def count(setting: Setting) -> dict[str, int]:
    """Return the multiply-adds of the whole network and of its parts."""
    with torch.device("meta"):
        network = D2Net(make_unet(setting), setting.n_modalities).eval()
        images = torch.empty(1, setting.n_modalities, *setting.patch)
        available = torch.ones(1, setting.n_modalities, dtype=torch.bool)
    with FlopCounterMode(display=False, depth=2) as counter, torch.no_grad():
        network(images, available)
    found = counter.get_flop_counts()
    parts = {name: sum(found[key].values()) // 2 for name, key in PARTS.items()}
    return {"whole": counter.get_total_flops() // 2, **parts}


if __name__ == "__main__":
    main()
