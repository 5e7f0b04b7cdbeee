import zlib

import numpy as np
import pytest

from nnunetv2_d2net.study.report.run_lengths import decode_runs, encode_runs, pack


@pytest.mark.parametrize("n_labels", [1, 2, 4, 200])
@pytest.mark.parametrize("shape", [(1,), (3, 40, 50), (0,)])
def test_round_trip(n_labels, shape):
    noise = np.random.default_rng(0).integers(0, n_labels, shape)
    blocks = np.sort(noise, axis=-1)
    for labels in (noise, blocks, np.zeros(shape, int)):
        assert np.array_equal(decode_runs(encode_runs(labels, n_labels), n_labels), labels.reshape(-1))


def test_a_long_run_takes_a_few_bytes():
    assert len(encode_runs(np.zeros((100, 200, 200), np.uint8), 4)) == 4


def test_maps_are_packed_one_after_another():
    maps = [encode_runs(np.arange(4), 4), b"", encode_runs(np.ones(9, int), 4)]
    assert zlib.decompress(pack(maps)) == b"".join(maps)
