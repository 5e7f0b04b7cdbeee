"""Everything random of a training begins at its seed, each process at a place of its own."""

import os
import random

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.plugin.training import seeds
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.seeds import check_seed, repeatable, seed_training

LARGEST = 2**32 - 1


@pytest.fixture(autouse=True)
def _as_found(monkeypatch):
    monkeypatch.setattr(seeds, "_given", None)
    for name in ("nnUNet_n_proc_DA", "RANK"):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)  # as it was, whatever a seed sets


def drawn():
    return random.random(), np.random.random(), torch.rand(()).item()


@pytest.mark.parametrize(
    ("seed", "rank", "own"), [(7, None, 7), (5, "2", 7), (LARGEST, "1", 0), (LARGEST, "0", LARGEST)]
)
def test_each_process_begins_at_the_seed_and_its_number(monkeypatch, seed, rank, own):
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    seed_training(seed)
    expected = (
        random.Random(own).random(),
        np.random.RandomState(own).random_sample(),
        torch.rand((), generator=torch.Generator().manual_seed(own)).item(),
    )
    assert drawn() == expected


def test_a_seeded_process_augments_by_itself_unless_somebody_has_said_otherwise(monkeypatch):
    seed_training(3)
    assert os.environ["nnUNet_n_proc_DA"] == "0"
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    seed_training(3)
    assert os.environ["nnUNet_n_proc_DA"] == "2"


def test_no_seed_changes_nothing():
    before = np.random.get_state()[1].copy()
    seed_training(None)
    assert (np.random.get_state()[1] == before).all()
    assert "nnUNet_n_proc_DA" not in os.environ


@pytest.mark.parametrize("seed", [-1, LARGEST + 1])
def test_a_seed_that_numpy_does_not_take(seed):
    before = np.random.get_state()[1].copy()
    with pytest.raises(UsageError, match=f"^seed {seed}: choose --seed between 0 and 4294967295$"):
        seed_training(seed)
    assert (np.random.get_state()[1] == before).all()
    check_seed(0)
    check_seed(LARGEST)


@pytest.mark.parametrize("seed", [None, 0, 3])
def test_with_a_seed_nnunets_blur_does_not_time_itself(seed):
    seed_training(seed)
    of_nnunet = ((8, 8, 8), {"x": 0.1, "y": 0.1, "z": 0.1}, None, (0, 1, 2))
    settings = {"do_dummy_2d_data_aug": False, "use_mask_for_norm": [False] * 3, "foreground_labels": [1, 2]}
    made = nnUNetTrainerModalityDropout.get_training_transforms(*of_nnunet, **settings)
    inner = [getattr(transform, "transform", transform) for transform in made.transforms]
    blurs = [transform for transform in inner if isinstance(transform, GaussianBlurTransform)]
    assert [blur.benchmark for blur in blurs] == [seed is None]
    assert len(inner) > 5


def test_a_blur_may_stand_for_itself_and_other_transforms_are_as_they_were():
    seed_training(3)
    blur, other = GaussianBlurTransform(benchmark=True), torch.nn.Identity()
    both = ComposeTransforms([blur, other])
    assert repeatable(both) is both
    assert (blur.benchmark, hasattr(other, "benchmark")) == (False, False)
    assert repeatable(other) is other
