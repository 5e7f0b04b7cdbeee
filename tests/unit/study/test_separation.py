"""Groups of made vectors, whose separation is known."""

import math

import numpy as np
import pytest
from PIL import Image

from nnunetv2_d2net.study.separation import Points, draw_planes, in_plane, silhouette, thinned


def made(distance: float, n: int = 40, groups: str = "AB") -> Points:
    """Draw ``n`` vectors of each group around centers that lie so far apart."""
    rng = np.random.default_rng(0)
    centers = distance * np.eye(len(groups), 8)
    vectors = np.concatenate([center + rng.normal(scale=0.1, size=(n, 8)) for center in centers])
    return Points(vectors.astype(np.float32), np.repeat(list(groups), n))


def test_the_silhouette_says_how_far_groups_lie_apart():
    assert silhouette(made(10)) > 0.95
    assert abs(silhouette(made(0))) < 0.05
    swapped = made(10)
    halves = np.concatenate([np.repeat(["A", "B"], 20)] * 2)  # each group in both places
    assert silhouette(Points(swapped.vectors, halves)) < 0.05
    two = Points(np.array([[0.0], [0.0], [3.0], [3.0]]), np.array(["A", "A", "B", "B"]))
    assert silhouette(two) == 1


@pytest.mark.parametrize("groups", [["A", "A", "A"], ["A", "B", "C"]])
def test_without_groups_to_compare_there_is_no_silhouette(groups):
    assert math.isnan(silhouette(Points(np.eye(3), np.array(groups))))


def test_the_plane_is_the_same_for_a_seed_and_keeps_groups_apart():
    points = made(10, groups="ABC")
    plane = in_plane(points, seed=3)
    assert plane.vectors.shape == (120, 2)
    assert np.array_equal(plane.groups, points.groups)
    assert silhouette(plane) > 0.5
    assert np.array_equal(plane.vectors, in_plane(points, seed=3).vectors)
    assert not np.array_equal(plane.vectors, in_plane(points, seed=4).vectors)


def test_vectors_that_are_all_alike_have_a_plane_too():
    alike = Points(np.ones((8, 4), np.float32), np.repeat(["A", "B"], 4))
    assert np.isfinite(in_plane(alike, seed=0).vectors).all()


def test_so_many_of_each_group_are_kept_and_stay_in_their_group():
    points = made(10, n=30)
    few = thinned(Points(points.vectors[:35], points.groups[:35]), 10, seed=1)
    assert few.groups.tolist() == ["A"] * 10 + ["B"] * 5
    assert (few.vectors[:10, 0] > 9).all()
    assert (few.vectors[10:, 1] > 9).all()
    assert not np.array_equal(few.vectors, thinned(Points(points.vectors[:35], points.groups[:35]), 10, seed=2).vectors)


def test_planes_stand_side_by_side_in_the_colors_of_their_groups(tmp_path):
    plane = Points(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array(["A", "B"]))
    lone = Points(plane.vectors[:1], plane.groups[:1])
    draw_planes(tmp_path / "p.png", [("before", plane), ("after", lone)], ["A", "B"])
    with Image.open(tmp_path / "p.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    area = pixels[: int(0.9 * height)]  # above the legend
    first, second = ((abs(area - color).sum(-1) < 20) for color in ((86, 180, 233), (240, 228, 66)))
    assert first[:, : width // 2].any()
    assert first[:, width // 2 :].any()
    assert second[:, : width // 2].any()
    assert not second[:, width // 2 :].any()
