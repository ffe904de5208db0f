"""Counting the lines that the tests reach."""

import builtins
from pathlib import Path

import pytest

from tests import lines
from tests.conftest import Invoke

CODE = '''"""Module."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import json


def f(x):
    """Function."""
    if x:
        return "yes"
    elif x is None:
        return "none"
    else:
        for _ in ():
            x = 1
    try:
        raise ValueError
    except ValueError:
        y = x
    return (
        y
    )


found = f(0)
'''


def test_exactly_the_statements_that_run_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of the code is unchanged."""
    path, marks, names = tmp_path / "code.py", bytearray(100), dict[str, object]()
    path.write_text(CODE)
    monkeypatch.setattr(lines, "offsets", lambda: {str(path): 0})
    monkeypatch.setattr(builtins, "__lines__", marks, raising=False)

    exec(lines._compiled(str(path)), names)  # noqa: S102

    assert names["found"] == 0
    assert [line for line in range(100) if marks[line]] == [2, 3, 7, 9, 11, 14, 16, 17, 19, 20, 25]


def test_lines_reached_in_another_process_are_counted(invoke: Invoke) -> None:
    assert invoke("settings", "--env=local").returncode == 0

    yes, no = lines.reached()["scripts/settings.py"]
    assert len(yes) > len(no)
