"""Take a part of D2-Net out of a trained model, to see by its predictions what that part was good for.

Writes a copy of a model folder whose student is as if the part had never opened: `gate` shuts the bottleneck's gate, so
that nothing of the fused features and codes comes in; `modulation` no longer tells the encoder what is missing. Nothing
is trained anew, so what the other layers have learned to expect of the part is lost, too.

    python benchmarks/shut_parts.py results/DATASET/MODEL shut/DATASET/MODEL --parts gate
    nnUNet_results=shut d2net predict ...    # as with the model itself
"""

import argparse
import shutil
import sys
from pathlib import Path

import torch

from nnunetv2_d2net.plugin.checkpoints import read_checkpoint

PARTS = {"gate": "bottleneck_gate.", "modulation": "availability_modulation."}


def main() -> None:
    """Copy, shut, and say which weights were set to zero."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a companion whose student is a D2-Net")
    parser.add_argument("copy", type=Path, help="folder to write")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["gate"])
    args = parser.parse_args()
    shutil.copytree(args.model, args.copy)
    for path in sorted(args.copy.glob("fold_*/checkpoint_final.pth")):
        checkpoint = read_checkpoint(path)
        shut = [name for part in args.parts for name in checkpoint["network_weights"] if PARTS[part] in name]
        if not all(any(PARTS[part] in name for name in shut) for part in args.parts):
            sys.exit(f"{path} lacks one of {', '.join(args.parts)}: name a companion with D2-Net as the student")
        for name in shut:
            checkpoint["network_weights"][name].zero_()
        unfinished = path.with_suffix(".part")  # the checkpoint is mapped, not read: its file must stay meanwhile
        torch.save(checkpoint, unfinished)
        unfinished.replace(path)
        sys.stdout.write(f"{path}: {', '.join(shut)}\n")


if __name__ == "__main__":
    main()
