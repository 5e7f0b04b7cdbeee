import math

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.patient.registration import describe, register
from tests.one_patient import draw_patient


@pytest.fixture(scope="module")
def fine():
    images = draw_patient((40, 48, 44), (3.0, 3.0, 3.0), ("FLAIR", "T1"))
    return {name: sitk.Cast(image, sitk.sitkFloat32) for name, image in images.items()}


def turned(image, degrees, shift):
    """The image as if the head had lain otherwise, and the transform from the old points to the new ones."""
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    transform = sitk.Euler3DTransform(middle, 0.0, 0.0, math.radians(degrees), shift)
    return sitk.Resample(image, image, transform.GetInverse(), sitk.sitkLinear, 0.0), transform


def largest_error(found, true, image):
    """Over the corners of a box inside the head, in mm."""
    middle = np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
    corners = [(middle + 30 * np.array(c)).tolist() for c in np.ndindex(2, 2, 2)]
    return max(math.dist(found.TransformPoint(c), true.TransformPoint(c)) for c in corners)


@pytest.mark.parametrize(("degrees", "shift"), [(8.0, (6.0, -4.0, 3.0)), (0.0, (0.0, 0.0, 0.0))])
def test_a_turned_head_is_found(fine, degrees, shift):
    moving, true = turned(fine["T1"], degrees, shift)
    found = register(moving, fine["FLAIR"])
    assert largest_error(found, true, moving) < 1.5
    again = register(moving, fine["FLAIR"])
    assert largest_error(found, again, moving) < 1e-6


def test_images_that_lie_far_apart_begin_with_their_centers_on_each_other(fine):
    moving = sitk.Image(fine["T1"])
    moving.SetOrigin((400.0, -300.0, 900.0))
    found = register(moving, fine["FLAIR"])
    true = sitk.TranslationTransform(3, np.subtract(moving.GetOrigin(), fine["FLAIR"].GetOrigin()).tolist())
    assert largest_error(found, true, fine["FLAIR"]) < 1.5


def test_words(fine):
    _, transform = turned(fine["T1"], 8.0, (3.0, 0.0, 4.0))
    assert describe(transform, fine["T1"]) == "turned by 8.0 degrees and moved by 5.0 mm"
