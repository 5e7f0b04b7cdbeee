"""The arithmetic behind swapped modalities, on features drawn at will."""

import numpy as np
import pytest
from scipy.stats import t as student

from nnunetv2_d2net.base.exchanges import _gain, best_exchange, find_exchanges, fit_reference, references
from nnunetv2_d2net.base.features import measure_features


def draw(n, places, rng):
    """Features of ``n`` cases whose images lie at the given places; pairs say nothing."""
    m, n_single = np.shape(places)
    features = np.full((n, m, m, n_single + 2), np.nan)
    features[:, range(m), range(m), :-2] = np.array(places, float) + rng.normal(0, 0.1, (n, m, n_single))
    return features


def test_the_gain_is_a_difference_of_log_likelihoods():
    rng = np.random.default_rng(0)
    features = draw(30, [[0.0, 0.0], [1.0, 2.0]], rng)
    gain = _gain(features[0], fit_reference(features), {0: 0, 1: 1}, {0: 1, 1: 0})
    single = features[:, [0, 1], [0, 1], :-2]
    place, spread = np.median(single, 0), 1.4826 * np.median(np.abs(single - np.median(single, 0)), 0)
    spread = np.maximum(spread, np.median(spread, 0) / 2)
    # scipy's density has a constant that cancels
    own = student.logpdf((single[0] - place) / spread, 4) - np.log(spread)
    other = student.logpdf((single[0] - place[::-1]) / spread[::-1], 4) - np.log(spread[::-1])
    assert gain == pytest.approx(other.sum() - own.sum())
    assert gain < 0


def test_a_name_that_the_case_lacks_fits_better_where_it_says_more():
    """Both modalities have the same place, one of them a tenth of the other's spread."""
    features = np.full((2, 2, 8), np.nan)
    features[1, 1, 0] = 0
    spread = np.ones((2, 2, 8))
    spread[1, 1] = 10
    found = best_exchange(features, (np.zeros((2, 2, 8)), spread), 1.0)
    assert found.names_of == {1: 0}
    assert found.gain == pytest.approx(np.log(10))
    assert best_exchange(features[::-1, ::-1], (np.zeros((2, 2, 8)), spread), 1.0) is None


def test_places_and_spreads_are_medians_and_none_is_much_narrower_than_the_typical_one():
    steps = np.array([-3, -1, -1, 0, 1, 1, 3])  # of which the median is 0, and 1 without its sign
    features = np.full((7, 3, 3, 3), np.nan)
    for m, scales in enumerate([(1, 100, 0), (1, 100, 0), (0.1, 100, 0)]):
        features[:, m, m] = 7 + steps[:, None] * scales
    place, spread = fit_reference(features)
    own = np.arange(3)
    np.testing.assert_allclose(place[own, own], np.full((3, 3), 7))
    expected = 1.4826 * np.array([[1, 100, 0], [1, 100, 0], [0.5, 100, 0]])
    np.testing.assert_allclose(spread[own, own], np.maximum(expected, 0.01))
    assert np.isfinite(fit_reference(features[:5])[0][own, own]).all()
    assert np.isnan(fit_reference(features[:4])[0]).all()


def test_pairs_count_where_images_alone_say_nothing():
    rng = np.random.default_rng(0)
    features = draw(20, [[0.0], [0.0]], rng)
    features[:, 0, 1, -2:] = np.stack((rng.normal(0.5, 0.05, 20), rng.normal(0.6, 0.05, 20)), 1)
    features[:, 1, 0, -2:] = features[:, 0, 1, -2:] * (1, -1)
    assert find_exchanges(features) == [None] * 20
    features[4] = features[4].transpose(1, 0, 2)
    found = find_exchanges(features)
    assert found[4] is not None
    assert found[4].names_of == {0: 1, 1: 0}
    assert [exchange for n, exchange in enumerate(found) if n != 4] == [None] * 19


def test_modalities_that_look_alike_raise_no_alarm():
    rng = np.random.default_rng(0)
    assert find_exchanges(draw(100, np.zeros((4, 9)), rng)) == [None] * 100


def test_a_modality_of_few_cases_is_not_compared_with():
    rng = np.random.default_rng(0)
    features = draw(20, [[0.0] * 5, [3.0] * 5], rng)
    features[4:, 1, 1] = np.nan
    features[7] = features[0, ::-1, ::-1]
    assert find_exchanges(features)[7] is None
    features[4:6, 1, 1, :-2] = 3.0
    assert find_exchanges(features)[7] is not None


def test_a_case_is_left_out_of_its_own_comparison_in_small_cohorts():
    features = draw(51, [[0.0], [1.0]], np.random.default_rng(0))
    small, large = list(references(features[:50])), list(references(features))
    for n, (place, spread) in enumerate(small):
        without = fit_reference(np.delete(features[:50], n, 0))
        np.testing.assert_array_equal(place, without[0])
        np.testing.assert_array_equal(spread, without[1])
    assert len(large) == 51
    assert all(reference is large[0] for reference in large)


@pytest.mark.parametrize("n", [20, 60])  # left out of its own comparison, and not
def test_several_swapped_cases_do_not_hide_each_other(n):
    rng = np.random.default_rng(0)
    features = draw(n, [[0.0] * 5, [3.0] * 5, [1.0] * 5], rng)
    features[:4] = features[:4, [1, 0, 2]][:, :, [1, 0, 2]]
    found = [k for k, exchange in enumerate(find_exchanges(features)) if exchange is not None]
    assert found == [0, 1, 2, 3]


def test_features_ignore_scale_and_offset():
    rng = np.random.default_rng(0)
    images = {0: rng.gamma(2, size=(10, 10, 10)), 2: rng.gamma(4, size=(10, 10, 10))}
    labels = np.zeros((10, 10, 10))
    labels[4:8, 4:8, 4:8] = 1
    head = np.ones((10, 10, 10), bool)
    measured = measure_features(images, head, labels, (1, 2), 3)
    other = {m: image * 70 + 900 for m, image in images.items()}
    np.testing.assert_allclose(measure_features(other, head, labels, (1, 2), 3), measured, atol=1e-4)
    assert np.isfinite(measured[[0, 2], [0, 2], :-3]).all()
    assert np.isfinite(measured[[0, 2], [2, 0], -2:]).all()
    assert np.isnan(measured[1]).all()
    assert np.isnan(measured[0, 0, -3])  # nothing is labeled 2
    exchanged = measure_features({0: images[2], 2: images[0]}, head, labels, (1, 2), 3)
    np.testing.assert_allclose(exchanged, measured[[2, 1, 0]][:, [2, 1, 0]], atol=1e-6)
