import numpy as np
import pytest

from nnunetv2_d2net.base.heads import HeadMatch, doubts, match_heads

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


@pytest.mark.parametrize("swapped", [(1, 3), (0, 1), (2, 3)])
def test_two_patients_of_whom_each_has_half(swapped):
    """The pairs of each patient, alike as they are, must not hide that the others are not."""
    images = [*head(0), head(0)[0] ** 2]
    assert doubts(match_heads(images)) == []
    for n in swapped:
        images[n] = [*head(1), head(1)[0] ** 2][n]
    matches = match_heads(images)
    own = [tuple(sorted({n, *match.beside})) for n, match in enumerate(matches)]
    assert {own[n] for n in swapped} == {swapped}
    assert all(match.differ for match in matches)
    ((n, match),) = doubts(matches)
    one, two = ("ABCD"[i] for i in own[n])
    three, four = (name for name in "ABCD" if name not in (one, two))
    assert f"{'ABCD'[n]} {match.told(n, 'ABCD', 'it')}" in [
        f"{first} and {second} show another head than {three} and {four}" for first, second in (one + two, two + one)
    ]


def test_a_group_that_is_the_most_is_compared_with_itself_too():
    images = [*head(0), head(1)[0], head(1)[1]]
    assert [len(match.beside) for match in match_heads(images)] == [0, 0, 0, 1, 1]
    assert doubts(match_heads(images))[0][0] in (3, 4)


def test_what_is_told_of_one_image_alone():
    assert HeadMatch(0.94, 0.9, 0.1).told(1, "ABC", "the others") == "shows another head than the others"
    assert HeadMatch(0.94, 0.9, 0.2).told(1, "ABC", "the others") == "may show another head than the others"


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


def noisy(image, seed):
    rng = np.random.default_rng(seed)
    return np.hypot(image + rng.normal(0, 6, SHAPE), rng.normal(0, 6, SHAPE)).astype(np.float32)


class TestNoise:
    """Heads in air that has noise are told only roughly, and only where that is asked for."""

    def test_one_patient(self):
        images = [noisy(image, n) for n, image in enumerate(head(0))]
        assert match_heads(images) == [None] * 3
        for match in match_heads(images, rough=True):
            assert match.rough
            assert not match.doubtful

    def test_two_patients_and_a_head_that_has_moved(self):
        here = noisy(head(0)[0], 0)
        for other in (noisy(head(1)[1], 1), noisy(np.roll(head(0)[1], 6, 2), 1)):
            match, _ = match_heads([here, other], rough=True)
            assert match.doubtful
            assert not match.differ

    def test_where_there_are_blank_surroundings_they_decide(self):
        images = [head(0)[0], head(1)[1], noisy(head(0)[2], 2)]
        for one in match_heads(images, rough=True)[:2]:
            assert not one.rough
            assert one.differ


