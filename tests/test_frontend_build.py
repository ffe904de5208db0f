"""Which variables reach the build of the frontend, and where their values come from."""

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke


def test_only_variables_of_the_settings_reach_the_build(invoke: Invoke, tmp_path: Path) -> None:
    """React and Vite would put any other one with their prefix into the pages."""
    extra = {"REACT_APP_EXTRA": "extra-value", "VITE_EXTRA": "extra-value", "REACT_APP_APP_ENV": "prod"}

    done = invoke("build-frontend", "--env=local", **extra)

    assert done.returncode == 0, done.stderr
    code = "".join(path.read_text() for path in (tmp_path / "frontend").rglob("*.js"))
    assert '"REACT_APP_APP_ENV": "local"' in code
    assert "extra-value" not in code


@pytest.mark.parametrize("app_env", [{}, {"APP_ENV": "dev"}], ids=["nothing chosen", "dev chosen"])
def test_another_environments_value_is_refused(app_env: dict[str, str], invoke: Invoke) -> None:
    """A developer's exported value of dev is not built into prod."""
    known = dict.fromkeys(("OKTA_SERVER_ID_PROD", "LD_CLIENT_ID_PROD"), "of-prod")

    done = invoke("build-frontend", "--env=prod", OKTA_CLIENT_ID="of-dev", **known, **app_env)

    assert done.returncode == 2
    assert "OKTA_CLIENT_ID_PROD is not set" in done.stderr
    assert "OKTA_CLIENT_ID is set, but it may be another environment's" in done.stderr
    assert "of-dev" not in done.stderr


def test_a_dry_run_shows_where_each_value_came_from(invoke: Invoke) -> None:
    """And what is left out."""
    own = {"OKTA_CLIENT_ID": "own", "OKTA_SERVER_ID_PROD": "own", "LD_CLIENT_ID_PROD": "own", "VITE_EXTRA": "x"}

    done = invoke("build-frontend", "--dry-run", "--json", APP_ENV="prod", **own)

    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["steps"][0]["plan"]
    assert plan["origins"]["REACT_APP_OKTA_CLIENT_ID"] == "[defaults] with OKTA_CLIENT_ID"
    assert plan["origins"]["REACT_APP_LD_CLIENT_ID"] == "[defaults] with LD_CLIENT_ID_PROD"
    assert plan["origins"]["REACT_APP_OKTA_DOMAIN"] == "[environments.prod]"
    assert plan["left_out"] == ["VITE_EXTRA"]
    assert "leave out VITE_EXTRA, which is not in the settings" in done.stderr
    assert "set REACT_APP_APP_ENV=prod (from [defaults])" in done.stderr
