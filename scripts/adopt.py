"""Copies the deployment commands into an application's repository."""

from scripts.frame.run import Run


def adopt(run: Run, *, into: str | None = None, from_scripts: bool = False) -> None:
    """Copy them."""
