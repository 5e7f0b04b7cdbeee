import base64
import io

import numpy as np
from PIL import Image

from nnunetv2_d2net.study.report.pictures import choose_window, encode_picture, tile_columns


def test_air_is_left_out_and_the_fullest_slice_comes_first():
    image = np.full((12, 40, 30), -5.0)
    image[2:11, 10:20, 8:16] = 3
    reference = np.zeros(image.shape, bool)
    reference[7, 12:15, 10:12] = True
    window = choose_window([image], reference)
    assert (window.slices, window.rows, window.columns) == (list(range(2, 11)), (7, 23), (5, 19))
    assert window.slices[window.start] == 7
    thinned = choose_window([image], reference, 4)
    assert (thinned.slices, thinned.start) == ([3, 7], 1)
    assert thinned.cut(image).shape == (2, 16, 14)


def test_what_is_in_the_reference_alone_is_kept():
    reference = np.zeros((4, 20, 20), bool)
    reference[3, 0, 0] = True
    window = choose_window([np.zeros((4, 20, 20))], reference)
    assert window.slices == [3]
    assert choose_window([], np.zeros((4, 20, 20), bool)).slices == [0, 1, 2, 3]


def test_slices_lie_side_by_side_in_gray():
    part = np.zeros((5, 16, 16))
    part[3, 4:12, 4:12] = 900
    part[4, 4:12, 4:12] = -900  # normalized, darker than air
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(encode_picture(part).partition(",")[2]))).convert("L"))
    columns = tile_columns(5, 16, 16)
    assert sheet.shape == (16 * -(-5 // columns), 16 * columns)
    tiles = [sheet[16 * (i // columns) :, 16 * (i % columns) :][:16, :16].astype(int) for i in range(5)]
    assert tiles[3][6:10, 6:10].min() > 230
    assert all(tile.max() < 40 for i, tile in enumerate(tiles) if i != 3)
