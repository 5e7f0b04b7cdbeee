import json

import numpy as np
import pytest

from nnunetv2_d2net.base.appearance import APPEARANCE, CohortAppearance, appearance_of
from nnunetv2_d2net.plugin.prediction.likeness import (
    LOOKS,
    compared_with_training,
    looks_unlike,
    read_appearance,
    read_fingerprint,
    unlike_training,
)
from tests.unit.base.test_appearance import NAMES, head

TRAINED = {"spacings": [[1, 1, 1], [1.5, 1, 1]], "shapes_after_crop": [[140, 170, 130], [100, 160, 140]]}


def lines(spacing=(1, 1, 1), shape=(140, 170, 130)):
    return unlike_training(
        TRAINED, {"spacing": list(spacing), "shape_after_cropping_and_before_resampling": tuple(shape)}
    )


def test_a_case_like_the_others():
    assert lines() == []
    assert lines((1.5, 1, 1), (120, 160, 120)) == []


@pytest.mark.parametrize("spacing", [(2.3, 1, 1), (1, 1, 6), (1, 0.6, 1), (0.1, 0.1, 0.1)])
def test_voxels_of_another_size(spacing):
    size = [int(n / edge) for n, edge in zip((140, 170, 130), spacing, strict=True)]
    (line,) = lines(spacing, size)
    assert line.startswith("has voxels of ")
    assert line.endswith("mm, the training data of 1 to 1.5 mm")


@pytest.mark.parametrize(("edge", "is_told"), [(1.0, False), (0.5, False), (4.5, True)])
def test_voxels_that_the_network_never_sees_so_fine(edge, is_told):
    """The model of the package: trained on 2 mm, it sees 2.4 mm, and patients have 1 mm."""
    case = {"spacing": [edge] * 3, "shape_after_cropping_and_before_resampling": [round(140 / edge)] * 3}
    trained = {"spacings": [[2, 2, 2]], "shapes_after_crop": [[70, 70, 70]]}
    assert bool(unlike_training(trained, case, 2.4)) == is_told
    assert unlike_training(trained, case, 1.0)


@pytest.mark.parametrize("shape", [(240, 240, 155), (60, 170, 130)])
def test_heads_with_skull_and_parts_of_heads(shape):
    (line,) = lines(shape=shape)
    assert "the training data 3.1 to 3.4 l" in line
    assert "is it skull-stripped" in line


def test_nothing_is_said_where_nothing_is_known(tmp_path):
    assert read_fingerprint(tmp_path) == {}
    assert unlike_training({}, {"spacing": [9, 9, 9]}) == []
    file = tmp_path / "dataset_fingerprint.json"
    for content in (
        "no JSON",
        "[]",
        '{"spacings": 1, "shapes_after_crop": []}',
        '{"spacings": [["a"], 1], "shapes_after_crop": []}',
    ):
        file.write_text(content, encoding="utf-8")
        assert read_fingerprint(tmp_path) == {}
    file.write_text(json.dumps(TRAINED), encoding="utf-8")
    assert read_fingerprint(tmp_path) == TRAINED


@pytest.fixture(scope="module")
def cohort():
    return CohortAppearance.of([appearance_of(head(seed), (True,) * 3, (5, 5, 5)) for seed in range(8)])


def test_how_a_case_looks_goes_with_its_properties(cohort):
    assert looks_unlike(cohort, head(20), (True,) * 3, (5, 5, 5), NAMES) == {LOOKS: []}
    found = looks_unlike(cohort, head(20)[[1, 0, 2]], (True,) * 3, (5, 5, 5), NAMES)
    (line,) = found[LOOKS]
    assert line.startswith("has FLAIR that looks like T1 and T1 that looks like FLAIR")
    case = {"spacing": (1, 1, 9), "shape_after_cropping_and_before_resampling": (999, 999, 999), **found}
    voxels, told = unlike_training(TRAINED, case)  # and no third line on the box
    assert voxels.startswith("has voxels of")
    assert told == line


def test_a_background_that_is_not_0_is_told_where_the_training_data_are_masked(cohort):
    images = head(20)
    assert looks_unlike(cohort, images, (True,) * 3, (5, 5, 5), NAMES, masked=True) == {LOOKS: []}
    images[0][images[0] == 0] = -1000
    images[1][images[1] == 0] = 5
    arguments = images, (True, False, True), (5, 5, 5), NAMES
    (line,) = looks_unlike(cohort, *arguments, masked=True)[LOOKS]
    assert line == f"has a background in {NAMES[0]} of -1000, the training data of 0: write 0 outside the head"
    assert looks_unlike(cohort, *arguments) == {LOOKS: []}
    noise = np.random.default_rng(0).uniform(1, 9, images.shape)
    noisy = np.where(head(20) == 0, noise, head(20))
    (line,) = looks_unlike(cohort, noisy, (True,) * 3, (5, 5, 5), NAMES, masked=True)[LOOKS]
    assert line.startswith("has no plain background")  # and nothing of its first voxel


def test_what_is_compared_depends_on_what_was_noted(cohort):
    assert compared_with_training({}, None) == []
    assert compared_with_training(TRAINED, None) == ["voxel size", "field of view"]
    assert compared_with_training(TRAINED, cohort)[1:] == ["head and background", "looks of the modalities"]
    few = CohortAppearance.of([appearance_of(head(0), (True,) * 3, (5, 5, 5))])
    assert compared_with_training(TRAINED, few) == ["voxel size", "head and background"]


def test_looks_of_another_form_are_not_compared(cohort):
    assert read_appearance({}) is None
    assert read_appearance({APPEARANCE: [1]}) is None
    assert looks_unlike(None, head(20), (True,) * 3, (5, 5, 5), NAMES) == {}
    two = CohortAppearance.of([appearance_of(head(0)[:2], (True,) * 2, (5, 5, 5))])
    assert looks_unlike(two, head(20), (True,) * 3, (5, 5, 5), NAMES) == {}
    found = read_appearance(json.loads(json.dumps({APPEARANCE: cohort.as_json()})))
    assert found is not None
    np.testing.assert_array_equal(found.reference[0], cohort.reference[0])
