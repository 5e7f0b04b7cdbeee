"""Passes over the training cases: what several workers draw, pass after pass."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from nnunetv2_d2net.plugin.training import passes
from nnunetv2_d2net.plugin.training.passes import PassLoader

CASES = [f"c{i}" for i in range(7)]


@pytest.fixture
def loaders(monkeypatch):
    """The copies of one loader that the workers have."""

    def loaders(n_workers, seed=0):
        monkeypatch.setattr(passes, "get_allowed_n_proc_DA", lambda: n_workers)
        copies = []
        for worker in range(max(1, n_workers)):
            np.random.seed(seed)  # one loader is made and copied
            labels = SimpleNamespace(all_labels=[0, 1], has_ignore_label=False)
            loader = PassLoader(
                SimpleNamespace(identifiers=CASES), 2, (8,) * 3, (8,) * 3, labels, oversample_foreground_percent=0.25
            )
            loader.set_thread_id(worker)
            np.random.seed(worker)  # workers have states of their own
            copies.append(loader)
        return copies

    return loaders


@pytest.mark.parametrize("n_workers", [0, 1, 2, 3])
def test_every_case_comes_once_before_any_comes_twice(loaders, n_workers):
    workers = loaders(n_workers)
    drawn = [name for i in range(42) for name in workers[i % len(workers)].get_indices()]
    passes_made = [drawn[i : i + 7] for i in range(0, 84, 7)]
    assert all(sorted(one) == CASES for one in passes_made)
    assert all(worker.oversample_foreground_percent == 0.25 for worker in workers)
    assert len({tuple(one) for one in passes_made}) > 8  # each in an order of its own


def test_the_order_is_of_the_run(loaders):
    first, again, other = (loaders(1, seed)[0] for seed in (0, 0, 1))
    drawn = [[name for _ in range(7) for name in loader.get_indices()] for loader in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert Counter(drawn[0]) == dict.fromkeys(CASES, 2)
