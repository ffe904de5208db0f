"""For any build and bucket, a release does exactly what its plan says, and the next one has nothing to do."""

import itertools
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from scripts import release_static
from scripts.frame import settings
from scripts.frame.settings import Environment
from scripts.release import manifest
from scripts.release.manifest import blob_key
from scripts.release.plan import ReleasePlan
from scripts.release.publish import Released
from scripts.release.site import LITTER
from tests.conftest import EmbeddedCloud
from tests.release.conftest import a_version
from tests.release.test_publish import OURS
from tests.release.test_rules import write

__all__ = ["a_version"]

ODD = " #?%+&'()[]~!@$,;=^`{}|<>\"é\u0301世🎉"
WORDS = ("a", "A", "b", "index", ".well-known", "é", unicodedata.normalize("NFD", "é"), "main.0a1b2c3d", "x-DkCqcyWS")
SEGMENT = st.one_of(
    st.sampled_from(WORDS),
    st.text(ODD + "ab.-_", min_size=1, max_size=6).filter(lambda text: text not in (".", "..")),
)
NAME = st.tuples(
    st.lists(SEGMENT, min_size=1, max_size=4), st.sampled_from(("", ".js", ".css", ".html", ".txt", ".png"))
).map(lambda parts: "/".join(parts[0]) + parts[1])
# No file references another here: tests/release/test_references.py tests references.
BODY = st.binary(max_size=40).filter(lambda body: b"(" not in body and b'"' not in body and b"<" not in body)
TREE = st.dictionaries(NAME, BODY, max_size=12).map(lambda tree: {**_files_only(tree), "index.html": b"<p>page</p>"})
numbers = itertools.count()


def _files_only(tree: Mapping[str, bytes]) -> dict[str, bytes]:
    """The tree without files that would also have to be folders, and without names that are too long."""
    folders = {"/".join(key.split("/")[:depth]) for key in tree for depth in range(1, key.count("/") + 1)}
    fits = {key: body for key, body in tree.items() if key not in folders and len(key.encode()) < 200}
    fits = {key: body for key, body in fits.items() if not any(map(LITTER.fullmatch, key.split("/")))}
    return {key: body for key, body in fits.items() if key != "index.html" and not key.startswith("index.html/")}


def keeping(environment: Environment, releases: int) -> Environment:
    """The environment with another number of kept releases, and no limit on deletes."""
    frontend = msgspec.structs.replace(environment.frontend, keep_releases=releases, max_delete_percent=100)
    return msgspec.structs.replace(environment, frontend=frontend)


class Bucket:
    """One bucket of the embedded AWS."""

    def __init__(self, cloud: EmbeddedCloud, environment: Environment) -> None:
        self.cloud, self.environment, self.name = cloud, environment, f"property-{next(numbers)}"
        self.s3 = cloud.client("s3")
        location = {"LocationConstraint": "us-west-2"}
        self.s3.create_bucket(Bucket=self.name, CreateBucketConfiguration=location)

    def stored(self) -> dict[str, tuple[dict[str, str], bytes]]:
        """Headers and bytes of every object outside _release/."""
        return {key: kept for key, kept in self.cloud.objects(self.name).items() if not key.startswith(OURS)}

    def contents(self) -> dict[str, bytes]:
        """The bytes of every object outside _release/."""
        return {key: body for key, (_, body) in self.stored().items()}

    def release(self, folder: Path) -> tuple[ReleasePlan, Released, list[tuple[str, str]]]:
        """Release a folder. Returns the plan, the result, and the requests that S3 received."""
        self.cloud.server.cloud.requests.clear()
        observed = release_static.observe(self.environment, self.name, folder)
        plan = release_static.decide(self.environment, observed)
        done = release_static.release(self.environment, observed, plan)
        seen = [(r["operation"], r["path"].removeprefix(f"/{self.name}/")) for r in self.cloud.requests("s3")]
        return plan, done, seen


@given(first=TREE, second=TREE, foreign=st.dictionaries(NAME, BODY, max_size=4), keep=st.sampled_from([0, 1, 2]))
@hypothesis.settings(max_examples=20, phases=[Phase.generate])
def test_a_release_does_what_its_plan_says(
    cloud: EmbeddedCloud,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    first: dict[str, bytes],
    second: dict[str, bytes],
    foreign: dict[str, bytes],
    keep: int,
) -> None:
    """Keys, bytes, headers, deletes and the number of requests, and the bucket afterwards. Manifests are differences
    wherever they can be, and what somebody else overwrites is put again."""
    for name, value in {"FEWEST_FILES": 1, "MOST_CHANGED": 1}.items():
        monkeypatch.setattr(manifest, name, value)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.env.items():
            patch.setenv(name, value)
        local = settings.find("local")
    bucket = Bucket(cloud, keeping(local, keep))
    for key, body in foreign.items():
        bucket.s3.put_object(Bucket=bucket.name, Key=key, Body=body)
    expected = dict(foreign)

    for tree in (first, second, first):
        folder = write(tmp_path / f"{bucket.name}-{next(numbers)}", tree)
        plan, done, seen = bucket.release(folder)

        assert sorted(key for operation, key in seen if operation == "PutObject" and not key.startswith(OURS)) == (
            sorted(put.key for put in plan.puts)
        )
        stored = {key for operation, key in seen if operation == "PutObject" and key.startswith(blob_key(""))}
        assert len(stored) == len(plan.blobs) + len({*plan.rescues.values()})
        assert len(seen) == plan.requests == done.requests
        for delete in plan.deletes:
            expected.pop(delete.key, None)
        assert bucket.contents() == expected | tree
        expected |= tree
        for put in plan.puts:
            headers, _ = bucket.stored()[put.key]
            assert headers.items() >= {name.lower(): value for name, value in put.headers.items()}.items()

        again, _, seen = bucket.release(folder)
        assert not again.is_needed
        reads = sorted(operation for operation, _ in seen)
        assert reads[0] == "GetObject"
        assert reads[-1] == "ListObjectsV2"
        assert len(reads) == again.requests <= 3

    bucket.s3.put_object(Bucket=bucket.name, Key="index.html", Body=b"theirs")
    plan, done, seen = bucket.release(folder)
    assert ([put.key for put in plan.puts], len(seen)) == (["index.html"], done.requests)
    assert bucket.contents() == expected
    assert not bucket.release(folder)[0].is_needed


@given(tree=TREE)
@hypothesis.settings(max_examples=15, phases=[Phase.generate])
def test_with_nothing_kept_the_bucket_is_the_exact_mirror(
    cloud: EmbeddedCloud, tmp_path: Path, tree: dict[str, bytes]
) -> None:
    """It has exactly the keys of the build."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.env.items():
            patch.setenv(name, value)
        local = settings.find("local")
    bucket = Bucket(cloud, keeping(local, 0))
    bucket.s3.put_object(Bucket=bucket.name, Key="theirs/+ %20?", Body=b"")
    bucket.s3.put_object(Bucket=bucket.name, Key="folder/", Body=b"")

    bucket.release(write(tmp_path / bucket.name, tree))

    assert bucket.contents() == tree
