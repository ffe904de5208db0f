"""Other people's keys, sites in a folder, names that prove nothing, and errors that say what was done."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scripts import release_static, releases
from scripts.edges import s3
from scripts.frame import settings
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused
from scripts.frame.settings import Environment
from scripts.release import cdn, content, history, lease, plan
from scripts.release import verify as verification
from scripts.release.publish import Released
from tests.conftest import EmbeddedCloud, Invoke
from tests.release import browser, sites
from tests.release.fault_proxy import DENIED, Fault, FaultProxy, fault_proxy
from tests.release.test_publish import BUCKET, Site, changed_settings, site

__all__ = ["site"]

EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
SKEWED = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"
CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>Try again.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>Please try again.</Message></Error>"

Local = Callable[..., Environment]


@pytest.fixture
def local(cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> Local:
    """`local(keep=("env.js",))`: the embedded environment with other settings of the frontend."""
    for name, value in cloud.env.items():
        monkeypatch.setenv(name, value)

    def make(**changes: Any) -> Environment:
        environment = settings.find("local")
        if "distribution" in changes:
            changes["distribution"] = settings.Setting(settings.Filled(changes["distribution"]))
        return msgspec.structs.replace(environment, frontend=msgspec.structs.replace(environment.frontend, **changes))

    return make


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer tries and shorter pauses."""
    monkeypatch.setattr(s3, "TRIES", 3)
    monkeypatch.setattr(s3, "FIRST_PAUSE", 0.02)