class TestNumbers:
    """Boxes of known intensities in blank surroundings."""

    levels = np.repeat(np.arange(32), 16)
    """Each of 32 intensities in 16 voxels, which one bin holds."""
    parity = 100 + 10 * (levels % 2) + np.resize([5, -5], 512)
    """Half of its variance is that of even and odd levels, which in turn say nothing about the levels."""

    @staticmethod
    def box(intensities, shape=(8, 8, 8), border=4):
        return np.pad(np.reshape(intensities, shape).astype(float), border)

    def likeness(self, one, other, shape=(8, 8, 8)):
        first, second = match_heads([self.box(one, shape), self.box(other, shape)])
        assert first == second
        assert (first.overlap, first.contained) == (1, 1)
        return first.likeness

    @pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
    def test_the_share_that_another_images_intensities_explain(self, scale):
        assert self.likeness(self.parity * scale, self.levels + 200) == pytest.approx(0.5, rel=1e-4)

    def test_either_image_may_explain_the_other(self):
        fine = 100 + 40 * self.levels + np.resize([5, -5], 512)  # tells the level; the level does not tell it
        for pair in ((fine, self.levels + 200), (self.levels + 200, fine)):
            assert self.likeness(*pair) == pytest.approx(1)

    def test_intensities_that_differ_by_less_than_a_bin_explain_nothing(self):
        finer = np.repeat(np.arange(64), 8)
        assert self.likeness(100 + 10 * (finer % 2), finer + 200) == pytest.approx(0, abs=1e-3)

    def test_single_bright_voxels_do_not_count(self):
        bright = self.parity.copy()
        bright[[0, 100, 200]] = 1e4
        assert self.likeness(bright, self.levels + 200) == pytest.approx(0.5, abs=0.02)
        flat = np.full(512, 100)
        flat[0] = 1e4
        assert self.likeness(flat, np.roll(flat, 9)) == 0

    def test_a_few_voxels_say_nothing(self):
        one = np.arange(33) + 100
        assert self.likeness(one, one, (33, 1, 1)) == pytest.approx(1, abs=0.01)
        assert self.likeness(one[:32], one[:32], (32, 1, 1)) == 0

    @pytest.mark.parametrize(("n", "likeness"), [(31, 0.5), (40, 1)])
    def test_of_large_heads_every_second_voxel_is_looked_at(self, n, likeness):
        """Of 40 x 40 x 32; here the others alone are not explained."""
        levels = np.repeat(np.arange(32), 40 * n)
        parity = 100 + 10 * (levels % 2) + np.resize([5, -5], levels.size)
        assert self.likeness(parity, levels + 200, (32, 40, n)) == pytest.approx(likeness, rel=1e-4)

    def test_overlap_is_that_where_both_have_something_along_each_axis(self):
        """A box of 8 and one that begins 3 voxels later: 5 in common; beyond, neither counts."""
        one, other = self.box(self.levels + 100), self.box(self.levels + 100)
        for axis in range(3):
            for match in match_heads([one, np.roll(other, 3, axis)]):
                assert (match.overlap, match.contained) == (1, 5 / 8)
        hole = self.box(self.levels + 100)
        hole[4:8, 4:8, 4:8] = 0  # 64 of 512
        for match in match_heads([one, hole]):
            assert match.overlap == pytest.approx(2 * 448 / (512 + 448))
            assert match.contained == 1

    def test_every_second_voxel_along_long_axes(self):
        images = np.zeros((2, 12, 140, 12))
        images[:, 2:10, 20:121, 2:10] = np.random.default_rng(0).random((2, 8, 101, 8)) + 1
        images[1, :, 20:41:2] = 0
        assert match_heads(images) == match_heads(images[:, :, ::2]) != match_heads(images[:, :, 1::2])


class TestSurroundings:
    @pytest.mark.parametrize("shape", [(30, 30, 30), (2, 40, 40)])
    def test_a_head_that_fills_all_but_the_outermost_voxels(self, shape):
        images = np.random.default_rng(0).random((2, *shape)) + 1
        images[..., [0, -1]] = images[..., [0, -1], :] = 0
        images[:, [0, -1]] *= shape[0] == 2  # of which both slices are ends; more of them must be blank
        images[..., 9:] *= shape[0] > 2
        assert None not in match_heads(images)

    def test_one_end_may_be_cut_off(self):
        images = np.zeros((2, 10, 10, 10))
        images[:, :3] = np.random.default_rng(0).random((2, 3, 10, 10)) + 1  # 37 % of the border
        assert None not in match_heads(images)
        images[:, :4] = np.random.default_rng(0).random((2, 4, 10, 10)) + 1  # 43 %
        assert match_heads(images) == [None, None]

    def test_rounding_is_blank(self):
        images = 1000 * head(0).astype(float) + np.random.default_rng(0).random((3, *SHAPE))
        assert [match.overlap for match in match_heads(images)] == [1] * 3

    def test_images_of_which_nothing_is_known_leave_the_others(self):
        noise = np.random.default_rng(0).normal(size=SHAPE)
        matches = match_heads([noise, *head(0), head(0)[0] > 0])
        assert [match is None for match in matches] == [True, False, False, False, True]
        assert matches[1:4] == match_heads(head(0))
