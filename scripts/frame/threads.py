"""Threads that a stop does not wait for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from scripts.frame import stop


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads. After a failure in the block, running tasks are awaited and the rest cancelled; a stop does
    not wait for them. Results have to be collected inside the block.
    """
    with stop.owned(
        lambda: ThreadPoolExecutor(count), lambda pool: pool.shutdown(wait=False, cancel_futures=True)
    ) as pool:
        try:
            yield pool
        except Exception:
            # No thread may still write when the caller releases its lease.
            pool.shutdown(cancel_futures=True)
            raise
