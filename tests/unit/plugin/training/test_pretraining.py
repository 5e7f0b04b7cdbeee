import pytest
import torch

from nnunetv2_d2net.plugin.training.pretraining import LEVELS, TEXTURE, shift_levels

SHAPE = (24, 28, 24)
TISSUES = ("edema", "necrotic or not enhancing", "enhancing")


@pytest.fixture
def regions():
    """Two cases of whole tumor, core and enhancing tumor: boxes in each other."""
    regions = torch.zeros(2, 3, *SHAPE)
    for region, margin in enumerate((0, 4, 8)):
        box = slice(1 + margin, 24 - margin)
        regions[:, region, box, box, box] = 1
    return regions


def shift(regions, p=1.0, seed=0):
    return shift_levels(torch.zeros(2, 4, *SHAPE), regions, p, torch.Generator().manual_seed(seed))


def test_nothing_outside_lesions_changes_and_nothing_with_probability_zero(regions):
    shifted = shift(regions)
    assert shifted[..., 26, :].abs().max() == 0
    assert shifted.abs().amax((1, 2, 3, 4)).min() > 0
    assert shift(regions, p=0.0).abs().max() == 0


def test_each_tissue_gets_levels_from_its_range_in_each_image(regions):
    middle = {"edema": (3, 12, 12), "necrotic or not enhancing": (7, 12, 12), "enhancing": (12, 12, 12)}
    seen = torch.stack([shift(regions, seed=seed) for seed in range(400)])
    for tissue in TISSUES:
        low, high = torch.tensor(LEVELS[tissue]).unbind(1)
        values = seen[(..., *middle[tissue])].flatten(0, 1)
        middle_of_range, width = (low + high) / 2, high - low
        assert (values.mean(0) - middle_of_range).abs().max() < 0.12
        spread = width / 12**0.5
        assert (
            (values.std(0) > spread * 0.7) & (values.std(0) < 1.3 * (spread + TEXTURE * middle_of_range.abs()))
        ).all()


def test_cases_and_images_are_shifted_apart(regions):
    values = shift(regions)[..., 12, 12, 12].flatten()
    assert len(set(values.tolist())) == 8


def test_a_share_of_the_cases_keeps_its_levels(regions):
    shifted = torch.stack([shift(regions, p=0.3, seed=seed).abs().amax((1, 2, 3, 4)) > 0 for seed in range(300)])
    assert 0.23 < shifted.float().mean() < 0.37


def test_a_shift_has_a_smooth_texture_and_a_soft_border(regions):
    shifted = shift(regions)[0, 1, :, 12, 12]
    assert shifted[1] != 0
    assert abs(shifted[1]) < abs(shifted[2])  # half of the border's neighborhood lies outside
    whole = torch.zeros_like(regions)
    whole[:, 0] = 1
    inside = shift(whole)[0, 0, 2:-2, 2:-2, 2:-2]
    assert inside.std() > 0
    steps = inside.diff(dim=0).abs().max()
    assert steps < 0.5 * (inside.max() - inside.min())
