"""Waiting by a clock: when it looks, what it prints, and how it ends."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts.frame.errors import DeployError, Refused
from scripts.frame.waiting import Clock, TimedOut, seconds, wait


class Time:
    """A simulated clock. took: seconds that each look takes."""

    def __init__(self, took: float = 0) -> None:
        self.at, self.took = 100.0, took
        self.slept: list[float] = []

    @property
    def clock(self) -> Clock:
        """The clock for `wait`."""
        return Clock(lambda: self.at, self.sleep)

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.slept.append(seconds)
        self.at += seconds

    def looks(self, *answers: tuple[str, str | None]) -> Callable[[], tuple[str, str | None]]:
        """A look that gives one answer after the other, and keeps repeating the last."""
        left: Iterator[tuple[str, str | None]] = iter(answers)

        def look() -> tuple[str, str | None]:
            self.at += self.took
            return next(left, answers[-1])

        return look


def test_an_answer_at_the_first_look_needs_no_pause() -> None:
    time = Time()

    assert wait(time.looks(("done", "it")), seconds=10, every=2, clock=time.clock) == "it"
    assert time.slept == []


def test_a_falsy_answer_is_an_answer() -> None:
    """Only None means "not yet"."""
    assert wait(lambda: ("", 0), seconds=1, every=1) == 0


def test_a_line_is_printed_only_when_it_changes() -> None:
    """An empty line is never printed, and does not count as a change."""
    time, said = Time(), list[str]()
    look = time.looks(("a", None), ("a", None), ("", None), ("a", None), ("b", None), ("a", None), ("c", "it"))

    wait(look, seconds=100, every=1, clock=time.clock, say=said.append)

    assert said == ["a", "b", "a", "c"]
    assert time.slept == [1] * 6


@pytest.mark.parametrize(
    ("limit", "every", "took", "looks"),
    [(10, 2, 0, 6), (10, 3, 0, 4), (1, 2, 0, 1), (10, 2, 1, 4), (10, 2, 30, 1)],
    ids=["even", "uneven", "shorter than a pause", "slow looks", "one look takes longer"],
)
def test_no_look_begins_after_the_deadline(limit: float, every: float, took: float, looks: int) -> None:
    """The time that looks take counts too. The error has the line of the last look."""
    time, count = Time(took), list[int]()

    def look() -> tuple[str, None]:
        assert time.at <= 100 + limit
        time.at += took
        count.append(1)
        return f"look {len(count)}", None

    with pytest.raises(TimedOut) as error:
        wait(look, seconds=limit, every=every, clock=time.clock)

    assert len(count) == looks
    assert str(error.value) == f"look {looks}"
    assert error.value.code == 3


def test_an_error_of_a_look_ends_the_wait() -> None:
    """Looks that may fail must handle that themselves."""

    def look() -> tuple[str, str]:
        raise DeployError("broken")

    with pytest.raises(DeployError, match="broken"):
        wait(look, seconds=10, every=1)


def test_it_works_in_threads() -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: wait(lambda: ("", "it"), seconds=1, every=1), "12"))

    assert found == ["it", "it"]


@pytest.mark.parametrize(("flag", "value"), [(None, 300), ("5", 5), ("0.5", 0.5), ("1e2", 100), ("86400", 86400)])
def test_a_time_out_is_a_number_of_seconds(flag: str | None, value: float) -> None:
    assert seconds(flag, 300) == value


@pytest.mark.parametrize(
    "flag", ["", " ", "0", "-1", "nan", "inf", "1e400", "86401", "5s", "5 s", "1_0", "0x10", "١٢", "5\n", "1,5", "\0"]
)
def test_an_invalid_time_out_is_refused(flag: str) -> None:
    """In one sentence with the flag's name and an example."""
    with pytest.raises(Refused) as error:
        seconds(flag, 300, "--wait")

    assert str(error.value).startswith("--wait must be a number of seconds between 0 and 86400, such as 300, not ")
    assert "\n" not in str(error.value)


def test_a_time_out_is_that_of_the_flag_timeout_unless_it_says_otherwise() -> None:
    with pytest.raises(Refused, match=r"^--timeout must be a number of seconds"):
        seconds("soon", 300)
