import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from nnunetv2_d2net.study.scores.metrics import diagonal, dice, score_labels, surface_scores


def box(shape, *sides):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def blob(rng, shape):
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (1.5, 3, 3), mode="constant")
    return np.pad(smooth > np.quantile(smooth, 0.8), 2)


def surface_points(mask, spacing):
    """Corners where inside meets outside, in mm, each with the area of the triangle mesh in the cell around it."""
    measure = pytest.importorskip("skimage.measure")
    padded = np.pad(mask, 1)
    vertices, faces, *_ = measure.marching_cubes(padded.astype(float), 0.5, method="lorensen")
    a, b, c = vertices[faces].astype(float).transpose(1, 0, 2)
    area = np.linalg.norm(np.cross((b - a) * spacing, (c - a) * spacing), axis=1) / 2
    cells, where = np.unique(np.floor((a + b + c) / 3).astype(int), axis=0, return_inverse=True)
    neighbors = sum(padded[tuple(cells.T + np.array(corner)[:, None])].astype(int) for corner in np.ndindex(2, 2, 2))
    assert ((neighbors > 0) & (neighbors < 8)).all()
    return cells * spacing, np.bincount(where.ravel(), area)


def slow_scores(prediction, reference, spacing, tolerance):
    surfaces = [surface_points(mask, np.array(spacing)) for mask in (prediction, reference)]
    distances = [cKDTree(surfaces[1 - i][0]).query(surfaces[i][0])[0] for i in (0, 1)]
    hd95 = 0.0
    for d, (_, area) in zip(distances, surfaces, strict=True):
        order = np.argsort(d)
        hd95 = max(hd95, d[order][np.searchsorted(np.cumsum(area[order]), 0.95 * area.sum())])
    d, area = np.concatenate(distances), np.concatenate([area for _, area in surfaces])
    return hd95, (d * area).sum() / area.sum(), area[d <= tolerance].sum() / area.sum()


def test_dice_against_counting():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 5, 6, 7)) > 0.5
    both = sum(x and y for x, y in zip(a.ravel(), b.ravel(), strict=True))
    assert dice(a, b) == pytest.approx(2 * both / (sum(a.ravel()) + sum(b.ravel())))


