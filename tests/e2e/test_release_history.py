"""The kept releases: list, diff, rollback without a build, and verify."""

import hashlib
import json
import re
import time
from pathlib import Path

import pytest

from scripts.frame import settings
from scripts.frame.errors import OutcomeUnknown
from scripts.frame.waiting import Clock
from scripts.release import cdn, verify
from scripts.release.manifest import Entry, Manifest
from scripts.release.manifest import Release as Live
from tests.conftest import EmbeddedCloud, Invoke
from tests.release import browser, sites
from tests.release.conftest import a_version
from tests.release.test_publish import BUCKET, Release, Site, changed_settings, release, site
from tests.release.test_rules import release as release_here
from tests.stand_in import Reply, stand_in

__all__ = ["a_version", "release", "site"]


def ids(cloud: EmbeddedCloud, invoke: Invoke) -> list[str]:
    """The kept releases, newest first."""
    done = invoke("release.list", "--json", **cloud.env)
    assert done.returncode == 0, done.stderr
    return [item["id"] for item in json.loads(done.stdout)["steps"][0]["result"]["data"]]


@pytest.fixture
def three(site: Site, tmp_path: Path) -> list[Path]:
    """Three releases, oldest first."""
    folders = [sites.build(tmp_path / version, version) for version in ("one", "two", "three")]
    for folder in folders:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**site.cloud.env, "GITHUB_SHA": folder.name, "GITHUB_ACTOR": "octocat"}.items():
                patch.setenv(name, value)
            release_here(settings.find("local"), folder)
    return folders


def test_the_kept_releases_are_listed(site: Site, invoke: Invoke, three: list[Path]) -> None:
    """The live one first, with who released it."""
    done = invoke("release.list", **site.cloud.env)

    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert re.match(r"\* \d{8}T\d{6}\.\d{3}Z-three  .* UTC  octocat", shown[0])
    assert [
        line.split()[-4].rpartition("-")[2] if "*" in line else line.split()[0].rpartition("-")[2] for line in shown
    ][1:] == ["two", "one"]


@pytest.mark.parametrize(("words", "code"), [(["list"], 0), (["rollback", "--dry-run"], 0), (["rollback"], 2)])
def test_a_release_in_progress_is_warned_of(
    site: Site, invoke: Invoke, three: list[Path], words: list[str], code: int
) -> None:
    """Its holder is shown, and a rollback is refused."""
    lease = {"id": "x", "actor": "hubot", "run": "", "host": "h", "expires": time.time() + 600}
    site.put("_release/lease.json", json.dumps(lease).encode())

    done = invoke(f"release.{words[0]}", *words[1:], **site.cloud.env)

    assert done.returncode == code, done.stderr
    assert "warning: hubot (h) is releasing to local-mint-app-static; the lease ends at " in done.stderr


def test_a_lock_that_cannot_be_read_is_only_warned_of(site: Site, invoke: Invoke, three: list[Path]) -> None:
    """Whether somebody else is releasing is only told."""
    site.put("_release/lease.json", b"{}")
    site.cloud.fail(service="s3", operation="GetObject", status=500, code="InternalError", path="lease.json", times=9)

    done = invoke("release.list", **site.cloud.env)

    assert done.returncode == 0, done.stderr
    assert "warning: it is not known whether another run holds local-mint-app-static" in done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_two_releases_are_compared(site: Site, invoke: Invoke, three: list[Path]) -> None:
    """By default the live one with the previous one."""
    done = invoke("release.diff", **site.cloud.env)
    lines = done.stdout.splitlines()
    assert "~ index.html" in lines
    assert "~ help/index.html" in lines
    assert sum(line.startswith("+ assets/") for line in lines) == 8
    assert sum(line.startswith("- assets/") for line in lines) == 8

    first = ids(site.cloud, invoke)[-1]
    same = invoke("release.diff", f"--old={first}", f"--new={first}", **site.cloud.env)
    assert same.stdout.strip() == ""


@pytest.mark.parametrize("back", [1, 2])
def test_a_rollback_needs_no_build_and_few_requests(site: Site, invoke: Invoke, three: list[Path], back: int) -> None:
    """It puts only the unhashed files that differ, from _release/files/. The page is whole, and it can be undone."""
    known = ids(site.cloud, invoke)
    before = len(site.puts())

    done = invoke("release.rollback", *([f"--to={known[back]}"] if back > 1 else []), **site.cloud.env)

    assert done.returncode == 0, done.stderr
    assert site.puts()[before:] == ["help/index.html", "index.html"]
    assert site.holds(three[2 - back])
    assert browser.problems(site.get) == []
    now = ids(site.cloud, invoke)
    assert now[0].endswith(f"-{three[2 - back].name}")
    forward = invoke("release.rollback", f"--to={known[0]}", **site.cloud.env)
    assert forward.returncode == 0, forward.stderr
    assert site.holds(three[2])


