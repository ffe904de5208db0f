"""The releases that a bucket remembers: which there are, what changed between two, and going back to one.

A rollback builds nothing. The hashed files of a kept release are still in the bucket, its unhashed ones are
stored under `_release/files/`; so it is a release like any other, of a site that is put together from those.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.errors import Refused
from scripts.release import manifest
from scripts.release.bucket import Bucket
from scripts.release.manifest import Entry, Manifest, Release, State
from scripts.release.plan import reason_to_put
from scripts.release.site import File, Site


@dataclass(frozen=True)
class Difference:
    """What one release has and another has not, by key."""

    old: str
    new: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a person."""
        marks = (("+", self.added), ("-", self.removed), ("~", self.changed))
        return [f"{mark} {key}" for mark, keys in marks for key in keys]


def known(state: State, bucket: str) -> Manifest:
    """The manifest. Raises Refused where the bucket has none, or it may not be read."""
    if state.manifest is None:
        raise Refused(state.unread or f"{bucket} has no release of ours: nothing is remembered there.")
    return state.manifest


def lines(releases: tuple[Release, ...]) -> list[str]:
    """The releases for a person, newest first; the first is the one that is live."""
    import time

    shown = []
    for number, release in enumerate(releases):
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(release.at)) if release.at else "earlier"
        mark = "*" if number == 0 else " "
        shown.append(f"{mark} {release.id}  {when}  {release.actor} {release.run}".rstrip())
    return shown


def files_of(bucket: Bucket, current: Manifest, release: str) -> Mapping[str, Entry]:
    """The files of a kept release. Raises Refused for one that is not kept, with those that are."""
    ids = [item.id for item in current.releases]
    if release not in ids:
        raise Refused(f"{release!r} is not a kept release of {bucket.name}: there are {', '.join(ids)}.")
    found = bucket.get(manifest.record_key(release))
    if found is None:
        raise Refused(f"{release} was there before the first release of ours: its files are not recorded.")
    return manifest.load(found[0]).files


def compare(bucket: Bucket, state: State, old: str | None, new: str | None) -> Difference:
    """What changed between two releases; by default between the last two. Raises Refused."""
    current = known(state, bucket.name)
    ids = [release.id for release in current.releases]
    if old is None and len(ids) < 2:
        raise Refused(f"{bucket.name} has only one release: there is nothing to compare it with.")
    old, new = ids[1] if old is None else old, ids[0] if new is None else new
    before, after = files_of(bucket, current, old), files_of(bucket, current, new)
    both = before.keys() & after.keys()
    return Difference(
        old=old,
        new=new,
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(sorted(key for key in both if _stored(before[key]) != _stored(after[key]))),
    )


def _stored(entry: Entry) -> tuple[str, dict[str, str]]:
    """What makes an object what it is: its content and its headers."""
    return entry.sha256, dict(entry.headers)


def target(bucket: Bucket, state: State, wanted: str | None) -> Release:
    """The release to go back to: the one that is named, else the one before the newest. Raises Refused."""
    current = known(state, bucket.name)
    if wanted is None:
        if len(current.releases) < 2:
            raise Refused(f"{bucket.name} has only one release: there is none to go back to.")
        return current.releases[1]
    found = next((release for release in current.releases if release.id == wanted), None)
    if found is None:
        ids = ", ".join(release.id for release in current.releases)
        raise Refused(f"{wanted!r} is not a kept release of {bucket.name}: there are {ids}.")
    return found


def restored(
    bucket: Bucket, state: State, to: Release, folder: Path, headers: Callable[[str], Mapping[str, str]]
) -> Site:
    """The site of a release, put together in a folder; hashed files stay where they are, in the bucket.

    headers: what a key is stored with now. Raises Refused where a file of that release is gone.
    """
    current = known(state, bucket.name)
    files: dict[str, File] = {}
    missing = []
    for key, entry in files_of(bucket, current, to.id).items():
        file = File("", entry.size, entry.sha256, "")
        remote = (state.listing or {}).get(key)
        kept = current.kept.get(key)
        there = current.files.get(key) or (kept[0] if kept else None)
        if reason_to_put(file, headers(key), there, remote):
            found = bucket.get(manifest.blob_key(entry.sha256))
            if found is None:
                missing.append(key)
                continue
            path = folder / entry.sha256
            path.write_bytes(found[0])
            file = File(str(path), entry.size, entry.sha256, "")
        files[key] = file
    if missing:
        raise Refused(f"{to.id} cannot be restored: {', '.join(missing[:10])} is no longer there.")
    return Site(str(folder), files)