@pytest.fixture
def proxy(cloud: EmbeddedCloud, local: Local, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A proxy in front of the embedded AWS."""
    with fault_proxy(cloud.url) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


def release(environment: Environment, folder: Path, name: str = BUCKET) -> Released:
    """Release a folder in this process. Raises DeployError."""
    observed = release_static.observe(environment, name, folder)
    return release_static.release(environment, observed, release_static.decide(environment, observed))


def write(folder: Path, files: Mapping[str, str] | Mapping[str, bytes]) -> Path:
    """Write files into a folder."""
    for key, body in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body.encode() if isinstance(body, str) else body)
    return folder


def changing(folder: Path, version: str) -> Path:
    """Write a site that differs from its other versions in every stage of a release."""
    sites.add_worker(sites.build(folder, version, chunks=1), version)
    return write(folder, {"robots.txt": version})


def ours(site: Site) -> dict[str, bytes]:
    """What the bucket holds, but for the lease."""
    return {key: body for key, (_, body) in site.cloud.objects(BUCKET).items() if not key.endswith("lease.json")}


def live(environment: Environment, name: str = BUCKET) -> str:
    """The id of the live release, as `release.list` says it."""
    return next(iter(history.known(releases.look(environment, name)[1], name).releases)).id


def roll_back(environment: Environment, folder: Path, to: str | None = None, name: str = BUCKET) -> None:
    """Go back to a release, by default the one before."""
    folder.mkdir(exist_ok=True)
    found = releases.restored(environment, name, to, folder)
    decided = release_static.decide(environment, found.observed)
    release_static.release(environment, found.observed, decided)


# Keys of others


def test_keys_of_others_are_never_put_deleted_or_missed(site: Site, local: Local, tmp_path: Path) -> None:
    """Although the build has one of them, the page references two, and no release is kept."""
    environment = local(keep=("env.js", "runtime-config.json", "docs/*"), keep_releases=0, max_delete_percent=100)
    for key in ("env.js", "runtime-config.json", "docs/a/b.html"):
        site.put(key)
    page = '<script src="/env.js"></script><img src="/docs/a.png">'
    for number in range(3):
        folder = write(
            tmp_path / str(number), {"index.html": f"{page}{number}", "env.js": "local", "a.txt": str(number)}
        )
        release(environment, folder)

    assert site.puts() == ["env.js", "runtime-config.json", "docs/a/b.html", *["a.txt", "index.html"] * 3]
    assert site.all_keys() == {"env.js", "runtime-config.json", "docs/a/b.html", "a.txt", "index.html"}
    _, state = releases.look(environment, BUCKET)
    assert verification.compare(state, history.known(state, BUCKET), BUCKET).lines() == []


def test_a_key_that_becomes_anothers_stays_where_it_is(site: Site, local: Local, tmp_path: Path) -> None:
    """It is in an earlier release, which can still be restored."""
    folder = write(tmp_path / "build", {"index.html": "1", "env.js": "1"})
    release(local(keep_releases=1), folder)
    environment = local(keep_releases=1, keep=("env.js",))
    write(folder, {"index.html": "2", "env.js": "2"})
    release(environment, folder)
    site.put("env.js", b"theirs")
    release(environment, write(folder, {"index.html": "3"}))

    roll_back(environment, tmp_path / "back")

    assert site.get("index.html") == ("text/html; charset=utf-8", b"2")
    assert (site.get("env.js") or ("", b""))[1] == b"theirs"


def test_many_foreign_objects_are_named_at_the_first_release_and_stay(
    site: Site, local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All releases go: what is too much to delete stays, and each says so."""
    for number in range(60):
        site.put(f"theirs/{number:02}")
    plans = []
    for number in range(5):
        folder = write(tmp_path / "build", {"index.html": str(number), "a.txt": "a"})
        observed = release_static.observe(local(), BUCKET, folder)
        plans.append(release_static.decide(local(), observed))
        release_static.release(local(), observed, plans[-1])

    first = plans[0].warnings[0]
    assert "holds 60 objects that no release has put: theirs/00, theirs/01," in first
    assert first.count("theirs/") == 20
    assert " and 40 more. After 2 more releases they are deleted, as far as max_delete_percent allows" in first
    assert "60 objects that no release has put stay in" in plans[-1].warnings[0]
    assert len(site.all_keys()) == 62


def test_a_few_foreign_objects_are_named_before_they_are_deleted(site: Site, local: Local, tmp_path: Path) -> None:
    """Also those that came later."""
    folder = write(tmp_path / "build", {"index.html": "1", "a.txt": "", "b.txt": "", "c.txt": ""})
    release(local(), folder)
    site.put("theirs.txt")

    decided = release_static.decide(local(), release_static.observe(local(), BUCKET, folder))

    assert [delete.key for delete in decided.deletes] == ["theirs.txt"]
    assert "1 objects that no release has put are deleted from" in decided.warnings[0]
    assert "theirs.txt; what others write belongs into frontend.keep" in decided.warnings[0]


# A folder of the bucket


def test_a_site_in_a_folder_of_its_bucket(site: Site, local: Local, tmp_path: Path) -> None:
    """With its own manifest; the rest of the bucket is not touched, and its page is served below the folder."""
    name, distribution = f"{BUCKET}/app", site.cloud.distribution()
    environment = local(keep_releases=1, max_delete_percent=100, distribution=distribution)
    for key in ("index.html", "other/a.txt", "app/"):
        site.put(key)
    page = '<script src="/app/a.js"></script><script src="b.js"></script>'
    for number in range(3):
        files = {"index.html": f"{page}{number}", "help/index.html": str(number), "a.js": "", "b.js": str(number)}
        release(environment, write(tmp_path / "build", files), name)
    now = live(environment, name)
    roll_back(environment, tmp_path / "back", name=name)

    ours = {"app/index.html", "app/help/index.html", "app/a.js", "app/b.js"}
    keys = {key for key in site.cloud.objects(BUCKET) if "_release/" not in key}
    assert keys == {"index.html", "other/a.txt", "app/", *ours}
    assert site.get("app/index.html") == ("text/html; charset=utf-8", f"{page}1".encode())
    assert live(environment, name) != now
    assert site.get("_release/manifest.json") is None
    assert site.get("app/_release/manifest.json") is not None
    told = [request["parameters"]["paths"] for request in site.cloud.requests("cloudfront", "CreateInvalidation")]
    assert told[-1] == ["/app/", "/app/b.js", "/app/help/", "/app/help/index.html", "/app/index.html"]


def test_a_build_for_another_path_is_refused_with_the_setting_that_is_missing(local: Local, tmp_path: Path) -> None:
    """With that setting it goes."""
    folder = write(tmp_path / "build", {"index.html": "<script src=/app/a.js></script>", "a.js": ""})

    with pytest.raises(Refused, match=r"Set frontend\.base, or frontend\.bucket to BUCKET/app"):
        release_static.observe(local(), BUCKET, folder)
    release(local(base="/app/"), folder)


@pytest.mark.parametrize("name", ["a/b", "bucket/", "bucket//a", "bucket/../a", "bucket/a b", "bucket/./a"])
def test_a_folder_that_cannot_be_one_is_refused(name: str) -> None:
    setting = settings.find("local").frontend.bucket

    with pytest.raises(Refused, match="is not the name of a bucket"):
        release_static.bucket_name(setting, name)


def test_the_folder_of_a_bucket_may_be_given_on_the_command_line(site: Site, invoke: Invoke, tmp_path: Path) -> None:
    folder = write(tmp_path / "build", {"index.html": "<script src=/a/b/c.js></script>", "c.js": ""})

    done = invoke("release-static", "--no-build", f"--build-dir={folder}", f"--bucket={BUCKET}/a/b", **site.cloud.env)

    assert done.returncode == 0, done.stderr
    assert f"{BUCKET}/a/b holds release" in done.stderr
    assert site.get("a/b/index.html") is not None


def test_missing_files_are_allowed_knowingly(site: Site, invoke: Invoke, tmp_path: Path) -> None:
    """By patterns on the command line. The receipt says which were missing."""
    folder = write(tmp_path / "build", {"index.html": "<script src=/env.js></script><img src=/docs/a.png>"})
    words = ("release-static", "--no-build", f"--build-dir={folder}")

    refused = invoke(*words, **site.cloud.env)
    empty = invoke(*words, "--allow-missing=", **site.cloud.env)
    done = invoke(*words, "--allow-missing=env.js, docs/*", **site.cloud.env)

    assert (refused.returncode, empty.returncode, done.returncode) == (2, 2, 0)
    assert "--allow-missing=PATTERN" in refused.stderr.splitlines()[-1]
    (receipt,) = [body for key, (_, body) in site.cloud.objects(BUCKET).items() if "/receipts/" in key]
    assert "missing, and allowed: env.js, docs/a.png" in json.dumps(json.loads(receipt))


# Names that prove nothing

HASHED = "assets/index-Dk3l_9aZ.js"


def test_content_that_changes_under_a_hashed_name_can_be_rolled_back(site: Site, local: Local, tmp_path: Path) -> None:
    """It is said, invalidated and copied first; each kept release can be restored."""
    environment = local(distribution=site.cloud.distribution())
    page = f'<script type="module" src="/{HASHED}"></script>'
    folders = [write(tmp_path / str(n), {"index.html": f"{page}{n}", HASHED: f"'{n}'"}) for n in range(3)]
    release(environment, folders[0])
    for folder in folders[1:]:
        observed = release_static.observe(environment, BUCKET, folder)
        decided = release_static.decide(environment, observed)
        release_static.release(environment, observed, decided)
        assert f"files have new content under names that browsers keep for a year: {HASHED}" in decided.warnings[0]
        assert f"/{HASHED}" in decided.invalidate

    kept = list(history.known(releases.look(environment, BUCKET)[1], BUCKET).releases)
    for number, one in enumerate(reversed(kept)):
        roll_back(environment, tmp_path / f"back{number}", one.id)
        assert site.holds(folders[number])
        assert browser.problems(site.get) == []


def test_a_rule_for_a_folder_makes_its_files_immutable(site: Site, local: Local, tmp_path: Path) -> None:
    """They need no copy."""
    environment = local(cache_control={"fixed/*": "public, max-age=31536000, immutable"})

    release(environment, write(tmp_path / "build", {"index.html": "1", "fixed/a.js": "2", "b.js": "1"}))

    copies = [key for key in site.cloud.objects(BUCKET) if key.startswith("_release/files/")]
    # The page and b.js have the same content.
    assert len(copies) == 1


def test_names_that_may_be_hashed_and_unknown_types_are_hinted_at(
    local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each in one line."""
    files = {f"lib/part{number}.Standard.js": "" for number in range(6)}
    release_static.read_site(local(), BUCKET, write(tmp_path, {"index.html": "1", "a.unknown": "", **files}))

    said = capsys.readouterr().err
    assert "of unknown type, frontend.content_types can name it: a.unknown" in said
    assert "6 names may have a hash, and are not cached forever: lib/part0.Standard.js" in said
    assert 'frontend.cache_control."lib/*" = "public, max-age=31536000, immutable"' in said


# Order


def test_a_service_worker_that_installs_at_any_moment_ends_with_the_new_page(
    site: Site, local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every single change of two releases a browser installs it, and comes back when the release is done."""
    browsers: list[browser.Worker] = []
    outermost = site.cloud.server._outermost

    def watched(environ: dict[str, Any], start: Any) -> Any:
        answer = outermost(environ, start)
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].startswith(f"/{BUCKET}"):
            browsers.append(browser.Worker(site.get))
        return answer

    monkeypatch.setattr(site.cloud.server, "_outermost", watched)
    for version in ("one", "two"):
        release(local(), sites.add_worker(sites.build(tmp_path / "build", version), version))

    for one in browsers:
        one.update(site.get)
        assert one.stale(site.get) == []
    assert len(browsers) > 20
    assert site.puts()[-3:] == ["index.html", "version.json", "sw.js"]


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        (plan.NEW, "assets/index-Dk3l_9aZ.js workbox-0a1b2c3d.js"),
        (plan.OTHER, "robots.txt a.js manifest.json site.webmanifest data/index.json assets/swatch.js swiper.js"),
        (plan.PAGES, "help/index.html 404.html iframe.htm"),
        (plan.COMMIT, "index.html"),
        (
            plan.POINTERS,
            "version.json _app/version.json ngsw.json asset-manifest.json .vite/manifest.json sitemap.xml sitemap-0.xml"
            " sitemap-index.xml.gz rss.xml blog/feed.xml atom.xml news.atom feed.json",
        ),
        (
            plan.WORKERS,
            "sw.js app/service-worker.js serviceworker.js ngsw-worker.js safety-worker.js firebase-messaging-sw.js",
        ),
    ],
)
def test_the_stage_of_a_file(stage: str, keys: str) -> None:
    """By its name, if no page loads it."""
    for key in keys.split():
        assert plan.stage_of(key, content.headers(key, "", {})) == stage, key


