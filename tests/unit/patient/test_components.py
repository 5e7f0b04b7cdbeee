import numpy as np
import pytest

from nnunetv2_d2net.patient.components import BELIEVED, believed_components

HEALTHY = 100.0


def patient(*lesions):
    """A brain with boxes of a given number of voxels along x and brightness, one above the other."""
    image, labels = np.full((4 * len(lesions) + 2, 12, 40), HEALTHY), np.zeros((4 * len(lesions) + 2, 12, 40), np.uint8)
    image[:, 10:] = 0  # air
    for number, (length, brightness) in enumerate(lesions):
        box = slice(4 * number, 4 * number + 2), slice(2, 4), slice(1, 1 + length)
        image[box], labels[box] = brightness, 1 + number % 3
    return labels, image


def kept(*lesions):
    labels, image = patient(*lesions)
    left = believed_components(labels, image)
    assert left.dtype == labels.dtype
    assert set(np.unique(np.where(left > 0, left - labels, 0))) <= {0}
    return [bool(left[4 * number].any()) for number in range(len(lesions))]


@pytest.mark.parametrize(
    ("lesions", "expected"),
    [
        ([(30, 180)], [True]),
        ([(30, 180), (30, 105)], [True, False]),  # as large, but faint
        ([(30, 180), (2, 180)], [True, False]),  # as bright, but small
        ([(30, 180), (10, 160)], [True, True]),
        ([(2, 300), (30, 150), (30, 90)], [True, True, False]),  # darker than the brain
        ([(10, 90), (30, 80)], [True, True]),  # nothing to go by
        ([], []),
    ],
)
def test_what_is_large_and_bright_stays(lesions, expected):
    assert kept(*lesions) == expected


def test_the_bound_is_a_share_of_the_heaviest():
    just, not_quite = (int(30 * BELIEVED) + extra for extra in (0, -1))
    assert kept((30, 200), (just, 200), (not_quite, 200)) == [True, True, False]


def test_labels_that_touch_by_a_corner_are_one_component():
    labels, image = patient((30, 200))
    labels[2, 4, 31] = 2
    image[2, 4, 31] = HEALTHY
    assert np.array_equal(believed_components(labels, image), labels)


def test_the_brightness_of_the_image_does_not_matter():
    labels, image = patient((30, 180), (30, 105), (3, 190))
    assert np.array_equal(believed_components(labels, image), believed_components(labels, 7 * image))
