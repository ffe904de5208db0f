"""Threads of a block: what happens to them at its end."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from scripts.frame.stop import Stopped
from scripts.frame.threads import workers


class Tasks:
    """A task that runs until it is let go, and two that wait for its thread."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.waiting = list[Future[None]]()

    def start(self, pool: ThreadPoolExecutor) -> None:
        """Start them. Returns once the first one runs."""
        pool.submit(self._run)
        self.waiting = [pool.submit(self._run) for _ in range(2)]
        self.begun.wait(5)

    def _run(self) -> None:
        self.begun.set()
        self.go_on.wait(5)
        self.ended.set()


def test_after_a_failure_running_tasks_are_awaited_and_the_rest_never_begin() -> None:
    """Nothing is still written after the block."""
    tasks = Tasks()

    def fail(pool: ThreadPoolExecutor) -> None:
        tasks.start(pool)
        threading.Timer(0.05, tasks.go_on.set).start()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), workers(1) as pool:
        fail(pool)

    assert tasks.ended.is_set()
    assert [one.cancelled() for one in tasks.waiting] == [True, True]


@pytest.mark.parametrize("stopped", [True, False])
def test_a_stop_waits_for_no_task(stopped: bool) -> None:
    """Nor does the end of the block for one whose result nobody has collected. No other begins."""
    tasks = Tasks()
    with suppress(Stopped), workers(1) as pool:
        tasks.start(pool)
        if stopped:
            raise Stopped("SIGTERM")

    assert not tasks.ended.is_set()
    assert [one.cancelled() for one in tasks.waiting] == [True, True]
    tasks.go_on.set()


def test_tasks_run_at_the_same_time() -> None:
    """As many as there are workers."""
    both = threading.Barrier(2)
    with workers(2) as pool:
        ended = [pool.submit(both.wait, 5) for _ in range(2)]

        assert sorted(one.result() for one in ended) == [0, 1]
