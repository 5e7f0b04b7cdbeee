"""Passes over the training cases: a loader that takes every case once before it takes any a second time."""

from typing import Any

import numpy as np
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunetv2_d2net.plugin.training.seeds import N_SEEDS


class PassLoader(nnUNetDataLoader):
    """nnU-Net's loader of training batches, which draws cases without replacement; each pass has an order of its own.

    Every worker takes each n-th batch of one sequence. Those that run ahead blur where one pass ends and the next
    begins by the few batches that nnU-Net keeps waiting; each case comes equally often all the same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - nnU-Net's
        super().__init__(*args, **kwargs)
        self.number_of_threads_in_multithreaded = max(1, get_allowed_n_proc_DA())
        self.seed = int(np.random.randint(N_SEEDS))  # drawn before the workers begin, so that they share it
        self.n_batches = 0

    def get_indices(self) -> list[str]:
        """Return the names of the next batch of this worker."""
        first = (self.thread_id + self.n_batches * self.number_of_threads_in_multithreaded) * self.batch_size
        self.n_batches += 1
        return [self._case(position) for position in range(first, first + self.batch_size)]

    def _case(self, position: int) -> str:
        number, place = divmod(position, len(self.indices))
        return self.indices[np.random.default_rng((self.seed, number)).permutation(len(self.indices))[place]]
