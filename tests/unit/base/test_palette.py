"""Colors of regions: told apart by whoever sees them, and seen on black."""

from itertools import combinations

import numpy as np
import pytest

from nnunetv2_d2net.base.palette import REGION_COLORS

# Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009: severity 1, on linear RGB.
SIGHT = {
    "all cones": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "no red cones": (0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998),
    "no green cones": (0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881),
    "no blue cones": (1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color):
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    f = np.cbrt(np.clip(TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(1), 0.008856, None))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_the_regions_of_a_data_set_are_told_apart(sight):
    """By CIE's difference of 1976, of which 2.3 is just seen; pictures of gliomas have three regions."""
    seen = [lab(np.reshape(SIGHT[sight], (3, 3)) @ linear(color)) for color in REGION_COLORS]
    distances = {(i, j): np.linalg.norm(seen[i] - seen[j]) for i, j in combinations(range(len(seen)), 2)}
    assert min(value for (_, j), value in distances.items() if j < 3) > 30
    assert min(distances.values()) > 10


@pytest.mark.parametrize("color", REGION_COLORS)
def test_they_are_seen_on_black(color):
    assert (TO_XYZ[1] @ linear(color) + 0.05) / 0.05 > 3
