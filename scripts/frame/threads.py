"""Threads that a stop does not wait for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from scripts.frame import stop


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads. A failure in the block ends what is under way first; a stop leaves it to the process's end.

    Their results have to be collected inside of the block.
    """
    with stop.owned(
        lambda: ThreadPoolExecutor(count), lambda pool: pool.shutdown(wait=False, cancel_futures=True)
    ) as pool:
        try:
            yield pool
        except Exception:
            # Nothing may still be written when the caller gives its lease back.
            pool.shutdown(cancel_futures=True)
            raise