def test_a_file_that_describes_the_page_but_is_loaded_by_it_comes_before(
    site: Site, local: Local, tmp_path: Path
) -> None:
    """Whatever its name says."""
    release(local(), write(tmp_path, {"index.html": "<script src=sw.js></script>", "sw.js": "", "version.json": "{}"}))

    assert site.puts() == ["sw.js", "index.html", "version.json"]


# What was done


def test_a_note_that_fails_alone_is_no_refusal(
    site: Site, local: Local, proxy: FaultProxy, quick: None, tmp_path: Path
) -> None:
    """Nothing but the page changes, so no file is put beside the note, which S3 may have written."""
    environment = local(keep_releases=0)
    old = release(environment, write(tmp_path / "build", {"index.html": "1"}))
    write(tmp_path / "build", {"index.html": "2"})
    proxy.faults.append(Fault("PUT", "/_release/next.json", status=403, body=EXPIRED))

    with pytest.raises(DeployError, match=f"release {old.release} is still live; 0 files of the new one") as failed:
        release(environment, tmp_path / "build")
    assert failed.value.exit_code == 1


@pytest.mark.parametrize(
    ("gone", "failing", "number", "code"),
    [
        ("assets/a-0a1b2c3d.js robots.txt", "GET .*/manifest.json", 3, 1),
        ("assets/a-0a1b2c3d.js assets/b-0a1b2c3d.js", "PUT .*/assets/", 1, 1),
        ("assets/a-0a1b2c3d.js", "PUT .*/assets/", 1, 2),
    ],
)
def test_after_a_file_may_have_been_put_again_nothing_is_a_refusal(
    site: Site,
    local: Local,
    proxy: FaultProxy,
    quick: None,
    tmp_path: Path,
    gone: str,
    failing: str,
    number: int,
    code: int,
) -> None:
    """The same release has no note. Of several files that are sent at once, one may be written although another is
    not; one alone that is refused was not."""
    files = dict.fromkeys(("assets/a-0a1b2c3d.js", "assets/b-0a1b2c3d.js", "robots.txt"), "")
    folder = write(tmp_path / "build", {"index.html": "1", **files})
    old = release(local(), folder)
    for key in gone.split():
        site.s3.delete_object(Bucket=BUCKET, Key=key)
    if "robots.txt" in gone:
        site.put("robots.txt")
    left = [None] * (number - 1) + [Fault("", "", status=403, body=EXPIRED)]

    def fault(method: str, path: str) -> Fault | None:
        return left.pop(0) if left and re.fullmatch(f"{failing}.*", f"{method} {path}") else None

    proxy.fault = fault  # type: ignore[method-assign]

    with pytest.raises(DeployError) as failed:
        release(local(), folder)
    assert failed.value.exit_code == code
    assert (f"release {old.release} is still live" in str(failed.value)) == (code == 1)


