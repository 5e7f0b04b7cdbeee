"""Work in threads beside the network: reading ahead, and writing behind.

Reading, resampling and compressing release Python's global lock, so threads serve as well as nnU-Net's processes and
need neither minutes to start nor copies of the images.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from nnunetv2_d2net.base.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def read_ahead(
    work: Callable[[Job], Result], jobs: Iterable[Job], n_threads: int
) -> Iterator[tuple[Job, Result | UserError]]:
    """Do jobs in the background, at most ``n_threads`` ahead of the caller, and yield them in their order.

    Args:
        work: What to do with a job.
        jobs: Their arguments.
        n_threads: How many at a time; 0 does each when it is asked for.

    Yields:
        The job, and its result or the :class:`UserError` that it raised.
    """

    def attempt(job: Job) -> Result | UserError:
        try:
            return work(job)
        except UserError as error:
            return error

    if n_threads == 0:
        yield from ((job, attempt(job)) for job in jobs)
        return
    with ThreadPoolExecutor(n_threads, "d2net-read") as pool:
        pending: deque[tuple[Job, Future[Result | UserError]]] = deque()
        try:
            for job in jobs:
                pending.append((job, pool.submit(attempt, job)))
                if len(pending) > n_threads:
                    done, future = pending.popleft()
                    yield done, future.result()
            for done, future in pending:
                yield done, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class WriteBehind(Generic[Result]):
    """Do jobs in the background while the caller goes on; a full queue makes it wait, which bounds the memory.

    Args:
        n_threads: How many at a time; 0 does each at once.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.pool = ThreadPoolExecutor(n_threads, "d2net-write") if n_threads else None
        self.pending: deque[Future[Result]] = deque()
        self.results: list[Result] = []

    def submit(self, work: Callable[[], Result]) -> None:
        """Do a job; its exception reaches the caller at a later call, or on leaving."""
        if self.pool is None:
            self.results.append(work())
            return
        self.pending.append(self.pool.submit(work))
        while len(self.pending) > self.n_threads + 1:
            self.results.append(self.pending.popleft().result())

    def __enter__(self) -> "WriteBehind[Result]":
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all jobs; what has been computed is written even if the caller failed."""
        try:
            while self.pending:
                self.results.append(self.pending.popleft().result())
        finally:
            if self.pool is not None:
                self.pool.shutdown(wait=True)
