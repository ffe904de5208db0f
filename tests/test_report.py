"""Tables of a report, in the columns of a terminal."""

import pytest

from scripts.frame.report import Report, aligned, columns, cut

TWO = [["A", "B"], ["a" * 12, "b" * 12]]
THREE = [["A", "B", "C"], ["a" * 12, "b" * 12, "c" * 12]]


@pytest.mark.parametrize(
    ("rows", "most", "shown"),
    [
        ([], 80, []),
        ([["A"]], 0, ["A"]),
        ([["A"], ["a" * 12]], 12, ["A", "a" * 12]),
        ([["A"], ["a" * 12]], 11, ["A", "a" * 10 + "…"]),
        ([["A"], ["a" * 12]], 9, ["A", "a" * 8 + "…"]),
        ([["A"], ["a" * 12]], 8, ["A  aaaa…"]),
        (TWO, 0, ["A             B", f"{'a' * 12}  {'b' * 12}"]),
        (TWO, 26, ["A             B", f"{'a' * 12}  {'b' * 12}"]),
        (TWO, 25, ["A             B", f"{'a' * 12}  {'b' * 10}…"]),
        (TWO, 22, ["A            B", f"{'a' * 10}…  {'b' * 8}…"]),
        (TWO, 20, ["A          B", f"{'a' * 8}…  {'b' * 8}…"]),
        (TWO, 19, ["A  aaaaaaaaaaaa", "B  bbbbbbbbbbbb"]),
        (TWO, 14, [f"A  {'a' * 10}…", f"B  {'b' * 10}…"]),
        (THREE, 35, ["A            B            C", f"{'a' * 10}…  {'b' * 10}…  {'c' * 8}…"]),
        (THREE, 34, ["A           B           C", f"{'a' * 9}…  {'b' * 9}…  {'c' * 8}…"]),
        ([["NAME", "B"], ["a" * 9, ""], ["c", "d" * 9]], 12, ["NAME  aaaaa…", "B", "", "NAME  c", "B     ddddd…"]),
    ],
)
def test_a_table_takes_no_more_columns_than_there_are(rows: list[list[str]], most: int, shown: list[str]) -> None:
    """The last cell is cut first, then the widest ones, to nine columns at least; below that, cells are lines."""
    assert aligned(rows, most) == shown


@pytest.mark.parametrize(
    ("value", "most", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("a bc", 3, "a…"),
        ("日本", 4, "日本"),
        ("日本語", 4, "日…"),
        ("日本語", 5, "日本…"),
        ("abc", 1, "…"),
        ("abc", 0, "…"),
    ],
)
def test_a_text_is_cut_by_the_columns_that_it_takes_up(value: str, most: int, shown: str) -> None:
    """No blank stands before the sign for what is missing."""
    assert cut(value, most) == shown


@pytest.mark.parametrize(("value", "width"), [("", 0), ("abc", 3), ("é", 1), ("e\u0301", 1), ("日本", 4), ("Ａ", 2)])
def test_how_many_columns_a_text_takes_up(value: str, width: int) -> None:
    assert columns(value) == width


def test_a_report_has_no_table_and_no_outputs_unless_it_says_so() -> None:
    """Only its line is needed."""
    assert (Report().table(), Report().outputs(), Report().is_overview) == ((), {}, False)
