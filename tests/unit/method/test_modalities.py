import pytest
import torch
from scipy import stats

from nnunetv2_d2net.method.modalities import (
    draw_available,
    draw_nested,
    draw_subsets,
    infer_available,
    modality_subsets,
    subset_codes,
    subset_rotation,
    weighted_rotation,
    zero_missing,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_modalities", [1, 2, 4, 6])
def test_subsets_are_all_and_distinct(n_modalities):
    subsets = modality_subsets(n_modalities)
    assert len({tuple(s) for s in subsets.tolist()}) == 2**n_modalities - 1
    assert subsets.any(1).all()
    assert subsets[-1].all()
    assert (subsets.sum(1).diff() >= 0).all()


def test_subsets_of_one_size_are_in_the_order_of_the_modalities():
    codes = (modality_subsets(9) * 2 ** torch.arange(9)).sum(1).tolist()
    assert codes == sorted(range(1, 512), key=lambda code: (bin(code).count("1"), code))


def test_drawing_is_uniform_over_the_nonempty_subsets():
    drawn = draw_available(torch.ones(30000, 3, dtype=torch.bool), 0.0, generator())
    counts = torch.bincount((drawn * torch.tensor([1, 2, 4])).sum(1), minlength=8)
    assert counts[0] == 0
    assert (counts[1:] / 30000 - 1 / 7).abs().max() < 0.01


def test_drawing_never_invents_a_modality():
    present = torch.tensor([[True, False, True, False], [False, False, False, True]]).repeat(500, 1)
    drawn = draw_available(present, 0.3, generator())
    assert not (drawn & ~present).any()
    assert drawn.any(1).all()


@pytest.mark.parametrize("p_complete", [0.0, 0.5, 1.0])
def test_p_complete(p_complete):
    drawn = draw_available(torch.ones(20000, 4, dtype=torch.bool), p_complete, generator())
    expected = p_complete + (1 - p_complete) / 15
    assert abs(drawn.all(1).float().mean() - expected) < 0.01


def test_rotation_is_fixed_distinct_and_starts_complete():
    rotation = subset_rotation(4, 50)
    assert rotation.shape == (15, 4)
    assert rotation[0].all()
    assert len({tuple(s) for s in rotation.tolist()}) == 15
    assert torch.equal(rotation, subset_rotation(4, 50))
    assert torch.equal(subset_rotation(4, 6)[:1], rotation[:1])
    assert len(subset_rotation(30, 50)) == 50  # 2^30 subsets need not be listed
    assert subset_rotation(30, 50).any(1).all()


def test_zeroing_also_removes_nan():
    images = torch.full((1, 2, 3, 3), torch.nan)
    images[0, 0] = 2
    zeroed = zero_missing(images, torch.tensor([[True, False]]))
    assert (zeroed[0, 0] == 2).all()
    assert (zeroed[0, 1] == 0).all()
    assert torch.isnan(images[0, 1]).all()


def test_a_zero_channel_is_missing_but_a_zero_tile_complete():
    images = torch.ones(2, 3, 4, 4)
    images[0, 1] = 0
    images[1] = 0
    assert infer_available(images).tolist() == [[True, False, True], [True, True, True]]


def test_the_generator_alone_decides_what_is_drawn():
    present = torch.ones(50, 4, dtype=torch.bool)
    torch.manual_seed(0)
    first = draw_available(present, 0.3, generator())
    state = torch.get_rng_state()
    assert torch.equal(first, draw_available(present, 0.3, generator()))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, draw_available(present, 0.3, generator(1)))


def test_the_rotation_is_the_same_in_every_version():
    """Pseudo-Dice and checkpoint_best of trainings can be compared as long as it is."""
    numbers = (subset_rotation(4, 15) * torch.tensor([1, 2, 4, 8])).sum(1).tolist()
    assert numbers == [15, 12, 3, 11, 1, 4, 5, 2, 8, 10, 6, 7, 14, 13, 9]
    assert not torch.equal(subset_rotation(4, 15, seed=1), subset_rotation(4, 15))


WEIGHTS = torch.tensor([9.0, 1.0, 0.0, 3.0, 0.0, 0.0, 2.0, 4.0])
"""Of subsets of three modalities; the empty one is never drawn, whatever it weighs."""


def expected_counts(present, n):
    """Add the weight of each subset to what the case has of it, one by one."""
    shares = [0.0] * 8
    for code, weight in enumerate(WEIGHTS.tolist()):
        shares[code & present] += weight if code & present else 0.0
    return [n * share / sum(shares) for share in shares]


