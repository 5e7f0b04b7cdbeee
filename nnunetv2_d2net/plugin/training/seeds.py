"""Where everything random of a training begins."""

import os
import random

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform

from nnunetv2_d2net.base.errors import UsageError

N_SEEDS = 2**31
"""From how many seeds a generator of a training's own draws one."""

_LARGEST = 2**32 - 1
_given: int | None = None
"""The seed of this process, where it has one."""


def check_seed(seed: int) -> None:
    """Refuse a seed that numpy does not take.

    Raises:
        UsageError: It is negative or has more than 32 bits.
    """
    if not 0 <= seed <= _LARGEST:
        raise UsageError(f"seed {seed}: choose --seed between 0 and {_LARGEST}")


def seed_training(seed: int | None) -> None:
    """Let this process draw the same weights, patches, augmentations and subsets every time.

    With the same versions and one thread the trainers of this package then train the same weights. nnU-Net augments in
    processes whose order is left to chance, so this process augments by itself unless ``nnUNet_n_proc_DA`` is set.
    Each process of a training on several devices draws differently.

    Args:
        seed: From 0; None to begin anywhere, as nnU-Net does.
    """
    global _given  # noqa: PLW0603 - nnU-Net hands nothing on to its trainers
    _given = seed
    if seed is None:
        return
    check_seed(seed)
    os.environ.setdefault("nnUNet_n_proc_DA", "0")
    own = (seed + int(os.environ.get("RANK", "0"))) % (_LARGEST + 1)
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)


def repeatable(transforms: BasicTransform) -> BasicTransform:
    """Let augmentation compute the same bits every time where this process has a seed.

    nnU-Net's blur times two ways of computing it and takes the faster one; their last bits differ.

    Args:
        transforms: nnU-Net's, for training.

    Returns:
        The same, changed in place.
    """
    for transform in getattr(transforms, "transforms", ()) if _given is not None else ():
        inner = getattr(transform, "transform", transform)
        if isinstance(inner, GaussianBlurTransform):
            inner.benchmark = False
    return transforms
