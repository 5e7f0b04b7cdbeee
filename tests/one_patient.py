"""A drawn patient with a tumor, and an untrained model of the four sequences, for tests of single patients."""

import json

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.unit.plugin.preprocessing.conftest import build_plans

CHANNELS = ("FLAIR", "T1", "T1ce", "T2")
REGIONS = {"whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": 3}
MODEL = "Dataset901_Drawn/D2NetTrainer__D2NetPlans__3d_fullres"

LEVELS = {  # of brain, edema, core and rim
    "FLAIR": (300, 700, 500, 600),
    "T1": (600, 450, 300, 500),
    "T1ce": (600, 450, 250, 1000),
    "T2": (350, 700, 800, 600),
}


def draw_patient(shape=(20, 24, 22), spacing=(6.0, 6.0, 6.0), channels=CHANNELS, *, skull=False, seed=0):
    """Draw a head as BraTS has it: left, posterior, superior, 0 around the brain.

    Args:
        shape: z, y, x.
        spacing: In mm, x, y, z.
        channels: Which sequences.
        skull: Leave it on: a larger head, in air that has noise.
        seed: Of the noise.

    Returns:
        Images by sequence.
    """
    rng = np.random.default_rng(seed)
    z, y, x = (np.linspace(-1, 1, n)[(slice(None),) + (None,) * k] for n, k in zip(shape, (2, 1, 0), strict=True))
    distance = np.sqrt((z / 0.8) ** 2 + (y / 0.85) ** 2 + (x / 0.7) ** 2)
    tumor = np.sqrt((z - 0.2) ** 2 + (y + 0.3) ** 2 + (x - 0.3) ** 2)  # left, anterior
    texture = 60 * np.sin(3 * x + 1.3 * y) * np.cos(2.1 * z - 1.7 * y) + 40 * np.sin(5.3 * x - 2.2 * z + 1)
    images = {}
    for channel in channels:
        brain, edema, core, rim = LEVELS[channel]
        voxels = brain + texture + rng.normal(0, 15, shape)
        for level, radius in ((edema, 0.35), (rim, 0.22), (core, 0.14)):
            voxels = np.where(tumor < radius, level + 0.3 * texture, voxels)
        voxels = np.where(distance < 1, np.clip(voxels, 1, None), 800 * (distance < 1.15) if skull else 0)
        voxels = np.abs(voxels + rng.normal(0, 20, shape)) if skull else voxels
        images[channel] = sitk.GetImageFromArray(np.rint(voxels).astype(np.int16))
        images[channel].SetSpacing(spacing)
        images[channel].SetOrigin((-60.0, -70.0, -40.0))
    return images


def write_model(root, channels=CHANNELS, regions=None, *, orientation="LPS", model=MODEL):
    """Write an untrained D2-Net below a folder, as an export leaves it; return the model's folder."""
    folder = root / model
    (folder / "fold_0").mkdir(parents=True)
    plans = build_plans(["ZScoreNormalization"] * len(channels), use_mask=True, spacing=(6.0,) * 3).plans
    plans["configurations"] = {"3d_fullres": plans["configurations"].pop("tiny")}
    plans["d2net_orientation"] = orientation
    regions = REGIONS if regions is None else regions
    dataset = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, **regions},
        "file_ending": ".nii.gz",
    }
    n_heads = len(regions) + 1
    if any(isinstance(values, list) for values in regions.values()):
        dataset["regions_class_order"] = [2, 1, 3]
        n_heads = len(regions)  # no background
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    torch.manual_seed(0)
    manager = PlansManager(plans)
    network = D2NetTrainer.build_network_architecture(
        manager, manager.get_configuration("3d_fullres"), len(channels), n_heads, enable_deep_supervision=False
    )
    checkpoint = {
        "network_weights": {name: weights.half() for name, weights in network.state_dict().items()},
        "trainer_name": "D2NetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder
