"""Pooling against a loop over the cells."""

from itertools import product

import pytest
import torch

from nnunetv2_d2net.method.losses.pooling import any_pool, average_pool

SIZES = [((4, 6), (2, 2)), ((4, 6), (4, 3)), ((4, 6, 2), (2, 3, 1)), ((4, 6, 2), (1, 6, 2))]


def cells(maps, size):
    """Each cell's place and its voxels, ``(B, C, n)``."""
    steps = [n // m for n, m in zip(maps.shape[2:], size, strict=True)]
    for place in product(*map(range, size)):
        block = tuple(slice(i * step, (i + 1) * step) for i, step in zip(place, steps, strict=True))
        yield place, maps[(slice(None), slice(None), *block)].flatten(2)


@pytest.mark.parametrize(("fine", "coarse"), SIZES)
def test_cells_are_averaged_and_searched(fine, coarse):
    maps = torch.randn(2, 3, *fine, dtype=torch.float64)
    mask = torch.rand(2, 1, *fine) < 0.2
    averages, found = average_pool(maps, coarse), any_pool(mask, list(coarse))
    assert (averages.shape[2:], found.shape[2:], found.dtype) == (coarse, coarse, torch.bool)
    for place, voxels in cells(maps, coarse):
        torch.testing.assert_close(averages[(slice(None), slice(None), *place)], voxels.mean(-1))
    for place, voxels in cells(mask, coarse):
        assert torch.equal(found[(slice(None), slice(None), *place)], voxels.any(-1))
    assert found.any()
    assert not found.all()


@pytest.mark.parametrize("size", [(4, 6), (4, 6, 2)])
def test_what_has_the_size_is_not_touched(size):
    maps, mask = torch.ones(1, 2, *size), torch.ones(1, 1, *size, dtype=torch.bool)
    assert average_pool(maps, list(size)) is maps
    assert any_pool(mask, list(size)) is mask


@pytest.mark.parametrize(("fine", "coarse"), [((5, 4), (2, 2)), ((4, 4, 6), (4, 4, 4)), ((2, 2), (4, 2))])
def test_a_grid_that_does_not_divide_is_refused(fine, coarse):
    for pool, maps in ((average_pool, torch.ones(1, 1, *fine)), (any_pool, torch.ones(1, 1, *fine).bool())):
        with pytest.raises(ValueError, match="does not divide"):
            pool(maps, coarse)