def test_dice_of_empty_masks_is_brats_convention():
    empty, full = np.zeros(4, bool), np.ones(4, bool)
    assert (dice(empty, empty), dice(empty, full), dice(full, empty), dice(full, full)) == (1, 0, 0, 1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.7), (5.0, 0.5, 0.5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_triangle_meshes_and_nearest_points(spacing, seed):
    rng = np.random.default_rng(seed)
    reference, other = blob(rng, (12, 30, 28)), blob(rng, (12, 30, 28))
    prediction = np.roll(reference, (0, 2, 1), (0, 1, 2)) | (other & ndimage.binary_dilation(reference))
    ours = surface_scores(prediction, reference, spacing, tolerance_mm=1.3)
    hd95, assd, surface_dice = slow_scores(prediction, reference, spacing, 1.3)
    # The two marching cubes resolve corners with several sheets differently, which moves areas by a few in a
    # thousand; and
    # a percentile of distances between lattice points moves in steps.
    assert ours[0] == pytest.approx(hd95, abs=min(spacing) / 2)
    assert ours[1] == pytest.approx(assd, rel=0.005)
    assert ours[2] == pytest.approx(surface_dice, abs=0.001)


def test_areas_weigh_what_is_sampled_densely():
    # 80 mm and 60 mm of a bar of 40 x 40 mm; by hand: (48000 + 18667) mm^3 over 28800 mm^2.
    # Points counted without their areas would give 5.03 mm.
    longer, shorter = (box((24, 60, 60), side, (10, 50), (10, 50)) for side in ((4, 20), (6, 18)))
    hd95, assd, _ = surface_scores(shorter, longer, (5.0, 1.0, 1.0))
    assert assd == pytest.approx(66667 / 28800, rel=0.02)
    assert hd95 == 10.0


def test_single_voxels():
    # corners of the two voxels lie 3 and 4 spacings apart, half of each
    for axis, mm in enumerate((2.0, 1.0, 0.5)):
        a = box((9, 9, 9), (1, 2), (1, 2), (1, 2))
        scores = surface_scores(np.roll(a, 4, axis), a, (2.0, 1.0, 0.5), tolerance_mm=3 * mm + 1e-6)
        assert scores == pytest.approx((4 * mm, 3.5 * mm, 0.5))


def test_shifted_cubes():
    a = box((20, 20, 20), (4, 12), (4, 12), (4, 12))
    moved = np.roll(a, 2, 0)
    assert surface_scores(a, moved, (3.0, 1.0, 1.0))[0] == 6.0  # a face is a sixth of the surface, over 5 %
    assert surface_scores(a, moved, (3.0, 1.0, 1.0), tolerance_mm=6.0)[2] == 1.0
    scores = score_labels(a.astype(int), moved.astype(int), (3.0, 1.0, 1.0), {"cube": (1,)})
    assert scores["cube"][0] == 6 / 8
    assert scores["cube"][4:] == (512, 512)


@pytest.mark.parametrize(("side", "hd95"), [(13, math.hypot(14, 14)), (16, 0.0)])
def test_hd95_passes_over_five_percent_of_a_contour(side, hd95):
    """Of a square and a dot far off: corners are cut, so the dot has 2.83 of 53.7 mm or of 65.7, 5.3 or 4.3 percent."""
    square = box((40, 40), (3, 3 + side), (3, 3 + side))
    dot = box((40, 40), (17 + side, 18 + side), (17 + side, 18 + side))
    assert surface_scores(square | dot, square, (1.0, 1.0))[0] == pytest.approx(hd95)


def test_identical_and_symmetric():
    rng = np.random.default_rng(3)
    a, b = blob(rng, (8, 12, 12)), blob(rng, (8, 12, 12))
    assert surface_scores(a, a, (5.0, 1.0, 1.0)) == (0.0, 0.0, 1.0)
    assert surface_scores(a, b, (5.0, 1.0, 1.0)) == pytest.approx(surface_scores(b, a, (5.0, 1.0, 1.0)))


def test_masks_that_touch_the_border():
    inside = box((12, 12, 12), (2, 8), (2, 8), (2, 8))
    other = np.roll(inside, 1, 2)
    cut = np.s_[2:8, 2:8, 2:9]
    assert surface_scores(inside, other, (1, 1, 1)) == surface_scores(inside[cut], other[cut], (1, 1, 1))


def test_empty_masks_are_brats_convention():
    shape, spacing = (155, 240, 240), (1.0, 1.0, 1.0)
    empty, some = np.zeros(shape, np.uint8), box(shape, (9, 10), (9, 12), (9, 12)).astype(np.uint8)
    regions = {"lesion": (1,)}
    both = score_labels(empty, empty, spacing, regions)["lesion"]
    assert both == (1.0, 0.0, 0.0, 1.0, 0, 0)
    for prediction, reference in ((empty, some), (some, empty)):
        dice, hd95, assd, surface_dice, *voxels = score_labels(prediction, reference, spacing, regions)["lesion"]
        assert (dice, surface_dice) == (0.0, 0.0)
        assert hd95 == assd == pytest.approx(373.13, abs=0.005)
        assert voxels == [int(reference.sum()), int(prediction.sum())]
        assert set(voxels) == {0, 9}
    assert diagonal((2, 3), (2.0, 1.0)) == 5.0


def test_crop_changes_nothing_and_a_lesion_in_one_slice_keeps_its_thickness():
    prediction, reference = np.zeros((2, 30, 30, 30), np.uint8)
    prediction[7, 5:9, 5:9] = 1
    reference[7, 5:9, 5:11] = 1
    _, *surfaces, _, _ = score_labels(prediction, reference, (4.0, 1.0, 1.0), {"r": (1,)})["r"]
    assert tuple(surfaces) == surface_scores(prediction > 0, reference > 0, (4.0, 1.0, 1.0))


def test_a_mask_that_fills_the_image_counts_to_its_border():
    full, part = np.ones((4, 6, 6), np.uint8), box((4, 6, 6), (1, 3), (2, 4), (2, 4)).astype(np.uint8)
    for prediction, reference in ((full, part), (part, full)):
        dice, *_, of_reference, of_prediction = score_labels(prediction, reference, (1, 1, 1), {"r": (1,)})["r"]
        assert (dice, of_reference, of_prediction) == (2 * 8 / (144 + 8), reference.sum(), prediction.sum())


def test_a_single_slice_is_compared_in_its_plane():
    prediction, reference = np.zeros((2, 1, 20, 20), np.uint8)
    prediction[0, 5:15, 5:15] = 1
    reference[0, 5:15, 7:17] = 1
    _, *surfaces, _, _ = score_labels(prediction, reference, (999.0, 1.0, 1.5), {"r": (1,)})["r"]
    assert tuple(surfaces) == surface_scores(prediction[0] > 0, reference[0] > 0, (1.0, 1.5))
    assert surfaces[0] == 3.0
    _, missed, *_ = score_labels(prediction * 0, reference, (999.0, 1.0, 1.5), {"r": (1,)})["r"]
    assert missed == pytest.approx(math.hypot(20, 30))


def test_regions_and_ignored_voxels():
    reference = np.zeros((4, 6, 6), np.uint8)
    reference[1:3, 1:5, 1:5] = 1
    reference[1:3, 2:4, 2:4] = 2
    prediction = reference.copy()
    reference[:, :, 4] = 9
    prediction[:, :, 4] = 2
    scores = score_labels(prediction, reference, (1, 1, 1), {"whole": (1, 2), "core": (2,)}, ignore=9)
    assert {region: (score[0], *score[4:]) for region, score in scores.items()} == {
        "whole": (1.0, 24, 24),
        "core": (1.0, 8, 8),
    }