def test_a_dry_run_of_a_rollback_changes_nothing(site: Site, invoke: Invoke, three: list[Path]) -> None:
    """It shows what would be put, and the number of requests that the rollback makes."""
    before = len(site.cloud.requests("s3", "PutObject"))

    done = invoke("release.rollback", "--dry-run", **site.cloud.env)

    assert done.returncode == 0, done.stderr
    assert "would put index.html (content," in done.stderr
    assert len(site.cloud.requests("s3", "PutObject")) == before
    requests = re.findall(r"(\d+) requests", done.stderr)
    assert requests == re.findall(r"(\d+) requests", invoke("release.rollback", **site.cloud.env).stderr)


def test_a_release_whose_file_is_gone_cannot_be_restored(site: Site, invoke: Invoke, three: list[Path]) -> None:
    """Nothing is changed, and the list does not offer it."""
    gone = next(path for path in three[1].rglob("chunk1*"))
    site.s3.delete_object(Bucket=BUCKET, Key=str(gone.relative_to(three[1])))

    done = invoke("release.rollback", **site.cloud.env)
    listed = invoke("release.list", **site.cloud.env)

    assert done.returncode == 2
    assert f"cannot be restored: missing or changed in the bucket: {gone.relative_to(three[1])}." in done.stderr
    assert site.holds(three[2])
    assert [line[0] for line in listed.stdout.splitlines()] == ["*", "-", " "]
    assert f"cannot be restored, gone or changed: {gone.relative_to(three[1])}" in listed.stdout
    assert len(ids(site.cloud, invoke)) == 2


def test_the_live_release_is_verified(site: Site, invoke: Invoke, three: list[Path]) -> None:
    """Missing, overwritten and foreign objects are listed; foreign ones alone are no failure."""
    assert invoke("release.verify", **site.cloud.env).returncode == 0
    site.put("theirs.txt")
    done = invoke("release.verify", **site.cloud.env)
    assert (done.returncode, done.stdout.strip()) == (0, "foreign theirs.txt")

    site.put("robots.txt")
    site.s3.delete_object(Bucket=BUCKET, Key="favicon.ico")
    done = invoke("release.verify", **site.cloud.env)
    assert done.returncode == 1
    assert "missing favicon.ico" in done.stderr
    assert "overwritten robots.txt" in done.stderr


@pytest.mark.parametrize(("slowest", "said"), [(1, ()), (100, ("index.html: no complete response within 0.1 s",))])
def test_a_large_file_may_take_longer_to_be_verified(
    monkeypatch: pytest.MonkeyPatch, slowest: int, said: tuple[str, ...]
) -> None:
    """A film on a slow line is no difference."""
    monkeypatch.setattr(verify, "TIMEOUT", 0.1)
    monkeypatch.setattr(verify, "SLOWEST", slowest)
    page = b"<p>large</p>"
    entry = Entry(hashlib.sha256(page).hexdigest(), len(page), "x", {"Content-Type": "text/html"})
    live = Manifest("mint-app", "dev", {Live(id="x", version="x", at=1, actor="", run=""): {"index.html": entry}})

    with stand_in(lambda *_: Reply(page, headers={"Content-Type": "text/html"}, delay=0.3)) as server:
        assert verify.served(live, server.url) == said


def test_the_served_site_is_verified(site: Site, invoke: Invoke, three: list[Path]) -> None:
    """Status, content type and content of the page and of every file that it references."""
    broken: dict[str, Reply] = {}

    def serve(method: str, path: str) -> Reply:
        found = site.get(path.lstrip("/"))
        if path in broken:
            return broken[path]
        return Reply(found[1], headers={"Content-Type": found[0]}) if found else Reply(b"", 404)

    with stand_in(serve) as server:
        good = invoke("release.verify", f"--url={server.url}", **site.cloud.env)
        asked = {request["path"] for request in server.requests}
        script = next(path for path in asked if "index-" in path and path.endswith(".js"))
        broken |= {script: Reply(b"<html>", headers={"Content-Type": "text/html"}), "/favicon.ico": Reply(b"", 404)}
        bad = invoke("release.verify", f"--url={server.url}", **site.cloud.env)
    refused = invoke("release.verify", "--url=mint.cms.gov", **site.cloud.env)

    assert good.returncode == 0, good.stderr
    assert len(asked) == 10
    assert bad.returncode == 1
    assert "has the type text/html instead of text/javascript" in bad.stderr
    assert "served favicon.ico: HTTP status 404" in bad.stderr
    assert refused.returncode == 2


