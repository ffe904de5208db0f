"""The commands around a release: the build, what is decided, and the list, the diff, verify and rollback."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import asdict, replace

from scripts import release_static, releases
from scripts.frame import settings
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from scripts.frame.settings import BucketName, Environment, Filled, Setting
from scripts.release import lease, plan
from scripts.release.manifest import State
from scripts.release.site import Rules
from tests.release.fault_proxy import DENIED, Fault, FaultProxy
from tests.release.test_publish import BUCKET, Site, site
from tests.release.test_rules import Local, live, local, proxy, release, write
from tests.stand_in import Reply, stand_in

__all__ = ["local", "proxy", "site"]


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment whose variables are set."""
    for name in ("OKTA_CLIENT_ID", "OKTA_SERVER_ID", "LD_CLIENT_ID"):
        monkeypatch.setenv(f"{name}_DEV", f"the {name}")
    monkeypatch.setenv("STATIC_S3_BUCKET_DEV", "dev-bucket")
    return settings.find("dev")


# The build


def commands(environment: Environment, *words: tuple[str, ...]) -> Environment:
    """The environment with other commands that install and build."""
    install, build = (*words, (), ())[:2]
    return replace(environment, frontend=replace(environment.frontend, install=install, build=build))


def test_how_the_frontend_is_built(dev: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the values of the settings, and without what a bundler would take besides."""
    for name in ("VITE_B", "VITE_A", "REACT_APP_X", "OTHER", "REACT_APP_APP_ENV"):
        monkeypatch.setenv(name, "x")

    planned = release_static.plan_build(commands(dev, ("npm", "ci"), ("npm", "run", "build now")), tmp_path)

    assert planned.folder == str(settings.ROOT)
    assert (planned.commands, planned.build_folder) == ((("npm", "ci"), ("npm", "run", "build now")), str(tmp_path))
    assert planned.left_out == ("REACT_APP_X", "VITE_A", "VITE_B")
    lines = planned.describe()
    assert "set REACT_APP_OKTA_CLIENT_ID=the OKTA_CLIENT_ID (from [defaults] with OKTA_CLIENT_ID_DEV)" in lines
    assert lines[-5:] == [
        *(f"leave out {name}, which is not in the settings" for name in planned.left_out),
        f"run npm ci in {planned.folder}",
        f"run npm run 'build now' in {planned.folder}",
    ]
    assert release_static.plan_build(commands(dev, (), ("npm",)), tmp_path).commands == (("npm",),)


def test_a_build_runs_its_commands_in_order(
    dev: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each sees only the variables that the plan says; the first failure ends it."""
    monkeypatch.setenv("VITE_EXTRA", "x")
    code = "import os; print(sorted(n for n in os.environ if n.startswith(('REACT_APP_', 'VITE_'))), os.getcwd(), '{}')"
    one, two = ((sys.executable, "-c", code.format(name)) for name in ("one", "two"))
    planned = replace(release_static.plan_build(commands(dev, one, two), tmp_path), folder=str(tmp_path))

    built = release_static.build(planned)

    printed = "".join(capfd.readouterr())
    assert printed.count(f"{sorted(planned.variables)} {tmp_path} ") == 2
    assert printed.index("one") < printed.index("two")
    assert built.values_from == ("LD_CLIENT_ID_DEV", "OKTA_CLIENT_ID_DEV", "OKTA_SERVER_ID_DEV")
    assert built.line() == (
        f"the frontend is built in {tmp_path}, with the values of LD_CLIENT_ID_DEV, OKTA_CLIENT_ID_DEV,"
        " OKTA_SERVER_ID_DEV"
    )
    assert replace(built, values_from=()).line() == f"the frontend is built in {tmp_path}"
    with pytest.raises(DeployError):
        release_static.build(replace(planned, commands=((sys.executable, "-c", "raise SystemExit(3)"), one)))
    assert "one" not in "".join(capfd.readouterr())


def test_what_can_be_known_beforehand_is_refused_beforehand(
    dev: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program that is missing, a bucket that is not set, a folder that is no build."""
    with pytest.raises(Refused, match=r"^no-such is not installed: it is needed to build the frontend\.$"):
        release_static.check(commands(dev, ("no-such",)))
    release_static.check(commands(dev, (sys.executable,)))
    with pytest.raises(Refused, match="There is no build in"):
        release_static.check(dev, build_dir=str(tmp_path / "none"), no_build=True)
    write(tmp_path, {"index.html": ""})
    release_static.check(commands(dev, ("no-such",)), build_dir=str(tmp_path), no_build=True)
    monkeypatch.delenv("STATIC_S3_BUCKET_DEV")
    with pytest.raises(Refused, match="STATIC_S3_BUCKET is not set"):
        release_static.check(settings.find("dev"), build_dir=str(tmp_path), no_build=True)
    with pytest.raises(Refused, match="STATIC_S3_BUCKET is not set"):
        release_static.check(commands(settings.find("dev"), (sys.executable,)))


@pytest.mark.parametrize(
    ("flag", "found"),
    [(None, ()), ("a.js", ("a.js",)), (" a.js,, docs/* ,", ("a.js", "docs/*")), ("", None), (" ,", None)],
)
def test_the_patterns_of_files_that_may_be_missing(flag: str | None, found: tuple[str, ...] | None) -> None:
    if found is None:
        with pytest.raises(Refused, match=r"^--allow-missing is empty"):
            release_static.patterns(flag)
    else:
        assert release_static.patterns(flag) == found


@pytest.mark.parametrize(
    ("name", "base", "served"),
    [
        ("bucket", "", "/"),
        ("bucket/app", "", "/app"),
        ("bucket", "/app/", "/app/"),
        ("bucket/app", "/other/", "/other/"),
        ("stories", "/app/", "/"),
        ("stories/book", "/app/", "/book"),
    ],
)
def test_where_a_site_is_served(dev: Environment, name: str, base: str, served: str) -> None:
    """The frontend's path is not the storybook's."""
    made = BucketName.checked(name, "a bucket")
    storybook = replace(dev.storybook, bucket=Setting(Filled(made))) if name.startswith("s") else dev.storybook
    environment = replace(dev, frontend=replace(dev.frontend, base=base), storybook=storybook)

    assert release_static.base(environment, name) == served


def test_the_folder_that_is_released() -> None:
    assert release_static.folder("frontend/build", None) == settings.ROOT / "frontend/build"
    assert release_static.folder("frontend/build", "other") == Path("other")
    with pytest.raises(Refused, match=r"^--build-dir is empty: give a folder\.$"):
        release_static.folder("frontend/build", "")


def test_the_rules_of_the_settings_are_those_of_the_site(local: Local) -> None:
    given: dict[str, Any] = {
        "keep": ("a",),
        "publish": ("b",),
        "cache_control": {"c": "d"},
        "content_types": {"e": "f"},
    }

    assert release_static.rules(local(**given)) == Rules(**given)


# What is decided


def test_a_release_is_named_by_its_time_and_version(
    local: Local, monkeypatch: pytest.MonkeyPatch, site: Site, tmp_path: Path
) -> None:
    """Who released it and in which run come from Actions; an unknown version is no obstacle."""
    names = {"GITHUB_SHA": "a" * 40, "GITHUB_ACTOR": "octocat", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "7"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    observed = release_static.observe(local(), BUCKET, write(tmp_path, {"index.html": "1"}))

    one = release_static.decide(local(), observed, now=1700000000.1239).release
    assert (one.id, one.version, one.at) == ("20231114T221320.123Z-aaaaaaa", "a" * 40, 1700000000)
    assert (one.actor, one.run, one.rolled_back_from) == ("octocat", "https://github.com/o/r/actions/runs/7", "")
    two = release_static.decide(local(), observed, now=1.0, of_version="v2", rolled_back_from="r1").release
    assert (two.id, two.version, two.rolled_back_from) == ("19700101T000001.000Z-v2", "v2", "r1")
    monkeypatch.delenv("GITHUB_SHA")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no repository"))
    assert release_static.decide(local(), observed, now=1.0).release.version == "unknown"


def test_a_dry_run_that_cannot_read_the_bucket_is_of_the_build_alone(local: Local, tmp_path: Path) -> None:
    """It cannot be carried out. A file that may be missing is said."""
    folder = write(tmp_path, {"index.html": '<script src="/env.js"></script>'})

    observed = release_static.observe_folder(local(), BUCKET, folder, ["env.js"])
    decided = release_static.decide(local(), observed)

    assert observed.state == State(None, None, unread="not read")
    assert (decided.allowed_missing, [put.key for put in decided.puts]) == (("env.js",), ["index.html"])
    with pytest.raises(Refused, match=f"^The bucket {BUCKET} could not be read, so nothing was released to it"):
        release_static.release(local(), observed, decided)


def test_a_dry_run_without_credentials_reads_no_bucket(
    dev: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Refused, match="there are no AWS credentials here"):
        release_static.observe(replace(dev, dry_run=True), "b", write(tmp_path, {"index.html": "1"}))


def test_a_dry_run_warns_of_whoever_is_releasing(
    local: Local, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run asks for the lease itself."""
    hold(site)
    folder = write(tmp_path, {"index.html": "1"})

    release_static.observe(local(), BUCKET, folder)
    assert "is releasing" not in capsys.readouterr().err
    observed = release_static.observe(replace(local(), dry_run=True), BUCKET, folder)
    assert "warning: octocat (h) is releasing to" in capsys.readouterr().err
    assert observed.bucket is not None


def test_where_a_site_is_served_is_invalidated(local: Local, site: Site, tmp_path: Path) -> None:
    """And what pages load comes before them, also if the bucket could not be read."""
    page = '<script src="/app/sw.js"></script>'
    folder = write(tmp_path, {"index.html": page, "sw.js": "1"})
    environment = local(distribution=site.cloud.distribution())
    name = f"{BUCKET}/app"
    release(environment, folder, name)
    write(folder, {"sw.js": "2"})

    observed = release_static.observe(environment, name, folder)
    assert release_static.decide(environment, observed).invalidate == ("/app/sw.js",)
    alone = release_static.decide(environment, release_static.observe_folder(environment, name, folder))
    assert {put.key: put.stage for put in alone.puts} == {"sw.js": plan.NEW, "index.html": plan.COMMIT}


def test_what_is_left_out_of_a_release_is_said(
    local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = '<script src="/env.js"></script><script src="/gone.js"></script>'
    folder = write(tmp_path, {"index.html": page, "env.js": "", ".DS_Store": ""})

    found = release_static.read_site(local(keep=("env.js",)), BUCKET, folder, ["gone.js"])

    said = capsys.readouterr().err
    assert "left out, because others write them: env.js" in said
    assert "left out, because no site needs them: .DS_Store" in said
    assert "missing, and allowed by --allow-missing: gone.js" in said
    assert (sorted(found.site.files), found.missing) == (["index.html"], ("gone.js",))


def test_a_release_says_what_may_be_missing(local: Local, site: Site, tmp_path: Path) -> None:
    folder = write(tmp_path, {"index.html": '<script src="/env.js"></script>'})

    done = release_static.release_static(run(local()), build_dir=str(folder), no_build=True, allow_missing="env.*")

    assert done is not None
    assert done.allowed_missing == ("env.js",)


def test_what_pages_load_is_put_before_them(local: Local, site: Site, tmp_path: Path) -> None:
    folder = write(tmp_path, {"index.html": '<script src="/sw.js"></script>', "sw.js": "1"})
    release(local(), folder)
    write(folder, {"sw.js": "2", "index.html": '<script src="/sw.js"></script>2'})

    decided = release_static.decide(local(), release_static.observe(local(), BUCKET, folder))

    assert [(put.key, put.stage) for put in decided.puts] == [("sw.js", plan.OTHER), ("index.html", plan.COMMIT)]


def test_an_unreadable_manifest_is_warned_of(
    local: Local, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.faults.append(Fault("GET", "manifest.json", status=403, body=DENIED))

    observed = release_static.observe(local(), BUCKET, write(tmp_path, {"index.html": "1"}))

    assert "AccessDenied" in observed.state.unread
    assert (
        "warning: the manifest cannot be read, so this release deletes nothing: S3 refused" in capsys.readouterr().err
    )


# The commands


@pytest.fixture
def two(local: Local, site: Site, tmp_path: Path) -> Path:
    """Two releases: in the second one a file is new and one has changed. Returns the folder of the second one."""
    folder = write(tmp_path / "build", {"index.html": "1", "a.txt": "1"})
    release(local(), folder)
    release(local(), write(folder, {"index.html": "2", "b.txt": "2"}))
    return folder


def run(environment: Environment, **other: Any) -> Run:
    """A run of a command."""
    return Run("release", environment, **other)


def test_the_list_of_releases(local: Local, site: Site, two: Path) -> None:
    """Those that can be restored as data; the live one always."""
    found = releases.list_releases(run(local()))
    assert found is not None
    assert found.line() == f"{BUCKET} keeps 2 releases"
    assert [line[0][:2] for line in found.table()] == ["* ", "  "]

    for key in ("a.txt", "index.html"):
        site.put(key, b"theirs")
    for key in site.cloud.objects(BUCKET).keys() - site.all_keys():
        if key.startswith("_release/files/"):
            site.s3.delete_object(Bucket=BUCKET, Key=key)
    lost = releases.list_releases(run(local()))
    assert lost is not None
    assert lost.line() == f"{BUCKET} keeps 1 release"
    assert [line[0][:2] for line in lost.table()] == ["* ", "- "]
    assert [one.id for one in lost.data] == [live(local())]  # type: ignore[union-attr]


def test_a_list_warns_of_whoever_is_releasing(
    local: Local, site: Site, two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(site)

    releases.list_releases(run(local()))

    assert "warning: octocat (h) is releasing to" in capsys.readouterr().err


def test_what_changed_between_two_releases(local: Local, two: Path) -> None:
    found = releases.diff(run(local()))

    assert found is not None
    assert re.fullmatch(r"\S+-abc -> \S+-abc: 2 files", found.line())
    assert found.table() == [("+ b.txt",), ("~ index.html",)]
    newest, oldest = found.line().split()[2].rstrip(":"), found.line().split()[0]
    back = releases.diff(run(local()), old=newest, new=oldest)
    assert back is not None
    assert back.table() == [("- b.txt",), ("~ index.html",)]


def test_a_bucket_is_verified(local: Local, site: Site, two: Path) -> None:
    """Every finding is in the error. What others write is none, nor is it asked for."""
    whole = releases.verify(run(local(keep=("theirs.js",))))
    assert whole is not None
    assert whole.line() == f"{BUCKET} is as released: 3 files, 0 findings"

    site.put("b.txt", b"theirs")
    with pytest.raises(DeployError) as failed:
        releases.verify(run(local()))
    assert str(failed.value) == f"{BUCKET} is not as released: 3 files, 1 findings\noverwritten b.txt"
    page = '<script src="/theirs.js"></script><script src="/never.js"></script>'
    with stand_in(lambda *_: Reply(page.encode(), 200, {"Content-Type": "text/html"})) as server:
        release(local(keep=("theirs.js",)), write(two, {"index.html": page, "never.js": ""}))
        with pytest.raises(DeployError, match=r", 1 findings\nserved never\.js: has the type text/html"):
            releases.verify(run(local(keep=("theirs.js",))), url=f"{server.url}/")
    with pytest.raises(Refused, match="the URL of a site"):
        releases.verify(run(local()), url="ftp://x")


def test_a_rollback_is_a_release_of_the_earlier_one(local: Local, site: Site, two: Path) -> None:
    """With its version, and the one that it went back from; a dry run only reads."""
    before, facts = live(local()), run(local())
    dry = run(replace(local(), dry_run=True), dry_run=True)
    assert releases.rollback(dry) is None
    assert [step.name for step in dry.steps] == ["rollback"]
    planned = dry.steps[0].plan
    assert live(local()) == before

    done = releases.rollback(facts)

    assert done is not None
    assert isinstance(planned, plan.ReleasePlan)
    assert (done.puts, done.requests) == (1, planned.requests)
    assert site.get("index.html") == ("text/html; charset=utf-8", b"1")
    _, state = releases.look(local(), BUCKET)
    assert state.manifest
    newest = next(iter(state.manifest.releases))
    assert (newest.version, newest.rolled_back_from) == ("abc", before)
    assert facts.facts.items() >= {"version": "abc", "rolled_back_from": "abc"}.items()
    again = releases.rollback(run(local()), to=before)
    assert again is not None
    assert site.get("index.html") == ("text/html; charset=utf-8", b"2")
    with pytest.raises(Refused, match="'x' is not a kept release"):
        releases.rollback(run(local()), to="x")


@pytest.mark.parametrize("verb", [releases.list_releases, releases.diff, releases.verify, releases.rollback])
def test_another_bucket_may_be_given(local: Local, two: Path, verb: Callable[..., object]) -> None:
    """It must be the name of one."""
    with pytest.raises(Refused, match=f"^{BUCKET}/other has no releases"):
        verb(run(local()), bucket=f"{BUCKET}/other")
    with pytest.raises(Refused, match="is not the name of a bucket"):
        verb(run(local()), bucket="A")


def test_a_rollback_counts_its_own_requests_alone(local: Local, site: Site, two: Path) -> None:
    """Of a bucket whose lease the run holds already. It asks for no other lease."""
    environment = local()
    waiting = run(environment, lock_wait=1.0)
    seen = len(site.cloud.requests("s3"))

    done = releases.rollback(waiting)

    assert done is not None
    own = [one for one in site.cloud.requests("s3")[seen:] if "receipts" not in one["path"]]
    leases = [one["operation"] for one in own if one["path"].endswith("lease.json")]
    assert leases.count("PutObject") == 1
    assert done.requests == len(own) - leases.count("PutObject") - leases.count("GetObject")


def hold(site: Site) -> None:
    """Let another run, of another machine, hold the lease for long."""
    theirs = replace(lease.here("octocat", ""), id="x", expires=4_000_000_000, host="h")
    site.put("_release/lease.json", msgspec.json.encode(asdict(theirs)))


def kept(site: Site) -> int:
    """How many receipts were written."""
    return sum("receipts" in one["path"] for one in site.cloud.requests("s3", "PutObject"))


def test_a_release_leaves_a_receipt_with_its_version(local: Local, site: Site, tmp_path: Path) -> None:
    """If anything was released. Other steps of the run may have said which version it is."""
    folder = str(write(tmp_path, {"index.html": "1"}))
    first, again, other = run(local()), run(local()), run(local())
    other.facts["version"] = "v9"

    release_static.release_static(first, build_dir=folder, no_build=True)
    assert ([step.name for step in first.steps], first.facts["version"], kept(site)) == (["release"], "abc", 1)
    release_static.release_static(again, build_dir=folder, no_build=True)
    assert kept(site) == 1
    write(tmp_path, {"index.html": "2"})
    done = release_static.release_static(other, build_dir=folder, no_build=True)
    assert done is not None
    assert (done.release.rpartition("-")[2], kept(site)) == ("v9", 2)


def test_a_storybook_is_no_version_of_the_application(local: Local, site: Site, tmp_path: Path) -> None:
    """It has a bucket of its own, and leaves no receipt."""
    folder = write(tmp_path, {"index.html": '<script src="env.js"></script>'})
    environment = local(base="/app/")

    done = release_static.release_storybook(run(environment), build_dir=str(folder), allow_missing="env.js")

    assert done is not None
    assert (done.bucket, done.allowed_missing, kept(site)) == (
        str(environment.storybook.bucket.known()),
        ("env.js",),
        0,
    )


@pytest.mark.parametrize("wait", [False, True])
def test_the_cdn_is_waited_for_on_request(local: Local, site: Site, tmp_path: Path, wait: bool) -> None:
    """Where there is one."""
    environment = local(distribution=site.cloud.distribution())
    folder = write(tmp_path, {"index.html": "1"})
    release(environment, folder)
    for act in (
        lambda: release_static.release_static(run(environment), build_dir=str(folder), no_build=True, wait=wait),
        lambda: releases.rollback(run(environment), wait=wait),
    ):
        write(folder, {"index.html": "2"})
        site.cloud.server.cloud.requests.clear()
        act()
        asked = [one["operation"] for one in site.cloud.requests("cloudfront")]
        assert (asked.count("CreateInvalidation"), "GET" in asked) == (1, wait)

    site.cloud.server.cloud.requests.clear()
    release_static.release_static(run(local()), build_dir=str(folder), no_build=True, wait=wait)
    assert site.cloud.requests("cloudfront") == []


@pytest.mark.parametrize("lock_wait", [0.0, 1.0])
def test_a_release_counts_its_own_requests_alone(local: Local, site: Site, tmp_path: Path, lock_wait: float) -> None:
    """As many as its plan says, also where it has waited for the lease before."""
    folder = str(write(tmp_path, {"index.html": "1"}))
    released = run(local(), lock_wait=lock_wait)

    done = release_static.release_static(released, build_dir=folder, no_build=True)

    planned = released.steps[0].plan
    assert done is not None
    assert isinstance(planned, plan.ReleasePlan)
    # The lease that was taken before is not the release's own.
    assert done.requests == planned.requests - bool(lock_wait)


def test_two_runs_do_not_release_to_a_bucket_at_the_same_time(
    local: Local, site: Site, two: Path, tmp_path: Path
) -> None:
    """With --force-lock the second one takes the lease over."""
    folder = write(tmp_path / "build", {"index.html": "3"})
    hold(site)
    acts: tuple[Callable[[Run], object], ...] = (
        lambda run: release_static.release_static(run, build_dir=str(folder), no_build=True),
        releases.rollback,
    )
    for act in acts:
        with pytest.raises(Refused, match="octocat"):
            act(run(local()))
        assert act(run(local(), force_lock=True)) is not None
        assert site.get("_release/lease.json") is None
        hold(site)
