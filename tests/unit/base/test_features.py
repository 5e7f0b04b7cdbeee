"""What is measured in images, against plain formulas."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from nnunetv2_d2net.base.features import HeadMask, find_head, join_heads, measure_features, widen_rough


def ball(shape=(12, 13, 14), radius=4.0):
    middle = (np.array(shape) - 1) / 2
    return np.linalg.norm((np.indices(shape).T - middle).T, axis=0) < radius


class TestHead:
    @pytest.mark.parametrize("background", [0, -7, 3])
    def test_it_is_what_differs_from_a_plain_background(self, background):
        inside = ball()
        image = np.where(inside, np.arange(inside.size).reshape(inside.shape) + 5.0, background)
        image[6, 6, 6] = background
        found = find_head(image)
        assert found.exact
        assert np.array_equal(found.voxels, image != background)

    def test_it_may_touch_the_border(self):
        image = np.zeros((10, 10, 10))
        image[2:-2, 4:, 4:] = 5
        assert np.array_equal(find_head(image).voxels, image == 5)

    @pytest.mark.parametrize("shape", [(30, 30, 30), (2, 30, 30), (1, 30, 30)])
    def test_it_may_be_most_of_the_image(self, shape):
        """Two slices have no ends, and no border but their edges."""
        image = np.full(shape, 5.0)
        image[..., [0, -1]] = image[..., [0, -1], :] = 0
        if shape[0] > 2:
            image[[0, -1]] = 0
        assert np.array_equal(find_head(image).voxels, image == 5)

    def test_three_slices_have_two_ends(self):
        image = np.full((3, 30, 30), 5.0)
        image[:, 1:-1, 1:-1] = 0
        assert np.array_equal(find_head(image).voxels, image == 5)

    def test_in_one_slice_its_edges_are_the_border(self):
        image = np.zeros((1, 9, 9))
        image[0, 2:7, 2:7] = np.arange(1, 26).reshape(5, 5)
        assert np.array_equal(find_head(image).voxels, image > 0)
        assert find_head(image).exact

    def test_an_image_of_two_voxels_along_each_axis_is_all_border(self):
        found = find_head(np.array([[[1.0, 0], [0, 0]], [[0, 0], [0, 2]]]))
        assert found.exact
        assert np.argwhere(found.voxels).tolist() == [[0, 0, 0], [1, 1, 1]]

    def test_half_a_border_that_is_alike_is_no_plain_background(self):
        assert find_head(np.array([[[0, 0.0, 0], [0, 9, 0], [5, 6, 7]]])).exact
        assert not find_head(np.array([[[0, 0.0, 0], [0, 9, 3], [5, 6, 7]]])).exact  # each corner is on two edges

    def test_among_noise_it_is_what_is_bright_with_its_holes(self):
        inside = ball((9, 24, 24), 8)
        image = np.where(inside, 100.0, 0) + np.random.default_rng(0).normal(0, 4, inside.shape)
        image[4, 11:13, 11:13] = 0  # a ventricle, within its slice
        found = find_head(image)
        assert found.exact is False
        assert found.voxels.dtype == bool
        assert np.array_equal(found.voxels, inside)

    @pytest.mark.parametrize("kind", ["f4", ">f4", ">i2", "u1", "i8", "f8"])
    def test_voxels_may_be_of_any_type(self, kind):
        inside = ball((9, 24, 24), 8)
        image = np.where(inside, 100, 0) + np.random.default_rng(0).integers(0, 9, inside.shape)
        assert np.array_equal(find_head(image.astype(kind)).voxels, inside)

    def test_several_images_show_what_any_of_them_shows(self):
        one, other = np.array([[[True, False, False]]]), np.array([[[False, False, True]]])
        both = join_heads([HeadMask(one, exact=True), HeadMask(other, exact=True)])
        assert both.voxels.tolist() == [[[True, False, True]]]
        assert both.exact
        assert not join_heads([HeadMask(one, exact=True), HeadMask(other, exact=False)]).exact

    def test_only_a_rough_mask_is_made_larger(self):
        point = np.zeros((9, 9, 9), bool)
        point[4, 4, 4] = True
        assert widen_rough(HeadMask(point, exact=True)) is point
        steps = np.abs(np.indices(point.shape) - 4).sum(0)
        assert np.array_equal(widen_rough(HeadMask(point, exact=False)), steps <= 3)
        assert np.array_equal(widen_rough(HeadMask(point, exact=False), 1), steps <= 1)
        ring = np.zeros((1, 15, 15), bool)
        ring[0, 3:12, 3:12] = True
        ring[0, 4:11, 4:11] = False
        assert widen_rough(HeadMask(ring, exact=False), 1)[0, 3:12, 3:12].all()


class TestFeatures:
    """Columns: five quantiles of the histogram, rim, labels, then correlation and asymmetry of pairs."""

    @pytest.fixture
    def case(self):
        rng = np.random.default_rng(0)
        inside = ball()
        base = rng.gamma(2, 1, inside.shape)
        images = {0: base + rng.normal(0, 0.5, inside.shape), 2: 700 - 50 * base**1.5 + rng.normal(0, 9, inside.shape)}
        labels = np.zeros(inside.shape, int)
        labels[4:8, 4:9, 4:8] = 1
        labels[4, 4, 4] = 2
        return images, inside, labels

    @staticmethod
    def scaled(intensities):
        low, middle, high = np.percentile(intensities, [5, 50, 95])
        return (intensities - middle) / (high - low)

    def test_of_each_image(self, case):
        images, inside, labels = case
        images[2] = images[2] / 1e5  # of any scale
        found = measure_features(images, inside, labels, (1, 2), 3)
        assert found.shape == (3, 3, 10)
        unlabeled = measure_features(images, inside, None, (1, 2), 3)
        np.testing.assert_array_equal(np.delete(unlabeled, (6, 7), 2), np.delete(found, (6, 7), 2))
        assert np.isnan(unlabeled[..., 6:8]).all()
        for m, image in images.items():
            values, marked = image[inside], labels[inside] == 1
            p = dict(zip((1, 5, 25, 50, 75, 95, 99), np.percentile(values, (1, 5, 25, 50, 75, 95, 99)), strict=True))
            shape = [(p[q] - p[5]) / (p[95] - p[5]) for q in (1, 25, 50, 75, 99)]
            np.testing.assert_allclose(found[m, m, :5], shape, rtol=1e-6)
            relative = self.scaled(values)
            contrast = np.median(relative[marked]) - np.median(relative[~marked])
            assert found[m, m, 6] == pytest.approx(contrast, rel=1e-5)
        assert np.isnan(found[[0, 2], [0, 2], 7:]).all(), "one voxel makes no contrast"

    @pytest.mark.parametrize("alike", [False, True])
    def test_of_pairs(self, case, alike):
        images, inside, _ = case
        if alike:
            images[2] = images[0] + np.random.default_rng(1).gamma(2, 0.1, inside.shape)
        found = measure_features(images, inside, None, (), 3)
        one, other = images[0][inside], images[2][inside]
        low, middle, high = np.percentile(self.scaled(one) - self.scaled(other), (0.5, 50, 99.5))
        asymmetry = (high + low - 2 * middle) / (high - low)
        np.testing.assert_allclose(found[0, 2, -2:], [spearmanr(one, other)[0], asymmetry], rtol=1e-5)
        np.testing.assert_allclose(found[2, 0, -2:], [spearmanr(one, other)[0], -asymmetry], rtol=1e-5)
        assert np.isnan(found[0, 2, :-2]).all()
        assert np.isnan(found[1]).all()
        assert np.isnan(found[:, 1]).all()

    def test_the_longer_bright_tail(self):
        rng = np.random.default_rng(0)
        head = np.ones((10, 10, 10), bool)
        even, tailed = rng.normal(0, 1, head.shape), rng.gamma(1, 1, head.shape)
        found = measure_features({0: tailed, 1: even}, head, None, (), 2)
        assert found[0, 1, -1] > 0.1
        assert found[1, 0, -1] < -0.1

    @pytest.mark.parametrize("shape", [(1, 21, 21), (21, 21, 21)])
    def test_the_rim_is_the_outermost_part(self, shape):
        """30 % of the head, with the whole depth in which that ends: two voxels of 19; of one slice by its edges."""
        head = np.ones(shape, bool)
        head[:, [0, -1]] = head[:, :, [0, -1]] = False
        if shape[0] > 1:
            head[[0, -1]] = False
        rim = np.abs(np.indices(shape)[int(shape[0] == 1) :] - 10).max(0) >= 8
        image = np.where(rim, 10.0, 30.0) + np.random.default_rng(0).normal(0, 1, shape)
        found = measure_features({0: image}, head, None, (), 1)
        relative = self.scaled(image[head])
        at_rim = rim[head]
        assert found[0, 0, 5] == pytest.approx(np.median(relative[at_rim]) - np.median(relative[~at_rim]), rel=1e-5)

    @pytest.mark.parametrize(("n_voxels", "known"), [(29, False), (30, True)])
    def test_a_head_of_few_voxels_says_nothing(self, n_voxels, known):
        head = np.arange(100).reshape(4, 5, 5) < n_voxels
        found = measure_features({0: np.random.default_rng(0).random(head.shape)}, head, None, (), 1)
        assert np.isfinite(found[0, 0, :5]).all() == np.isfinite(found).any() == known

    @pytest.mark.parametrize(("n_voxels", "known"), [(29, False), (30, True), (70, True), (71, False)])
    def test_a_label_or_a_rest_of_few_voxels_makes_no_contrast(self, n_voxels, known):
        head, labels = np.ones((4, 5, 5), bool), np.where(np.arange(100).reshape(4, 5, 5) < n_voxels, 3, 0)
        found = measure_features({0: np.random.default_rng(0).random(head.shape)}, head, labels, (3,), 1)
        assert np.isfinite(found[0, 0, 6]) == known

    def test_an_image_that_is_constant_has_a_flat_histogram(self):
        head = np.ones((4, 5, 5), bool)
        found = measure_features({0: np.full(head.shape, 7.0)}, head, None, (), 1)
        assert found[0, 0, :5].tolist() == [0] * 5

    def test_large_heads_are_ranked_by_some_of_their_voxels(self):
        """Every second of 100,000 here; of the others nothing is known to the correlation."""
        rng = np.random.default_rng(0)
        head = np.ones((10, 100, 100), bool)
        one, other = rng.random((2, *head.shape))
        one.ravel()[::2] = other.ravel()[::2]
        assert measure_features({0: one, 1: other}, head, None, (), 2)[0, 1, -2] == pytest.approx(1)
        head[0, 0, 0] = False  # fewer than twice as many: all are ranked
        assert measure_features({0: one, 1: other}, head, None, (), 2)[0, 1, -2] == pytest.approx(0.5, abs=0.02)
