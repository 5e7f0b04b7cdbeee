"""Voxels counted right and wrong against a voxel loop, and cases whose absent channels are marked."""

from itertools import product
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from nnunetv2_d2net.plugin.preprocessing.cohort import AVAILABLE
from nnunetv2_d2net.plugin.training.validation import blanking_dataset, hard_counts

IGNORE = 3


def counted_by_voxel(logits, target, *, regions, ignore):
    """Numbers of each foreground class, from one voxel after the other."""
    n_classes = logits.shape[1]
    found = {name: np.zeros(n_classes) for name in ("tp_hard", "fp_hard", "fn_hard")}
    for b, *voxel in product(range(len(logits)), *map(range, logits.shape[2:])):
        scores, truth = logits[(b, slice(None), *voxel)].tolist(), target[(b, slice(None), *voxel)].tolist()
        if ignore and (truth[-1] == 1 if regions else truth[0] == IGNORE):
            continue
        for c in range(n_classes):
            predicted = scores[c] > 0 if regions else scores[c] == max(scores)
            is_there = truth[c] == 1 if regions else truth[0] == c
            name = {(True, True): "tp_hard", (True, False): "fp_hard", (False, True): "fn_hard"}.get(
                (predicted, is_there)
            )
            if name:
                found[name][c] += 1
    return {name: counts[0 if regions else 1 :] for name, counts in found.items()}


@pytest.mark.parametrize("size", [(3, 4, 5), (4, 5)])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize(("regions", "dtype"), [(False, torch.int16), (True, torch.bool), (True, torch.int16)])
def test_counts_equal_the_voxel_loop(size, ignore, regions, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *size, generator=generator)
    if regions:
        logits[:, :, 0] = 0  # as likely as not is not found
        target = (torch.rand(2, 4 if ignore else 3, *size, generator=generator) < 0.4).to(dtype)
    else:
        target = torch.randint(0, 4 if ignore else 3, (2, 1, *size), generator=generator).to(dtype)
    before = target.clone()
    manager = SimpleNamespace(has_regions=regions, has_ignore_label=ignore, ignore_label=IGNORE)
    found = hard_counts(logits, target, manager)
    expected = counted_by_voxel(logits, target, regions=regions, ignore=ignore)
    assert found.keys() == expected.keys()
    for name, counts in expected.items():
        assert found[name].tolist() == counts.tolist()
        assert counts.all()
    assert torch.equal(target, before)


class Stored:
    """Stands in for nnU-Net's datasets, whose images are read when they are asked for."""

    properties: ClassVar[dict] = {}

    def load_case(self, identifier):
        assert identifier == "a"
        return np.ones((3, 2, 2)), "segmentation", "previous", self.properties


@pytest.mark.parametrize("voxel", [0.0, float("nan")])
def test_channels_that_a_case_lacks_are_marked(voxel):
    made = blanking_dataset(Stored, voxel)
    assert (made.__name__, made.__mro__[1]) == ("Stored", Stored)
    made.properties = {AVAILABLE: [True, False, True]}
    data, *others, properties = made().load_case("a")
    assert np.array_equal(data[1], np.full((2, 2), voxel), equal_nan=True)
    assert (data[[0, 2]] == 1).all()
    assert others == ["segmentation", "previous"]
    assert properties is made.properties


@pytest.mark.parametrize("properties", [{}, {AVAILABLE: [True] * 3}])
def test_complete_cases_are_as_they_were(properties):
    made = blanking_dataset(Stored, 0.0)
    made.properties = properties
    assert (made().load_case("a")[0] == 1).all()
