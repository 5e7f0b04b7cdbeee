import json

import pytest

from nnunetv2_d2net.plugin.prediction.likeness import read_fingerprint, unlike_training

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
        file.write_text(content)
        assert read_fingerprint(tmp_path) == {}
    file.write_text(json.dumps(TRAINED))
    assert read_fingerprint(tmp_path) == TRAINED