@pytest.mark.parametrize(
    ("changed", "last"),
    [
        ("index.html robots.txt sw.js", ["index.html"]),
        ("robots.txt a.html b.html c.html d.html", ["a.html", "b.html", "c.html"]),
        ("robots.txt a.txt", ["a.txt", "robots.txt"]),
        ("assets/b-0a1b2c3d.js", ["assets/b-0a1b2c3d.js"]),
        ("version.json sw.js", ["sw.js"]),
        ("new.txt robots.txt", ["robots.txt"]),
    ],
)
def test_a_note_names_what_is_put_last_before_the_release_is_live(
    site: Site, local: Local, proxy: FaultProxy, quick: None, tmp_path: Path, changed: str, last: list[str]
) -> None:
    """Three of the last stage up to the commit point, or of what comes after it where nothing else changes."""
    keys = ["index.html", "robots.txt", "a.txt", "a.html", "b.html", "c.html", "d.html", "version.json", "sw.js"]
    folder = write(tmp_path / "build", dict.fromkeys(keys, "1"))
    release(local(), folder)
    proxy.faults.append(Fault("PUT", "/_release/manifest.json", status=403, body=DENIED))
    with pytest.raises(DeployError, match="is live"):
        release(local(), write(folder, dict.fromkeys(changed.split(), "2")))

    assert json.loads((site.get("_release/next.json") or ("", b""))[1])["last"] == last


