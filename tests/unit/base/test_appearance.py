"""Cases that look like a cohort's, and cases that do not."""

import json

import numpy as np
import pytest

from nnunetv2_d2net.base.appearance import Appearance, CohortAppearance, appearance_of

NAMES = ("FLAIR", "T1", "T2")
NOTHING = np.full((3, 3, 8), np.nan)


def head(seed, *, shape=(20, 22, 18), scale=1.0):
    """A ball with an inner ball, which is bright, dark or middling in the three modalities."""
    rng = np.random.default_rng(seed)
    middle = (np.array(shape) - 1) / 2
    distance = np.linalg.norm((np.indices(shape).T - middle).T / scale, axis=0)
    inside, inner = distance < 8, distance < rng.uniform(4, 5)
    tissue = [(4, 1), (2, 3), (1, 6)]
    images = [np.where(inner, a, b) + rng.gamma(2, 0.2, shape) for a, b in tissue]
    return np.stack([np.where(inside, image * rng.uniform(1, 900), 0) for image in images]).astype(np.float32)


def look(images, available=(True, True, True), spacing=(5.0, 5.0, 5.0)):
    return appearance_of(images, available, spacing)


@pytest.fixture(scope="module")
def cohort():
    return CohortAppearance.of([look(head(seed)) for seed in range(12)])


@pytest.mark.parametrize("available", [(True, True, True), (True, False, True), (False, True, False)])
def test_cases_like_the_cohorts_raise_no_alarm(cohort, available):
    assert cohort.tells_modalities
    assert [cohort.doubts(look(head(seed), available), NAMES) for seed in range(20, 30)] == [[]] * 10


def test_swapped_images_are_told(cohort):
    (line,) = cohort.doubts(look(head(20)[[0, 2, 1]]), NAMES)
    assert line.startswith(
        "has T1 that looks like T2 and T2 that looks like T1 by the intensities of the training data"
    )


def test_one_image_in_the_place_of_an_absent_one_is_told(cohort):
    (line,) = cohort.doubts(look(head(20)[[2, 1, 0]], (True, False, False)), NAMES)
    assert line.startswith("has FLAIR that looks like T2 by")


@pytest.mark.parametrize(
    "change",
    [
        lambda image: np.where(image == 0, 0, 1.0 + (image > np.median(image[image > 0]))),
        lambda image: np.where(np.random.default_rng(0).random(image.shape) < 1 / 30, 30 * image, image),
    ],
    ids=["mask", "bright voxels"],
)
def test_intensities_like_none_of_the_cohorts_are_told(cohort, change):
    images = head(20)
    images[1] = change(images[1])
    (line,) = cohort.doubts(look(images, (False, True, False)), NAMES)
    assert line.startswith("has T1 with intensities like none of the training data")


def test_large_and_small_heads_are_told_in_liters(cohort):
    low, high = cohort.head_ml
    assert 200 < low <= high < 400  # a ball of 40 mm
    for scale in (1.2, 0.8):
        (line,) = cohort.doubts(look(head(20, scale=scale)), NAMES)
        assert line.startswith("has a head of 0.")
        assert "the training data 0.3 to 0.3 l" in line


def test_noise_around_the_head_is_told_where_no_training_case_has_it(cohort):
    images = head(20) + np.random.default_rng(0).rayleigh(0.01, (3, 20, 22, 18)).astype(np.float32)
    case = look(images)
    assert not case.plain
    assert any(line.startswith(("has no plain background", "has a head of")) for line in cohort.doubts(case, NAMES))
    noisy = cohort._replace(plain=False, head_ml=(case.head_ml, case.head_ml))
    assert not any("background" in line for line in noisy.doubts(case, NAMES))


@pytest.mark.parametrize(
    ("head_ml", "plain", "skull"), [(2200, True, False), (2201, True, True), (1400, False, True), (3000, False, True)]
)
def test_who_is_skull_stripped(head_ml, plain, skull):
    one, small = Appearance(NOTHING, head_ml, plain), Appearance(NOTHING, 900, plain=True)
    assert one.has_skull == skull
    assert not small.has_skull
    for cases in ([one], [small, one], [one, small]):
        assert CohortAppearance.of(cases).is_of_brains == (not skull)


def test_few_cases_say_nothing_about_names():
    few = CohortAppearance.of([look(head(seed)) for seed in range(4)])
    assert not few.tells_modalities
    assert few.doubts(look(head(20)[[0, 2, 1]]), NAMES) == []


