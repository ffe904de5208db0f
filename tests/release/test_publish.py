"""Releases to the embedded AWS: what is put, in which order, and that the page is whole at every moment."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, EmbeddedCloud, Invoke
from tests.release import browser, sites

BUCKET = "local-mint-app-static"
OURS = "_release/"


class Site:
    """The bucket, as a browser sees it."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self.cloud, self.s3 = cloud, cloud.client("s3")

    def all_keys(self) -> set[str]:
        """All keys outside _release/."""
        return {key for key in self.cloud.objects(BUCKET) if not key.startswith(OURS)}

    def get(self, key: str) -> tuple[str, bytes] | None:
        """Content type and body of an object."""
        found = self.cloud.objects(BUCKET).get(key)
        return (found[0]["content-type"], found[1]) if found else None

    def put(self, key: str, body: bytes = b"theirs") -> None:
        """Somebody else puts an object."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def puts(self) -> list[str]:
        """The keys outside _release/ that were put since the test began, in order."""
        made = [r["path"].removeprefix(f"/{BUCKET}/") for r in self.cloud.requests("s3", "PutObject")]
        return [key for key in made if not key.startswith(OURS)]

    def holds(self, folder: Path) -> bool:
        """Whether every file of a folder is in the bucket with its content."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        stored = self.cloud.objects(BUCKET)
        return all(key in stored and stored[key][1] == body for key, body in files.items())


@pytest.fixture
def site(cloud: EmbeddedCloud) -> Site:
    """The static bucket of the embedded AWS."""
    return Site(cloud)


Release = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def release(cloud: EmbeddedCloud, invoke: Invoke) -> Release:
    """`release(folder, "--dry-run", code=0)`: release a folder."""

    def run(folder: Path, *words: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        given = {"GITHUB_SHA": "abc", **cloud.env, **env}
        done = invoke("release-static", "--no-build", f"--build-dir={folder}", *words, **given)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def changed_settings(tmp_path: Path, **changes: object) -> dict[str, str]:
    """Environment variables for a settings file with other values for local."""
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in changes.items())
    text = (ROOT / "environments.toml").read_text()
    path = tmp_path / "settings.toml"
    path.write_text(text.replace("[environments.local.frontend]\n", f"[environments.local.frontend]\n{lines}"))
    return {"ENVIRONMENTS_FILE": str(path)}