def test_nothing_is_overwritten_before_it_is_copied(
    site: Site, local: Local, proxy: FaultProxy, quick: None, tmp_path: Path
) -> None:
    """Also a file whose name says that it never changes, and which is put with the new ones."""
    environment, key = local(), "assets/a-0a1b2c3d.js"
    release(environment, write(tmp_path / "build", {"index.html": "1", key: "old"}))
    write(tmp_path / "build", {"index.html": "2", key: "new"})
    proxy.faults.append(Fault("PUT", f"/_release/files/{hashlib.sha256(b'old').hexdigest()}", status=403, body=DENIED))

    with pytest.raises(DeployError, match="AccessDenied"):
        release(environment, tmp_path / "build")

    assert (site.get(key) or ("", b""))[1] == b"old"


def test_the_manifest_is_never_cached_and_a_copy_is_of_no_type(site: Site, local: Local, tmp_path: Path) -> None:
    release(local(), write(tmp_path / "build", {"index.html": "1"}))

    stored = site.cloud.objects(BUCKET)
    headers, _ = stored["_release/manifest.json"]
    assert (headers["content-type"], headers["cache-control"]) == ("application/json; charset=utf-8", "no-store")
    copies = [headers["content-type"] for key, (headers, _) in stored.items() if "_release/files/" in key]
    assert copies == ["application/octet-stream"]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "denied", [[], [Fault("GET", "/_release/manifest.json", status=403, body=DENIED)]], ids=["", "unread"]
)
def test_a_lease_that_is_held_around_a_release_ends_with_it_unless_more_is_to_come(
    site: Site, local: Local, proxy: FaultProxy, tmp_path: Path, shared: bool, denied: list[Fault]
) -> None:
    """Waiting for the CDN needs it no more; the other steps of a deployment do."""
    environment = local(distribution=site.cloud.distribution())
    folder = write(tmp_path / "build", {"index.html": "1", "a.txt": "1"})
    release(environment, folder)
    write(folder, {"index.html": "2", "a.txt": "2"})
    bucket = s3.open_bucket(environment, BUCKET)
    proxy.faults += denied

    with lease.held(bucket, lease.here("octocat", ""), shared=shared):
        done = release(environment, folder)
        assert (site.get("_release/lease.json") is not None) == shared

    assert site.get("_release/lease.json") is None
    assert site.get("_release/next.json") is None
    assert (done.puts, bool(done.invalidation)) == (2, True)


