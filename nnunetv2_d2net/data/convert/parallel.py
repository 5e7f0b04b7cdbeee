"""One function on many items, in processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from nnunetv2_d2net.base.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(work: Callable[[Item], Result], items: Sequence[Item], processes: int) -> Iterator[tuple[Item, Result]]:
    """Yield each item with its result, in the order in which they are ready.

    Args:
        work: A function that can be pickled.
        items: Its arguments.
        processes: How many at a time; with 1 no process is started.

    Raises:
        UserError: A process was killed.
    """
    if processes <= 1 or len(items) <= 1:
        yield from ((item, work(item)) for item in items)
        return
    with ProcessPoolExecutor(min(processes, len(items)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process was killed, perhaps for want of memory: pass a smaller -np, run again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