def test_a_cohort_goes_through_json(cohort):
    few = CohortAppearance.of([look(head(seed), (seed < 3, True, True)) for seed in range(6)])
    for one in (cohort, few):
        again = CohortAppearance.from_json(json.loads(json.dumps(one.as_json(), allow_nan=False)))
        for part, other in zip(again.reference, one.reference, strict=True):
            np.testing.assert_array_equal(part, other)
        assert again[1:] == one[1:]


@pytest.mark.parametrize(
    "change",
    [
        {"place": 1},
        {"place": [[["x"]]]},
        {"spread": [[[1.0]]]},
        {"place": [[1.0]], "spread": [[1.0]]},
        {"place": [[[1.0], [1.0]]], "spread": [[[1.0], [1.0]]]},
        {"head (ml)": [1]},
        {"head (ml)": None},
        {"place": {}},
    ],
)
def test_something_else_is_no_cohort(cohort, change):
    with pytest.raises((TypeError, ValueError)):
        CohortAppearance.from_json(cohort.as_json() | change)


def test_a_case_is_measured_on_a_grid_of_at_most_96_voxels_along_each_axis():
    images = np.zeros((2, 97, 20, 200))
    images[:, 20:60, 4:16, 60:120] = np.random.default_rng(0).random((2, 40, 12, 60)) + 1
    case = appearance_of(images, (True, True), (1.0, 2.0, 0.5))
    assert case.head_ml == 40 * 12 * 60 / 1000
    coarse = appearance_of(images[:, ::2, :, ::3], (True, True), (2.0, 2.0, 1.5))
    assert case[1:] == coarse[1:]
    np.testing.assert_array_equal(case.features, coarse.features)
    assert not np.array_equal(case.features[0, 0, :5], appearance_of(images[:, :90], (True, True), (1, 1, 1)).features)


@pytest.mark.filterwarnings("error")
def test_a_placeholder_has_no_correlation():
    images = head(0)
    images[1] = images[0] > 0
    features = look(images).features
    assert np.isnan(features[[0, 1], [1, 2], -2]).all()
    assert np.isfinite(features[0, 2, -2])


class TestWords:
    """In full, at their limits."""

    def cohort(self, n=1, *, plain=True):
        reference = np.zeros((n, n, 8)), np.ones((n, n, 8))
        return CohortAppearance(reference, (1151.0, 1451.0), plain)

    def case(self, *values, head_ml=1300.0, plain=True):
        features = np.full((len(values), len(values), 8), np.nan)
        for m, value in enumerate(values):
            features[m, m, 1] = value
        return Appearance(features, head_ml, plain)

    @pytest.mark.parametrize(("head_ml", "told"), [(4051.0, "4.1"), (700.0, "0.7")])
    def test_of_a_head(self, head_ml, told):
        line = f"has a head of {told} l, the training data 1.2 to 1.5 l: is it skull-stripped and whole, as they were?"
        assert self.cohort().doubts(self.case(0, head_ml=head_ml, plain=False), ["T1"]) == [line]
        for limit in (1151 / 1.5, 1451 * 1.5):
            assert self.cohort().doubts(self.case(0, head_ml=limit), ["T1"]) == []

    def test_of_a_background(self):
        case = self.case(0, plain=False)
        line = "has no plain background, as all training cases have: is it skull-stripped, as they were?"
        assert self.cohort().doubts(case, ["T1"]) == [line]
        assert self.cohort(plain=False).doubts(case, ["T1"]) == []

    def test_of_strange_intensities(self):
        assert self.cohort(2).doubts(self.case(20.0, -20.0), ["T1", "T2"]) == []
        assert self.cohort(2).doubts(self.case(20.1, -20.1), ["T1", "T2"]) == [
            "has T1 and T2 with intensities like none of the training data: is it an image of the scanner, neither cut "
            "off, nor a mask, nor with single voxels far brighter than the rest?"
        ]
        assert self.cohort(2).doubts(self.case(0, 30), ["T1", "T2"])[0].startswith("has T2 with intensities")

    def test_of_exchanged_names(self):
        cohort = self.cohort(2)
        cohort.reference[0][1, 1] = 1000
        (line,) = cohort.doubts(self.case(1000, 0), ["T1", "T2"])
        assert line == (
            "has T1 that looks like T2 and T2 that looks like T1 by the intensities of the training data (log odds 62):"
            " see that no image is given as another modality"
        )
