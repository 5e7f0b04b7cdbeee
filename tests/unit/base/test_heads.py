import numpy as np
import pytest

from nnunetv2_d2net.base.heads import HeadMatch, match_heads

SHAPE = (40, 44, 36)


def head(seed):
    """Modalities ``(3, z, y, x)`` of a patient: a head of its own size, place and inside in blank surroundings."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    center, radii = rng.uniform(-0.08, 0.08, 3), rng.uniform(0.7, 0.9, 3)
    inside = (((grid - center[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(0) < 1
    tissue = rng.integers(0, 3, (10, 11, 9)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    contrasts = np.array([[100, 160, 40], [150, 90, 60], [80, 120, 240]], float)
    images = contrasts[:, tissue] + rng.normal(0, 8, (3, *SHAPE))
    return np.where(inside, images, 0).astype(np.float32)


@pytest.mark.parametrize(
    ("overlap", "contained", "likeness", "doubtful", "different"),
    [
        (0.95, 0.5, 0.0, False, False),  # one outline
        (0.94, 0.97, 0.1, True, True),
        (0.94, 0.98, 0.1, True, False),  # one is cut off
        (0.94, 0.97, 0.2, True, False),  # much is alike inside
        (0.94, 0.97, 0.36, False, False),
        (0.75, 0.97, 0.64, True, True),  # the more the outlines differ, the more must be alike
        (0.75, 0.97, 0.15 + 2.5 * (0.95 - 0.75), True, False),
        (0.75, 0.97, 2 * (0.15 + 2.5 * (0.95 - 0.75)), False, False),
    ],
)
def test_what_differs_and_what_is_doubtful(overlap, contained, likeness, doubtful, different):
    match = HeadMatch(overlap, contained, likeness)
    assert (match.doubtful, match.differ) == (doubtful, different)


def differ(images):
    return [match.differ for match in match_heads(images) if match]


def test_modalities_of_one_patient():
    for match in match_heads(head(0)):
        assert match.overlap == 1
        assert match.likeness > 0.5
        assert not match.doubtful
        assert not match.differ


@pytest.mark.parametrize("n", [2, 3, 4])
def test_one_modality_of_several_patients(n):
    assert all(differ([head(seed)[0] for seed in range(n)]))


def test_one_image_of_another_patient_is_the_odd_one():
    images = list(head(0))
    images[1] = head(1)[1]
    matches = match_heads(images)
    assert min(range(3), key=lambda n: matches[n].likeness) == 1
    assert matches[1].differ


def test_a_head_that_has_moved():
    images = head(0)
    images[1] = np.roll(images[1], 6, axis=2)
    assert differ(images)[1]


@pytest.mark.parametrize("cut", [np.s_[0, :16], np.s_[0, :, 30:], np.s_[2, ..., :14]])
def test_a_head_that_is_cut_off_is_no_other(cut):
    images = head(0)
    images[cut] = 0
    assert not any(match.doubtful for match in match_heads(images))


def test_surroundings_may_have_any_value():
    images = head(0)
    images[1] = (images[1] - images[1].mean()) / images[1].std()
    assert differ(images) == [False] * 3
    images[1] = head(1)[1] - 7
    assert differ(images)[1]


def test_heads_that_do_not_touch():
    images = np.zeros((2, 40, 40, 40), np.float32)
    noise = np.random.default_rng(0).normal(50, 5, (2, 12, 12, 12))
    images[0, 4:16, 4:16, 4:16], images[1, 24:36, 24:36, 24:36] = noise
    assert differ(images) == [True, True]


def test_nothing_is_said_where_nothing_is_known():
    rng = np.random.default_rng(0)
    assert match_heads(rng.normal(size=(2, 8, 8, 8))) == [None, None]  # no blank surroundings
    assert match_heads(head(0)[:, :1]) == [None] * 3  # one slice
    assert match_heads(head(0)[:1]) == [None]
    masks = head(0) > 0
    assert match_heads([masks[0], head(1)[0]]) == [None, None]