@pytest.mark.parametrize("present", [0b111, 0b101, 0b110, 0b011])
def test_subsets_are_drawn_by_weight_among_those_that_share_something_with_the_case(present):
    n = 20000
    rows = torch.tensor([[bool(present >> m & 1) for m in range(3)]]).repeat(n, 1)
    drawn = draw_subsets(rows, WEIGHTS, generator())
    counts = torch.bincount(subset_codes(drawn), minlength=8).tolist()
    pairs = [(count, share) for count, share in zip(counts, expected_counts(present, n), strict=True) if count or share]
    assert stats.chisquare(*zip(*pairs, strict=True)).pvalue > 0.01
    assert len(pairs) > 1


def test_a_case_that_shares_nothing_with_any_subset_keeps_all_it_has():
    weights = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    present = torch.tensor([[False, True, True], [True, True, False], [False, False, True]])
    assert subset_codes(draw_subsets(present, weights, generator())).tolist() == [0b110, 0b001, 0b100]


def test_one_modality_and_cases_of_one_batch_are_drawn_each_on_its_own():
    assert draw_subsets(torch.ones(3, 1, dtype=torch.bool), torch.tensor([0.0, 5.0]), generator()).all()
    present = torch.ones(200, 3, dtype=torch.bool)
    first = draw_subsets(present, WEIGHTS, generator())
    assert len(set(subset_codes(first).tolist())) == 4
    assert torch.equal(first, draw_subsets(present, WEIGHTS, generator()))
    assert not torch.equal(first, draw_subsets(present, WEIGHTS, generator(1)))


def nested_codes(first, present, weights=None):
    """The numbers of the subsets that are drawn beside one, of 300."""
    rows = [torch.tensor([[code >> m & 1 for m in range(4)]]).bool().expand(300, 4) for code in (first, present)]
    return set(subset_codes(draw_nested(*rows, generator(), weights)).tolist())


@pytest.mark.parametrize("present", [0b1111, 0b1011, 0b0100])
def test_the_second_subset_holds_the_first_or_is_part_of_all_there_is(present):
    for first in (code for code in range(1, 16) if code | present == present):
        larger = {code for code in range(16) if code & first == first and code | present == present}
        parts = {code for code in range(1, 16) if code | present == present}
        expected = (parts if first == present else larger) - {first} or {first}
        assert nested_codes(first, present) == expected


def test_the_second_subset_is_one_that_occurs():
    weights = torch.zeros(16)
    weights[[0b0011, 0b0111, 0b1000]] = 1
    assert nested_codes(0b0001, 0b1111, weights) == {0b0011, 0b0111}
    assert nested_codes(0b1111, 0b1111, weights) == {0b0011, 0b0111, 0b1000}
    assert nested_codes(0b1100, 0b1111, weights) == {0b1100}  # none holds it


def test_the_rotation_of_weights_takes_each_subset_as_often_as_it_weighs():
    weights = WEIGHTS * torch.tensor([0, 1, 1, 1, 1, 1, 1, 1])
    codes = subset_codes(weighted_rotation(weights, 50))
    assert torch.bincount(codes, minlength=8).tolist() == [5 * weight for weight in weights.tolist()]
    spread = weighted_rotation(torch.tensor([0.0, 1.0, 0.0, 3.0]), 8)
    assert subset_codes(spread).tolist() == [3, 3, 1, 3, 3, 3, 1, 3]
    for weights in (WEIGHTS, torch.tensor([0, 3, 10, 1, 7, 20, 16.5, 3, 5, 0, 10, 0, 0, 3, 1, 3])):
        for n in range(1, 60):
            weights[0] = 0
            counts = torch.bincount(subset_codes(weighted_rotation(weights, n)), minlength=len(weights))
            shares = n * weights.double() / weights.sum()
            assert counts.sum() == n
            assert ((counts >= shares.floor()) & (counts <= shares.ceil())).all()
    assert weighted_rotation(torch.tensor([0.0, 1.0, 1.0, 0.0]), 4).sum(1).tolist() == [1, 1, 1, 1]
    assert weighted_rotation(torch.tensor([0.0, 1.0]), 2).tolist() == [[True]] * 2


def test_the_rotation_of_equal_weights_takes_them_in_turn_and_complete_first():
    rotation = weighted_rotation(torch.ones(8) - torch.eye(8)[0], 21)
    assert rotation.dtype == torch.bool
    assert rotation.shape == (21, 3)
    assert subset_codes(rotation).tolist() == [7, 4, 3, 6, 5, 1, 2] * 3  # in every version


def test_a_case_without_any_subset_keeps_its_first_modality_too():
    present = torch.tensor([[True, True, False]])
    only_the_third = torch.tensor([0.0] * 4 + [1.0] + [0.0] * 3)
    assert draw_subsets(present, only_the_third, generator()).tolist() == [[True, True, False]]


def test_the_mark_of_one_case_says_nothing_of_another():
    images = torch.ones(2, 3, 4, 4)
    images[0, 1], images[1, 2] = torch.nan, 0
    assert infer_available(images).tolist() == [[True, False, True], [True, True, False]]