@pytest.mark.parametrize("style", ["vite", "cra"])
def test_a_browser_sees_a_whole_page_after_every_single_change(
    site: Site, release: Release, tmp_path: Path, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a version replaces another one twice, with no release kept."""
    env = changed_settings(tmp_path, keep_releases=0, max_delete_percent=100)
    checks: list[list[str]] = []
    outermost = site.cloud.server._outermost

    def watched(environ: dict[str, Any], start: Any) -> Any:
        answer = outermost(environ, start)
        changed = environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE")
        if changed and environ["PATH_INFO"].startswith(f"/{BUCKET}") and "HTTP_X_BROWSER" not in environ:
            checks.append(browser.problems(site.get))
        return answer

    monkeypatch.setattr(site.cloud.server, "_outermost", watched)
    for version in ("one", "two", "three"):
        release(sites.build(tmp_path / "build", version, style=style), **env)

    assert len(checks) > 3 * 8
    assert [found for found in checks if found] == []
    assert site.holds(tmp_path / "build")
    assert site.all_keys() == {
        str(p.relative_to(tmp_path / "build")) for p in (tmp_path / "build").rglob("*") if p.is_file()
    }


def test_the_stages_of_a_release_are_in_order(site: Site, release: Release, tmp_path: Path) -> None:
    """New and hashed files, changed files, other pages, and index.html alone at the end."""
    folder = sites.build(tmp_path / "build", "one")
    release(folder)
    first = site.puts()
    sites.build(folder, "two")
    (folder / "robots.txt").write_text("two")
    (folder / "new.txt").touch()
    release(folder)

    assert first[-2:] == ["help/index.html", "index.html"]
    second = site.puts()[len(first) :]
    assert second[-3:] == ["robots.txt", "help/index.html", "index.html"]
    assert all(key.startswith("assets/") or key == "new.txt" for key in second[:-3])


def test_only_what_changed_is_put(site: Site, release: Release, tmp_path: Path) -> None:
    """If nothing changed, one LIST and one GET. Times and sizes of files do not matter."""
    folder = sites.build(tmp_path / "build", "one")
    release(folder)
    first = len(site.cloud.requests("s3"))

    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    done = release(folder)
    assert [r["operation"] for r in site.cloud.requests("s3")[first:]] in (
        ["ListObjectsV2", "GetObject"],
        ["GetObject", "ListObjectsV2"],
    )
    assert "already holds this build" in done.stderr

    before = len(site.puts())
    (folder / "robots.txt").write_text("User-agent: X\n")
    release(folder)
    assert site.puts()[before:] == ["robots.txt"]


def test_a_large_file_is_put_in_parts(site: Site, release: Release, tmp_path: Path) -> None:
    """Its ETag is not an MD5, and the next run still sees that it is unchanged."""
    folder = sites.build(tmp_path / "build", "one")
    (folder / "film.mp4").write_bytes(b"0123456789abcdef" * (17 << 16))

    first = release(folder)
    again = release(folder)

    operations = [r["operation"] for r in site.cloud.requests("s3") if "film" in r["path"]]
    assert "PutObject" not in [operations[0], operations[-1]]
    assert "-" in site.s3.head_object(Bucket=BUCKET, Key="film.mp4")["ETag"]
    assert "files put (17," in first.stderr
    assert "already holds this build" in again.stderr
    assert site.holds(folder)


def test_a_change_of_headers_alone_is_a_change(site: Site, release: Release, tmp_path: Path) -> None:
    """Here by an override in the settings."""
    folder = sites.build(tmp_path / "build", "one")
    release(folder)
    before = len(site.puts())

    env = changed_settings(tmp_path)
    path = Path(env["ENVIRONMENTS_FILE"])
    path.write_text(path.read_text() + '\n[environments.local.frontend.cache_control]\n"robots.*" = "max-age=60"\n')
    done = release(folder, "--dry-run", **env)
    release(folder, **env)

    assert "would put robots.txt (headers," in done.stderr
    assert site.puts()[before:] == ["robots.txt"]
    assert site.s3.head_object(Bucket=BUCKET, Key="robots.txt")["CacheControl"] == "max-age=60"


def test_an_object_that_somebody_overwrote_is_put_again(site: Site, release: Release, tmp_path: Path) -> None:
    """Its ETag in LIST differs from the manifest."""
    folder = sites.build(tmp_path / "build", "one")
    release(folder)
    site.put("favicon.ico")
    before = len(site.puts())

    done = release(folder)

    assert site.puts()[before:] == ["favicon.ico"]
    assert site.holds(folder)
    assert done.returncode == 0


def test_files_of_older_releases_are_kept_for_open_tabs_and_then_deleted(
    site: Site, release: Release, tmp_path: Path
) -> None:
    """By default for two releases. Expired files are deleted in one request."""
    hashed = []
    for version in ("one", "two", "three", "four"):
        folder = sites.build(tmp_path / "build", version)
        hashed.append({str(path.relative_to(folder)) for path in folder.rglob("*.js")})
        release(folder)

    keys = site.all_keys()
    assert not hashed[0] & keys
    assert hashed[1] | hashed[2] | hashed[3] <= keys
    assert site.get("_release/manifest.json") is not None


def test_objects_from_before_the_first_release_are_kept(site: Site, release: Release, tmp_path: Path) -> None:
    """They count as an older release, and expire like one."""
    site.put("old-chunk.js")
    for version in ("one", "two"):
        release(sites.build(tmp_path / "build", version))
        assert "old-chunk.js" in site.all_keys()
    release(sites.build(tmp_path / "build", "three"))

    assert "old-chunk.js" not in site.all_keys()


def test_keeping_no_releases_makes_an_exact_mirror(site: Site, release: Release, tmp_path: Path) -> None:
    """Foreign keys are deleted too; a dry run lists them first."""
    env = changed_settings(tmp_path, keep_releases=0, max_delete_percent=100)
    site.put("theirs.txt")
    folder = sites.build(tmp_path / "build", "one")

    done = release(folder, "--dry-run", **env)
    release(folder, **env)

    assert "would delete theirs.txt, which was not put there by a release" in done.stderr
    assert "1 objects that no release has put are deleted from" in done.stderr
    assert site.all_keys() == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_too_many_deletes_are_refused(site: Site, release: Release, tmp_path: Path) -> None:
    """By default more than half of the bucket; nothing is changed."""
    env = changed_settings(tmp_path, keep_releases=0)
    for number in range(40):
        site.put(f"theirs/{number}")
    before = len(site.puts())

    done = release(sites.build(tmp_path / "build", "one"), code=2, **env)

    assert "would delete 40 of the 40 objects" in done.stderr
    assert "theirs/0" in done.stderr
    assert site.puts()[before:] == []


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "index.html").unlink(), "has no index.html"),
        (lambda folder: (folder / "link.js").symlink_to("/etc/passwd"), "is a link"),
        (lambda folder: next(folder.rglob("*.css")).unlink(), "needs files that are not in"),
    ],
    ids=[
        "no index.html",
        "a link out of the folder",
        "a missing style that the page references",
    ],
)
def test_an_invalid_build_is_refused_before_any_change(
    site: Site, release: Release, tmp_path: Path, break_it: Callable[[Path], object], said: str
) -> None:
    """Exit code 2, and the bucket is unchanged."""
    folder = sites.build(tmp_path / "build", "one")
    release(folder)
    changes = len(site.cloud.requests("s3", "PutObject")) + len(site.cloud.requests("s3", "DeleteObjects"))
    break_it(folder)

    done = release(folder, code=2)

    assert said in done.stderr.splitlines()[-1]
    assert len(site.cloud.requests("s3", "PutObject")) + len(site.cloud.requests("s3", "DeleteObjects")) == changes


def test_a_missing_chunk_that_only_a_script_references_is_a_warning(
    site: Site, release: Release, tmp_path: Path
) -> None:
    """Only the script knows whether it is ever loaded."""
    folder = sites.build(tmp_path / "build", "one")
    next(folder.rglob("chunk3*")).unlink()

    done = release(folder)

    assert "warning: scripts of the build reference files that are not in" in done.stderr
    assert "assets/chunk3-" in done.stderr


def test_the_bucket_of_another_environment_is_refused(site: Site, release: Release, tmp_path: Path) -> None:
    """The manifest has the environment's name."""
    folder = sites.build(tmp_path / "build", "one")
    release(folder)
    env = changed_settings(tmp_path)
    path = Path(env["ENVIRONMENTS_FILE"])
    path.write_text(path.read_text().replace("[environments.local", "[environments.other"))

    done = release(folder, "--env=other", f"--bucket={BUCKET}", code=2, **env)

    assert f"{BUCKET} holds mint-app of local, not mint-app of other" in done.stderr


@pytest.mark.parametrize(
    ("rule", "code", "said"),
    [
        ({"status": 403, "code": "AccessDenied"}, 1, "S3 refused listing the bucket local-mint-app-static"),
        ({"status": 404, "code": "NoSuchBucket"}, 1, "NoSuchBucket"),
        ({"status": 400, "code": "ExpiredToken"}, 2, "S3 rejected the credentials"),
        ({"status": 301, "code": "PermanentRedirect"}, 2, "Wrong region"),
    ],
)
def test_a_bucket_that_cannot_be_listed_is_an_error_with_the_reason(
    site: Site, release: Release, tmp_path: Path, rule: dict[str, Any], code: int, said: str
) -> None:
    """A dry run continues without it."""
    folder = sites.build(tmp_path / "build", "one")
    site.cloud.fail(service="s3", operation="ListObjectsV2", times=2, **rule)

    done = release(folder, code=code)
    dry = release(folder, "--dry-run")

    assert said in done.stderr.splitlines()[-1]
    assert site.puts() == []
    assert f"could not read the bucket {BUCKET}" in dry.stderr


@pytest.mark.parametrize("key", ["assets/", "robots.txt", "help/index.html", "index.html"])
def test_a_failed_upload_leaves_the_old_page_whole(site: Site, release: Release, tmp_path: Path, key: str) -> None:
    """No later stage begins and nothing is deleted; the next run completes the release."""
    env = changed_settings(tmp_path, keep_releases=0, max_delete_percent=100)
    old = sites.build(tmp_path / "old", "one")
    release(old, **env)
    (tmp_path / "old" / "robots.txt").read_text()
    new = sites.build(tmp_path / "new", "two")
    (new / "robots.txt").write_text("other")
    site.cloud.fail(service="s3", method="PUT", path=f"/{BUCKET}/{key}", status=403, code="AccessDenied", times=1)

    done = release(new, code=1, **env)

    assert "AccessDenied" in done.stderr
    assert browser.problems(site.get) == []
    assert b"one" in (site.get("index.html") or ("", b""))[1]
    assert {str(p.relative_to(old)) for p in old.rglob("*") if p.is_file()} <= site.all_keys()
    release(new, **env)
    assert site.holds(new)
    assert browser.problems(site.get) == []


def test_a_second_release_at_the_same_time_is_refused(site: Site, release: Release, tmp_path: Path) -> None:
    """Before its first write, with the holder and the end of the lease; --force-lock breaks it."""
    lease = {"id": "x", "actor": "octocat", "run": "https://github.com/r/1", "host": "h", "expires": time.time() + 600}
    site.put("_release/lease.json", json.dumps(lease).encode())
    folder = sites.build(tmp_path / "build", "one")

    done = release(folder, code=2)
    assert "octocat (h, https://github.com/r/1) is releasing to local-mint-app-static" in done.stderr
    assert site.puts() == []

    # A dry run plans anyway, and warns of the lease.
    tried = release(folder, "--dry-run")
    assert "warning: octocat (h, https://github.com/r/1) is releasing to local-mint-app-static" in tried.stderr

    release(folder, "--force-lock")
    assert site.holds(folder)
    assert site.get("_release/lease.json") is None
    assert "is releasing" not in release(folder, "--dry-run").stderr


def test_an_expired_lease_is_taken_over(site: Site, release: Release, tmp_path: Path) -> None:
    """Its other fields may be missing."""
    site.put("_release/lease.json", json.dumps({"id": "x", "actor": "octocat", "expires": time.time() - 1}).encode())

    release(sites.build(tmp_path / "build", "one"))

    assert site.get("_release/lease.json") is None


def test_a_damaged_lease_is_refused_and_can_be_broken(site: Site, release: Release, tmp_path: Path) -> None:
    """Its holder is unknown: nothing is written. A dry run and --force-lock continue."""
    site.put("_release/lease.json", b"nonsense")
    folder = sites.build(tmp_path / "build", "one")

    refused = release(folder, code=2)
    assert refused.stderr.splitlines()[-1].startswith("_release/lease.json is damaged (")
    assert site.puts() == []
    assert "warning: _release/lease.json is damaged" in release(folder, "--dry-run").stderr

    release(folder, "--force-lock")
    assert site.holds(folder)
    assert site.get("_release/lease.json") is None


def test_without_permission_to_read_the_manifest_everything_is_put(
    site: Site, release: Release, tmp_path: Path
) -> None:
    """It says so, and deletes nothing."""
    folder = sites.build(tmp_path / "build", "one")
    release(folder)
    site.put("theirs.txt")
    before = len(site.puts())
    site.cloud.fail(
        service="s3", operation="GetObject", path="manifest.json$", status=403, code="AccessDenied", times=1
    )

    done = release(folder)

    assert "the manifest cannot be read, so this release deletes nothing" in done.stderr
    assert len(site.puts()[before:]) == sum(1 for p in folder.rglob("*") if p.is_file())
    assert "theirs.txt" in site.all_keys()


def test_a_dry_run_without_permission_to_read_objects_plans_from_the_listing(
    site: Site, release: Release, tmp_path: Path
) -> None:
    """It does not read the lease either."""
    folder = sites.build(tmp_path / "build", "one")
    release(folder)
    site.put("_release/lease.json", json.dumps({"expires": time.time() + 600}).encode())
    site.cloud.fail(service="s3", operation="GetObject", status=403, code="AccessDenied", times=9)

    tried = release(folder, "--dry-run")

    assert "the manifest cannot be read, so this release deletes nothing" in tried.stderr
    assert "could not read" not in tried.stderr


def test_a_dry_run_says_exactly_what_the_run_then_does(site: Site, release: Release, tmp_path: Path) -> None:
    """Keys, reasons, bytes and headers, as JSON, and what `aws s3 sync` would put."""
    release(sites.build(tmp_path / "build", "one"))
    folder = sites.build(tmp_path / "build", "two")
    before = len(site.puts())

    dry = release(folder, "--dry-run", "--json")
    assert site.puts()[before:] == []
    plan = json.loads(dry.stdout)["steps"][0]["plan"]
    release(folder)

    assert sorted(put["key"] for put in plan["puts"]) == sorted(site.puts()[before:])
    assert {put["reason"] for put in plan["puts"]} == {"new", "content"}
    for put in plan["puts"]:
        head = site.s3.head_object(Bucket=BUCKET, Key=put["key"])
        assert put["headers"] == {"Content-Type": head["ContentType"], "Cache-Control": head["CacheControl"]}
        assert put["size"] == head["ContentLength"]
    assert "`aws s3 sync` would put all 12" in dry.stderr


def test_a_dry_run_without_credentials_or_network_shows_the_build(invoke: Invoke, tmp_path: Path) -> None:
    """Exit code 0; one line says that the bucket could not be read."""
    folder = sites.build(tmp_path / "build", "one")

    done = invoke(
        "release-static", "--env=dev", "--no-build", f"--build-dir={folder}", "--bucket=some-bucket", "--dry-run"
    )

    assert done.returncode == 0, done.stderr
    assert "could not read the bucket some-bucket: there are no AWS credentials here" in done.stderr
    assert "would put index.html (new," in done.stderr


def test_build_frontend_prints_the_folder_of_the_build(invoke: Invoke, tmp_path: Path) -> None:
    """As release-static takes it: the build's own commands run in another folder."""
    done = invoke("build-frontend", "--env=local", "--json", GITHUB_SHA="abc")

    assert done.returncode == 0, done.stderr
    assert f"the frontend is built in {tmp_path / 'frontend'} (" in done.stderr
    step = json.loads(done.stdout)["steps"][0]
    assert (step["plan"]["folder"], step["result"]["folder"]) == (str(ROOT), str(tmp_path / "frontend"))
    assert step["plan"]["build_folder"] == step["result"]["folder"]


def test_the_build_gets_the_environments_variables_and_a_failed_build_is_not_released(
    cloud: EmbeddedCloud, invoke: Invoke, tmp_path: Path
) -> None:
    """A missing program is reported before anything runs."""
    program = tmp_path / "bundle"
    program.write_text("#!/bin/sh\nenv | grep ^REACT_APP_ | sort >&2\nexit 3\n")
    program.chmod(0o755)
    failing = changed_settings(tmp_path)
    path = Path(failing["ENVIRONMENTS_FILE"])
    path.write_text(
        path.read_text().replace('build = ["python3", "examples/frontend/build.py"]', f'build = ["{program}"]')
    )

    done = invoke("release-static", **cloud.env, **failing)
    missing = invoke(
        "release-static",
        "--env=dev",
        AWS_ACCOUNT_ID="123456789012",
        STATIC_S3_BUCKET="bucket-of-dev",
        OKTA_CLIENT_ID_DEV="a",
        OKTA_SERVER_ID_DEV="b",
        LD_CLIENT_ID_DEV="c",
        PATH="/nowhere",
    )
    unset = invoke("release-static", "--env=dev", STATIC_S3_BUCKET_DEV="bucket-of-dev")

    assert done.returncode == 1
    assert "REACT_APP_APP_ENV=local" in done.stderr
    assert f"`{program}` failed with exit code 3" in done.stderr
    assert cloud.requests("s3") == []
    assert (missing.returncode, unset.returncode) == (2, 2)
    assert "yarn is not installed: it is needed to build the frontend" in missing.stderr
    assert "OKTA_CLIENT_ID is not set, and frontend.variables.REACT_APP_OKTA_CLIENT_ID of dev needs it" in unset.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--build-dir="], "--build-dir is empty"),
        (["--bucket=My_Bucket"], "'My_Bucket' is not the name of a bucket: an S3 bucket has"),
        (["--bucket="], "'' is not the name of a bucket: an S3 bucket has"),
        (["--env=dev"], "STATIC_S3_BUCKET is not set"),
    ],
)
def test_bad_input_is_refused(cloud: EmbeddedCloud, invoke: Invoke, words: list[str], said: str) -> None:
    """Before any request."""
    env = cloud.env if "--env=dev" not in words else {}
    done = invoke("release-static", "--no-build", *words, **env)

    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert cloud.requests("s3") == []
