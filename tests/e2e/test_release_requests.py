"""Each request of a release fails in turn, in this process: what is said is what the bucket holds."""

import json
from pathlib import Path

import pytest

from scripts import release_static
from scripts.frame.errors import DeployError
from tests.release import browser
from tests.release.conftest import a_version
from tests.release.fault_proxy import DENIED, Fault, FaultProxy
from tests.release.test_publish import BUCKET, Site, site
from tests.release.test_rules import (
    EXPIRED,
    SKEWED,
    Local,
    changing,
    live,
    local,
    ours,
    proxy,
    quick,
    release,
)

__all__ = ["a_version", "local", "proxy", "quick", "site"]

GONE = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
# The requests of a release, in their order: from the answer to the page on, the new one is live.
REQUESTS = {
    "the lease": ("PUT", "/_release/lease.json"),
    "the note": ("PUT", "/_release/next.json"),
    "a copy for a rollback": ("PUT", "/_release/files/"),
    "a hashed file": ("PUT", "/assets/index-"),
    "another file": ("PUT", "/robots.txt"),
    "another page": ("PUT", "/help/index.html"),
    "the page": ("PUT", f"^/{BUCKET}/index.html"),
    "what describes the page": ("PUT", "/version.json"),
    "the service worker": ("PUT", "/sw.js"),
    "the invalidation": ("POST", "/invalidation"),
    "the manifest that is written": ("PUT", "/_release/manifest.json"),
    "the deletes": ("POST", "delete"),
}
PAGE = [*REQUESTS].index("the page")
FAILURES = {
    "refused": {"status": 403, "body": DENIED},
    "expired": {"status": 403, "body": EXPIRED},
    "skewed": {"status": 403, "body": SKEWED},
    "gone": {"status": 404, "body": GONE},
    "lost": {"kind": "lost"},
}


@pytest.mark.parametrize(
    ("request_", "failure"),
    [
        *((request, failure) for request in REQUESTS for failure in ("expired", "lost")),
        *((request, failure) for request in ("the lease", "the page") for failure in ("refused", "skewed", "gone")),
    ],
)
def test_whichever_request_fails_what_is_said_is_what_is_there(
    site: Site, local: Local, proxy: FaultProxy, quick: None, tmp_path: Path, request_: str, failure: str
) -> None:
    """The page is whole, the error says which one is live and whether anything changed, and the next run completes."""
    environment = local(distribution=site.cloud.distribution(), keep_releases=1)
    folder, (method, path) = tmp_path / "build", REQUESTS[request_]
    old = release(environment, changing(folder, "one")).release
    changing(folder, "two")
    observed = release_static.observe(environment, BUCKET, folder)
    decided, before = release_static.decide(environment, observed), ours(site)
    proxy.faults.append(Fault(method, path, **FAILURES[failure]))

    with pytest.raises(DeployError) as failed:
        release_static.release(environment, observed, decided)

    said, code, place = str(failed.value), failed.value.exit_code, [*REQUESTS].index(request_) - PAGE
    is_new = place > 0 or (place == 0 and failure == "lost")
    assert ((site.get("index.html") or ("", b""))[1] == (folder / "index.html").read_bytes()) == is_new
    if request_ == "the lease":
        assert (ours(site), code) == (before, 2 if failure in ("expired", "skewed", "gone") else 1)
    elif place == 0 and failure == "lost":
        assert (said.partition(": ")[0], code) == (f"It is not known whether {BUCKET} has the old or the new page", 3)
    elif is_new:
        assert f"The new page in {BUCKET} is live ({decided.release.id}), but the release is not complete: " in said
        assert code == (3 if failure == "lost" else 1)
    else:
        assert f". In {BUCKET} release {old} is still live; " in said
        assert code == 1
    assert browser.problems(site.get) == []
    held = site.get("_release/lease.json")
    if request_ == "the deletes" and failure != "lost":
        # It could not be deleted either, and has expired instead.
        assert json.loads((held or ("", b""))[1]).items() >= {"version": "abc", "command": ""}.items()
    else:
        assert held is None
    stored = json.loads((site.get("_release/manifest.json") or ("", b""))[1])
    assert bool(stored["pending"]) == (request_ == "the invalidation")
    proxy.faults.clear()
    assert live(environment) == (decided.release.id if is_new else old)
    release(environment, folder)
    assert site.holds(folder)
