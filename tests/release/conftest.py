"""What every test of a release runs in."""

import pytest


@pytest.fixture(autouse=True)
def a_version(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each release asks git, and starting a program takes this large process longer than the release."""
    monkeypatch.setenv("GITHUB_SHA", "abc")