def test_only_changed_unhashed_paths_are_invalidated(site: Site, release: Release, tmp_path: Path) -> None:
    """For a page also its folder; with too many paths, `/*`."""
    env = changed_settings(tmp_path, distribution=site.cloud.distribution())
    release(sites.build(tmp_path / "one", "one"), **env)
    folder = sites.build(tmp_path / "two", "two")
    release(folder, "--wait", **env)

    told = [r["parameters"]["paths"] for r in site.cloud.requests("cloudfront", "CreateInvalidation")]
    assert told == [["/", "/help/", "/help/index.html", "/index.html"]]
    for number in range(20):
        (folder / f"page{number}.txt").write_text("1")
    release(folder, **env)
    for number in range(20):
        (folder / f"page{number}.txt").write_text("2")
    release(folder, **env)
    assert site.cloud.requests("cloudfront", "CreateInvalidation")[-1]["parameters"]["paths"] == ["/*"]


def test_a_failed_invalidation_is_repeated_by_the_next_run(site: Site, release: Release, tmp_path: Path) -> None:
    """Exit code 1 although the release is published. The next run invalidates even if nothing else changed."""
    env = changed_settings(tmp_path, distribution=site.cloud.distribution())
    release(sites.build(tmp_path / "one", "one"), **env)
    folder = sites.build(tmp_path / "two", "two")
    site.cloud.fail(service="cloudfront", method="POST", status=403, code="AccessDenied", times=1)

    failed = release(folder, code=1, **env)
    assert "the CDN was not invalidated" in failed.stderr
    assert site.holds(folder)
    site.cloud.server.cloud.requests.clear()

    release(folder, **env)
    assert [r["parameters"]["paths"] for r in site.cloud.requests("cloudfront", "CreateInvalidation")] == [
        ["/", "/help/", "/help/index.html", "/index.html"]
    ]
    assert site.puts() == []
    site.cloud.server.cloud.requests.clear()
    release(folder, **env)
    assert site.cloud.requests("cloudfront") == []


def test_an_invalidation_without_a_response_is_not_retried(site: Site, release: Release, tmp_path: Path) -> None:
    """Exit code 3, because CloudFront may have received it. The next run invalidates again."""
    env = changed_settings(tmp_path, distribution=site.cloud.distribution())
    release(sites.build(tmp_path / "one", "one"), **env)
    folder = sites.build(tmp_path / "two", "two")
    site.cloud.fail(service="cloudfront", method="POST", drop=True, times=9)

    lost = release(folder, code=3, **env)

    assert "the CDN may not have been invalidated" in lost.stderr
    assert len(site.cloud.requests("cloudfront", "CreateInvalidation")) == 1
    assert site.holds(folder)
    assert site.get("_release/lease.json") is None
    site.cloud.server.cloud.failures.clear()
    release(folder, **env)
    assert len(site.cloud.requests("cloudfront", "CreateInvalidation")) == 2


def test_an_invalidation_is_waited_for_without_the_lease(site: Site, release: Release, tmp_path: Path) -> None:
    """It takes minutes, and the lease is released before."""
    env = changed_settings(tmp_path, distribution=site.cloud.distribution())
    release(sites.build(tmp_path / "one", "one"), **env)
    site.cloud.server.cloud.requests.clear()

    release(sites.build(tmp_path / "two", "two"), "--wait", **env)

    operations = [request["operation"] for request in site.cloud.requests()]
    assert operations.index("CreateInvalidation") < operations.index("DeleteObjects")
    assert operations.index("DeleteObjects") < operations.index("GET")


def test_an_invalidation_that_takes_too_long_is_an_unknown_outcome(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The time-out counts the duration of the requests too."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def answer(method: str, path: str) -> Reply:
        sleep(100)
        kind = "http://cloudfront.amazonaws.com/doc/2020-05-31/"
        body = f'<Invalidation xmlns="{kind}"><Id>I1</Id><Status>InProgress</Status></Invalidation>'
        return Reply(body.encode(), headers={"Content-Type": "text/xml"})

    with stand_in(answer) as server:
        for name, value in {"AWS_ENDPOINT_URL": server.url, **changed_settings(tmp_path, distribution="E1")}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(OutcomeUnknown, match="but CloudFront has not completed the invalidation I1"):
            cdn.wait_for(settings.find("local"), "I1", clock=Clock(lambda: now, sleep))

    assert len(server.requests) == 9


def test_a_storybook_is_released_where_the_settings_have_a_bucket(
    cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """In other environments it is refused."""
    folder = sites.build(tmp_path / "storybook", "one")

    done = invoke("release-storybook", f"--build-dir={folder}", **cloud.env)
    refused = invoke("release-storybook", "--env=prod", "--yes", f"--build-dir={folder}")

    assert done.returncode == 0, done.stderr
    found = cloud.client("s3").get_object(Bucket="local-mint-app-storybook", Key="index.html")
    assert found["Body"].read() == (folder / "index.html").read_bytes()
    assert refused.returncode == 2
    assert "prod has no storybook.bucket" in refused.stderr
