"""Shows every setting of an environment, and where its value came from."""

from collections.abc import Sequence

from msgspec import Struct

from scripts.frame import settings as known
from scripts.frame.report import Report
from scripts.frame.run import Run


class Row(Struct, frozen=True):
    """One setting. value: what came from environment variables is masked, because it may be a secret."""

    setting: str
    value: str
    origin: str


class Settings(Report, Struct, frozen=True):
    """The settings of an environment, sorted by name."""

    file: str
    rows: tuple[Row, ...]

    def line(self) -> str:
        return f"{len(self.rows)} settings from {self.file}"

    def table(self) -> Sequence[Sequence[str]]:
        return [("SETTING", "VALUE", "FROM"), *((row.setting, row.value or "-", row.origin) for row in self.rows)]


def settings(run: Run) -> Settings | None:
    """Show the environment's settings."""
    name = run.environment.name
    rows = tuple(Row(*row) for row in known.rows(name))
    return run.look("the settings", lambda: Settings(str(known.settings_file()), rows))
