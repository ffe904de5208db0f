"""`invoke status`: what runs in each environment."""

import json
import time
from pathlib import Path

import pytest

from scripts import status
from scripts.edges import git
from scripts.frame.report import aligned
from tests.conftest import ROOT, EmbeddedCloud, Invoke
from tests.stand_in import Reply, stand_in

SITES = ("https://dev.mint.cms.gov", "https://impl.mint.cms.gov", "https://mint.cms.gov", "http://127.0.0.1:4566")


@pytest.fixture
def commits(tmp_path: Path) -> list[str]:
    """Three commits on main, oldest first, in the repository tmp_path/app."""
    folder = tmp_path / "app"
    git.run(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    for number in range(3):
        git.run(folder, "commit", "--quiet", "--allow-empty", "-m", f"Change {number}")
    return git.run(folder, "rev-list", "--reverse", "main").split()


def settings(folder: Path, urls: dict[str, str]) -> str:
    """A settings file with other sites; nothing listens on port 9."""
    text = (ROOT / "environments.toml").read_text()
    for site in SITES:
        text = text.replace(f'"{site}"', f'"{urls.get(site, "http://127.0.0.1:9")}"')
    path = folder / "settings.toml"
    path.write_text(text)
    return str(path)


def health(version: str) -> Reply:
    """The response of the application's healthcheck."""
    return Reply(json.dumps({"version": version}).encode())


def test_the_table_has_version_commit_age_and_distance(commits: list[str], invoke: Invoke, tmp_path: Path) -> None:
    """A row per environment. It says why an environment does not answer, or that its version is not a commit."""
    answers = {"/dev": commits[2], "/impl": commits[0], "/prod": "v1-unknown"}
    with stand_in(lambda _, path: health(answers["/" + path.split("/")[1]])) as server:
        urls = dict(zip(SITES, (f"{server.url}{path}" for path in answers), strict=False))
        file = settings(tmp_path, urls)
        done = invoke(f"--search-root={ROOT}", "status", cwd=tmp_path / "app", ENVIRONMENTS_FILE=file)

    assert done.returncode == 0, done.stderr
    head, dev, impl, prod, local = (line.split(maxsplit=6) for line in done.stdout.splitlines())
    assert " ".join(head) == "ENVIRONMENT VERSION BEHIND AGE DEPLOYED (UTC) COMMIT"
    assert (dev[:3], dev[6]) == (["dev", commits[2][:7], "0"], "Change 2")
    assert (impl[:3], impl[6]) == (["impl", commits[0][:7], "2"], "Change 0")
    assert prod[:4] == ["prod", "v1-unknown", "?", "-"]
    assert "not a commit of this repository" in " ".join(prod)
    assert "does not answer" in " ".join(local)


def test_env_selects_one_environment_and_json_gives_its_row(commits: list[str], invoke: Invoke, tmp_path: Path) -> None:
    with stand_in(lambda *_: health(commits[1])) as server:
        file = settings(tmp_path, {SITES[1]: server.url})
        done = invoke(
            f"--search-root={ROOT}", "status", "--env=impl", "--json", cwd=tmp_path / "app", ENVIRONMENTS_FILE=file
        )

    (row,) = json.loads(done.stdout)["steps"][0]["result"]["rows"]
    assert (row["environment"], row["version"], row["behind"]) == ("impl", commits[1], 1)


def test_all_environments_are_requested_at_the_same_time() -> None:
    with stand_in(lambda *_: Reply(health("v1").body, delay=0.5)) as server:
        started = time.monotonic()
        found = status.ask(dict.fromkeys("abcd", server.url))
        took = time.monotonic() - started

    assert [one.version for one in found] == ["v1"] * 4
    assert took < 1.5


def test_an_environment_that_never_answers_ends_at_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolving a name has no time-out of its own."""
    monkeypatch.setattr(status, "TIMEOUT", 0.1)
    monkeypatch.setattr(status.version, "answering", lambda *_: time.sleep(3))

    started = time.monotonic()
    (found,) = status.ask({"dev": "http://127.0.0.1:9"})

    assert found.why == "does not answer: no response within 0.1 s"
    assert time.monotonic() - started < 2


def test_a_dry_run_is_the_same_and_needs_no_network(invoke: Invoke, tmp_path: Path) -> None:
    """The command only reads."""
    done = invoke("status", "--dry-run", ENVIRONMENTS_FILE=settings(tmp_path, {}))

    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ENVIRONMENT", "dev", "impl", "prod", "local"]
    assert done.stdout.count("does not answer: Connection refused") == 4


def test_an_address_that_needs_a_variable_is_a_row_like_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody without it sees the other environments."""
    monkeypatch.delenv("SITE_OF_DEV", raising=False)
    with stand_in(lambda *_: health("v1")) as server:
        file = settings(tmp_path, {SITES[0]: "https://${SITE_OF_DEV}", SITES[1]: server.url})
        monkeypatch.setenv("ENVIRONMENTS_FILE", file)
        urls = {name: url for name, url in status.healthchecks().items() if name in ("dev", "impl")}
        dev, impl = status.observe(urls, tmp_path, "main", 0).rows

    assert (dev.version, impl.version) == ("", "v1")
    assert "https://<SITE_OF_DEV>/api/v1/healthcheck" in dev.why


def test_a_version_stays_in_its_row(invoke: Invoke, tmp_path: Path) -> None:
    """And is no command of GitHub Actions."""
    with stand_in(lambda *_: health("v1\n::error::x\x1b[2J" + "y" * 100)) as server:
        file = settings(tmp_path, {SITES[1]: server.url})
        done = invoke("status", "--env=impl", ENVIRONMENTS_FILE=file, GITHUB_ACTIONS="true")

    assert done.returncode == 0, done.stderr
    _, row = done.stdout.splitlines()
    assert row.startswith("impl")
    assert "v1 : :error: :x\\x1b[2J" in row
    assert len(row.split("  ")[1]) <= 60


def test_the_environment_that_was_asked_for_has_to_answer(invoke: Invoke, tmp_path: Path) -> None:
    """It is shown, and then the command fails; of several, one that is down is a row like the others."""
    file = settings(tmp_path, {})
    asked = invoke("status", "--env=impl", "--json", ENVIRONMENTS_FILE=file)
    planned = invoke("status", "--env=impl", "--dry-run", ENVIRONMENTS_FILE=file)
    all_of_them = invoke("status", ENVIRONMENTS_FILE=file)

    assert (asked.returncode, planned.returncode, all_of_them.returncode) == (1, 0, 0)
    document = json.loads(asked.stdout)
    assert document["error"] == "impl does not answer: Connection refused."
    assert document["steps"][0]["result"]["rows"][0]["why"] == "does not answer: Connection refused"


@pytest.mark.parametrize("version", ["HEAD", "main", "main~1", ":/Change", "@{-1}", "--all"])
def test_a_name_that_git_knows_is_no_version(version: str, commits: list[str], tmp_path: Path) -> None:
    """An environment that answers with it runs no commit of this repository."""
    shown = status.row(status.Answering("dev", version, ""), tmp_path / "app", None, 0)

    assert (shown.version, shown.subject) == (version, "not a commit of this repository")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_an_age_is_shown_in_its_largest_unit(seconds: float, shown: str) -> None:
    assert status.age(seconds) == shown


ROWS = status.Table(
    (
        status.Row("impl", "a" * 40, "A subject " * 20, "12 d", 3, "", "2026-11-26 05:02"),
        status.Row("prod", "", "", "-", None, "does not answer: " + "why " * 40),
    )
)


@pytest.mark.parametrize(
    ("most", "shown"),
    [
        (
            80,
            [
                "ENVIRONMENT  VERSION  BEHIND  AGE   DEPLOYED (UTC)    COMMIT",
                "impl         aaaaaaa  3       12 d  2026-11-26 05:02  A subject A subject A sub…",
                "prod         -        -       -     -                 does not answer: why why…",
            ],
        ),
        (
            60,
            [
                "ENVIRONMENT  VERSION  BEHIND  AGE   DEPLOYED (UT…  COMMIT",
                "impl         aaaaaaa  3       12 d  2026-11-26 0…  A subjec…",
                "prod         -        -       -     -              does not…",
            ],
        ),
        (
            30,
            [
                "ENVIRONMENT     impl",
                "VERSION         aaaaaaa",
                "BEHIND          3",
                "AGE             12 d",
                "DEPLOYED (UTC)  2026-11-26 05…",
                "COMMIT          A subject A s…",
                "",
                "ENVIRONMENT     prod",
                "VERSION         -",
                "BEHIND          -",
                "AGE             -",
                "DEPLOYED (UTC)  -",
                "COMMIT          does not answ…",
            ],
        ),
    ],
)
def test_a_table_fits_the_terminal(most: int, shown: list[str]) -> None:
    """The longest texts are cut; where too little would be left of them, the cells are below each other."""
    assert aligned(ROWS.table(), most) == shown
    assert max(map(len, shown)) <= most


def test_a_table_is_whole_where_there_is_no_terminal() -> None:
    assert aligned(ROWS.table())[1].endswith(("A subject " * 20).strip())


def test_a_wide_character_takes_up_two_columns_and_an_accent_none() -> None:
    rows = [("WHO", "WHAT"), ("\u65e5\u672c", "x"), ("e\u0301", "\u65e5\u672c\u8a9e" * 5)]

    assert aligned(rows, 16) == ["WHO   WHAT", "\u65e5\u672c  x", "e\u0301     \u65e5\u672c\u8a9e\u65e5…"]


def test_the_time_of_the_deployment_is_that_of_its_receipt(cloud: EmbeddedCloud, invoke: Invoke, build: Path) -> None:
    """Of the version that answers; a version without a receipt has none."""
    before = status.deployed(status.Answering("local", "v0", ""))
    digest = cloud.push("v1", "mint-backend")[0]
    cloud.push("v1", "mint-db-migrate")
    done = invoke("deploy", "--tag=v1", f"--digest={digest}", "--no-build", f"--build-dir={build}", **cloud.env)
    assert done.returncode == 0, done.stderr

    assert before == ""
    assert status.deployed(status.Answering("local", "v1", "")).startswith(time.strftime("%Y-%m-%d", time.gmtime()))
    assert status.deployed(status.Answering("local", "v2", "")) == ""
