"""Give the small plans six stages, so that the decoder has the four feature banks of the paper.

Usage: python benchmarks/four_banks.py D2NetSmallPlans.json

It writes FourBanksPlans.json beside them, which use the same preprocessed data.
"""

import json
import sys
from pathlib import Path
from typing import Any

NAME = "FourBanksPlans"
PATCH = [32, 48, 32]
STRIDES = [[1, 1, 1], [2, 2, 1], [2, 1, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
FEATURES = [8, 16, 32, 64, 64, 64]


def with_four_banks(plans: dict[str, Any]) -> dict[str, Any]:
    """Return the plans with a 3D configuration of six stages."""
    planned = plans["configurations"]["3d_fullres"]
    architecture = planned["architecture"]
    n_stages = len(STRIDES)
    sizes = {
        "n_stages": n_stages,
        "features_per_stage": FEATURES,
        "strides": STRIDES,
        "kernel_sizes": [[3, 3, 3]] * n_stages,
        "n_conv_per_stage": [2] * n_stages,
        "n_conv_per_stage_decoder": [2] * (n_stages - 1),
    }
    deeper = architecture | {"arch_kwargs": architecture["arch_kwargs"] | sizes}
    configuration = planned | {"patch_size": PATCH, "architecture": deeper}
    return plans | {"plans_name": NAME, "configurations": plans["configurations"] | {"3d_fullres": configuration}}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    content = with_four_banks(json.loads(path.read_text(encoding="utf-8")))
    path.with_name(f"{NAME}.json").write_text(json.dumps(content, indent=4), encoding="utf-8")