def test_each_stage_is_announced(site: Site, local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Except the last of them, which is one file. It takes as many requests as were planned, with a CDN too."""
    environment = local(distribution=site.cloud.distribution())
    release(environment, changing(tmp_path / "build", "one"))
    observed = release_static.observe(environment, BUCKET, changing(tmp_path / "build", "two"))
    decided = release_static.decide(environment, observed)
    capsys.readouterr()

    assert release_static.release(environment, observed, decided).requests == decided.requests

    assert [line for line in capsys.readouterr().err.splitlines() if "putting" in line] == [
        "new files: putting 9",
        "changed files: putting 1",
        "pages: putting 1",
        "files that describe the page: putting 1",
        "service workers: putting 1",
    ]


@pytest.mark.parametrize("body", [EXPIRED, SKEWED], ids=["expired", "skewed"])
def test_an_error_before_the_first_write_changes_nothing(
    site: Site, local: Local, proxy: FaultProxy, quick: None, tmp_path: Path, body: bytes
) -> None:
    proxy.faults.append(Fault("GET", "list-type=2", status=403, body=body))

    with pytest.raises(DeployError) as failed:
        release(local(), sites.build(tmp_path / "old", "one"))
    assert failed.value.exit_code == 2
    assert site.puts() == []


def test_a_slow_answer_to_the_page_leaves_the_outcome_unknown(
    site: Site, local: Local, proxy: FaultProxy, quick: None, tmp_path: Path
) -> None:
    proxy.faults.append(Fault("PUT", f"^/{BUCKET}/index.html", status=500, body=INTERNAL))

    with pytest.raises(OutcomeUnknown, match="It is not known whether"):
        release(local(), sites.build(tmp_path / "old", "one"))


@pytest.mark.parametrize("fault", [Fault("PUT", "/manifest.json", status=403, body=DENIED),
                                   Fault("PUT", "/manifest.json", "reset")], ids=["denied", "lost"])  # fmt: skip
def test_after_a_lost_manifest_every_command_knows_the_live_release(
    site: Site,
    local: Local,
    proxy: FaultProxy,
    quick: None,
    tmp_path: Path,
    fault: Fault,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The list, verify and rollback before the next release; and that one repairs the manifest and does no more."""
    environment = local()
    old, new = sites.build(tmp_path / "old", "one"), sites.build(tmp_path / "new", "two")
    first = release(environment, old)
    proxy.faults.append(Fault(**vars(fault)))
    with pytest.raises(DeployError, match="is live") as failed:
        release(environment, new)
    assert failed.value.exit_code == (1 if fault.status else 3)
    proxy.faults.clear()

    assert "although its manifest" not in capsys.readouterr().err
    _, state = releases.look(environment, BUCKET)
    current = history.known(state, BUCKET)
    assert f"holds release {live(environment)}, although its manifest was not written" in capsys.readouterr().err
    assert [one.id for one in current.releases][1:] == [first.release]
    assert current.files["index.html"].size == (new / "index.html").stat().st_size
    assert verification.compare(state, current, BUCKET).is_whole
    before = len(site.puts())
    done = release(environment, new)

    assert (done.release, done.puts) == (live(environment), 0)
    assert site.puts()[before:] == []
    assert site.get("_release/next.json") is None
    roll_back(environment, tmp_path / "back")
    assert site.holds(old)


def test_an_invalidation_whose_answer_is_lost_is_not_sent_again(site: Site, local: Local, proxy: FaultProxy) -> None:
    """CloudFront may have begun it."""
    environment = local(distribution=site.cloud.distribution())
    proxy.faults.append(Fault("POST", "/invalidation", kind="lost"))

    with pytest.raises(OutcomeUnknown, match="invalidating 1 paths of "):
        cdn.invalidate(environment, ("/",))

    assert len(site.cloud.requests("cloudfront", "CreateInvalidation")) == 1


def test_a_note_of_a_release_that_never_went_live_says_nothing(
    site: Site, local: Local, proxy: FaultProxy, quick: None, tmp_path: Path
) -> None:
    """The old release is the live one, for every command."""
    environment = local()
    first = release(environment, sites.build(tmp_path / "old", "one"))
    proxy.faults.append(Fault("PUT", f"^/{BUCKET}/index.html", status=403, body=DENIED))
    with pytest.raises(DeployError):
        release(environment, sites.build(tmp_path / "new", "two"))

    assert site.get("_release/next.json") is not None
    assert live(environment) == first.release
    site.put("_release/next.json", b"nonsense")
    assert live(environment) == first.release


def test_two_writes_at_the_same_moment_are_tried_again(
    site: Site, local: Local, proxy: FaultProxy, quick: None, tmp_path: Path
) -> None:
    """S3 answers 409, which says nothing about who won."""
    proxy.faults.append(Fault("PUT", "/manifest.json", times=1, status=409, body=CONFLICT))

    release(local(), sites.build(tmp_path / "old", "one"))

    assert proxy.faults[0].times == 0
    assert site.get("_release/manifest.json") is not None


def test_headers_of_the_settings_are_sent_with_everything_that_is_written(
    site: Site, invoke: Invoke, tmp_path: Path
) -> None:
    """With many uploads too; and each PUT has a checksum. Another header is refused."""
    env = changed_settings(tmp_path)
    path = Path(env["ENVIRONMENTS_FILE"])
    text = path.read_text()
    path.write_text(f'{text}\n[environments.local.frontend.put_headers]\nx-amz-server-side-encryption = "aws:kms"\n')
    folder = sites.build(tmp_path / "build", "one", chunks=20)
    (folder / "film.mp4").write_bytes(bytes(17 << 20))
    with fault_proxy(site.cloud.url) as proxy:
        words = ("release-static", "--no-build", f"--build-dir={folder}")
        done = invoke(*words, **{**site.cloud.env, **env, "AWS_ENDPOINT_URL": proxy.url})
        path.write_text(f'{text}\n[environments.local.frontend.put_headers]\nHost = "a"\n')
        refused = invoke(*words, **{**site.cloud.env, **env})

    assert done.returncode == 0, done.stderr
    assert site.holds(folder)
    keys = list(site.cloud.objects(BUCKET))
    kinds = {site.s3.head_object(Bucket=BUCKET, Key=key).get("ServerSideEncryption") for key in keys}
    assert kinds == {"aws:kms"}
    assert refused.returncode == 2
    assert "'Host' does not begin with x-amz-" in refused.stderr
