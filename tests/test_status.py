"""`invoke status`: what runs in each environment."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from scripts import status
from scripts.ecs.receipts import PREFIX, Receipt
from scripts.frame.errors import DeployError
from scripts.frame.report import aligned
from scripts.frame.run import Run
from scripts.frame.settings import environment as find
from tests.conftest import ROOT, EmbeddedCloud, Invoke, git
from tests.stand_in import Reply, stand_in
from tests.test_cli import KEYS

SITES = ("https://dev.mint.cms.gov", "https://impl.mint.cms.gov", "https://mint.cms.gov", "http://127.0.0.1:4566")


@pytest.fixture
def commits(tmp_path: Path) -> list[str]:
    """Three commits on main, oldest first, in the repository tmp_path/app."""
    folder = tmp_path / "app"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    for number in range(3):
        git(folder, "commit", "--quiet", "--allow-empty", "-m", f"Change {number}")
    return git(folder, "rev-list", "--reverse", "main").split()


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
    """However many there are. Resolving a name has no time-out of its own."""
    monkeypatch.setattr(status, "TIMEOUT", 0.1)
    monkeypatch.setattr(status.version, "answering", lambda *_: time.sleep(3))

    before, started = set(threading.enumerate()), time.monotonic()
    found = status.ask(dict.fromkeys("abcd", "http://127.0.0.1:9"))

    assert {one.why for one in found} == {"does not answer: no response within 0.1 s"}
    assert time.monotonic() - started < 2
    # The process need not wait for them either.
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)


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
    """It is shown, and then the command fails."""
    asked = invoke("status", "--env=impl", "--json", ENVIRONMENTS_FILE=settings(tmp_path, {}))

    assert asked.returncode == 1
    document = json.loads(asked.stdout)
    assert document["error"] == "impl does not answer: Connection refused."
    assert document["steps"][0]["result"]["rows"][0]["why"] == "does not answer: Connection refused"


@pytest.mark.parametrize("version", ["HEAD", "main", "main~1", ":/Change", "@{-1}", "--all"])
def test_a_name_that_git_knows_is_no_version(version: str, commits: list[str], tmp_path: Path) -> None:
    """An environment that answers with it runs no commit of this repository."""
    shown = status.row(status.Answering("dev", version, ""), tmp_path / "app", None, 0)

    assert (shown.version, shown.subject) == (version, "not a commit of this repository")
    assert (shown.age, shown.behind) == ("-", None)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((-1, "0 s"), (0.9, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h")),
        *((86399, "23 h"), (86400, "1 d"), (200_000, "2 d")),
    ],
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


def receipt(number: int, version: str, verdict: str = "succeeded") -> Receipt:
    """One of a deployment of local. number: minutes after the first one."""
    started = 1_700_000_000 + 60 * number
    who = {"application": "mint-app", "environment": "local", "command": "deploy", "service": "mint-app"}
    how = {"started": started, "seconds": 1, "verdict": verdict, "exit_code": int(verdict != "succeeded")}
    return msgspec.convert({**who, **how, "id": f"2030-{number:02}", "version": version}, Receipt)


@pytest.fixture
def receipts(cloud: EmbeddedCloud) -> Callable[[Receipt], None]:
    """Keeps a receipt in the bucket of local."""

    def keep(made: Receipt) -> None:
        body = msgspec.json.encode(made)
        cloud.client("s3").put_object(Bucket="local-mint-app-static", Key=f"{PREFIX}{made.id}.json", Body=body)

    return keep


def test_the_time_of_the_deployment_is_that_of_its_newest_good_receipt(
    receipts: Callable[[Receipt], None], tmp_path: Path, cloud: EmbeddedCloud
) -> None:
    """Of the version that answers; a version without a receipt has none."""
    for made in (receipt(0, "v0"), receipt(1, "v0"), receipt(2, "v0", "failed"), receipt(3, "v1")):
        receipts(made)

    assert status.deployed(status.Answering("local", "v0", "")) == "2023-11-14 22:14"
    assert status.deployed(status.Answering("local", "v2", "")) == ""
    (row,) = status.observe(status.healthchecks("local"), tmp_path, "main", 0).rows
    assert row == status.Row("local", "v0", "not a commit of this repository", "-", None, "", "2023-11-14 22:14")
    assert row.cells()[4] == "2023-11-14 22:14"
    assert replace(row, deployed="").cells()[4] == "-"


@pytest.mark.parametrize("missing", ["an answer", "a bucket", "credentials", "a bucket that can be read"])
def test_without_receipts_the_time_of_the_deployment_is_not_known(
    missing: str, receipts: Callable[[Receipt], None], cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no failure, and AWS is asked only where it can answer."""
    receipts(receipt(0, "v0"))
    receipts(receipt(1, ""))
    before = len(cloud.requests("s3"))
    if missing == "a bucket":
        for key, value in KEYS.items():
            monkeypatch.setenv(key, value)
    if missing == "credentials":
        monkeypatch.setenv("STATIC_S3_BUCKET", "local-mint-app-static")
    if missing == "a bucket that can be read":
        cloud.fail(service="s3", status=403, times=9)
    name = "dev" if missing in ("a bucket", "credentials") else "local"

    assert status.deployed(status.Answering(name, "" if missing == "an answer" else "v0", "")) == ""
    assert (len(cloud.requests("s3")) > before) is (missing == "a bucket that can be read")


@pytest.mark.parametrize("origin", ["", "--env"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_the_result_is_the_table(
    origin: str,
    dry_run: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cut where a terminal is narrow. Only an environment that was asked for has to answer, except in a dry run."""
    with stand_in(lambda *_: Reply(b"down", 503)) as server:
        sites = dict.fromkeys(SITES, server.url)
        monkeypatch.setenv("ENVIRONMENTS_FILE", settings(tmp_path, sites))
        monkeypatch.setattr(status, "TIMEOUT", 0.3)
        monkeypatch.setattr("scripts.frame.console.width", lambda: 60)
        run = Run("status", find("impl", origin, dry_run=dry_run), dry_run=dry_run)
        if origin and not dry_run:
            with pytest.raises(DeployError, match=r"^impl does not answer: HTTP status 503\.$"):
                status.status(run)
        else:
            found = status.status(run)
            assert found
            names = ["impl"] if origin else ["dev", "impl", "prod", "local"]
            assert [row.environment for row in found.rows] == names
            assert found.line() == f"0 of {len(names)} environments answer"

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (2 if origin else 5)
    assert max(map(len, lines)) <= 60


def test_the_number_of_environments_that_answer_is_the_result() -> None:
    assert replace(ROWS, rows=ROWS.rows * 2).line() == "2 of 4 environments answer"
