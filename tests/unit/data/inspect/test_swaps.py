"""What a cohort could notice of swapped modalities."""

import numpy as np

from nnunetv2_d2net.data.inspect import swaps
from nnunetv2_d2net.data.inspect.record import CaseRecord
from tests.unit.base.test_exchanges import draw


def test_what_would_be_noticed():
    rng = np.random.default_rng(0)
    features = draw(10, [[0.0] * 5, [3.0] * 5, [3.0] * 5], rng)
    features[0, 1] = np.nan
    records = [CaseRecord(str(n), ["f"] * 3, None, [""] * 3, features=features[n].tolist()) for n in range(10)]
    counts = swaps.count_noticed(records)
    assert counts[0, 1] == (9, 9)
    assert counts[0, 2][1] == 10
    assert counts[1, 2] == (0, 9)
    assert swaps.count_noticed(records[:5]) == {}
