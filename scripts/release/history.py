"""The kept releases in the manifest of a bucket: lists them, compares two, and restores one for a rollback.

A rollback needs no build. The hashed files of a kept release are still in the bucket, and copies of its unhashed ones
are under `_release/files/`. A rollback is an ordinary release of the site that these files make up.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from scripts.edges.s3 import Bucket
from scripts.frame import text
from scripts.frame.errors import Refused
from scripts.frame.files import write
from scripts.release import manifest
from scripts.release.manifest import Entry, Manifest, Release, State
from scripts.release.plan import reason_to_put
from scripts.release.site import File, Site, shown


class Difference(Struct, frozen=True):
    """How two releases differ, by key."""

    old: str
    new: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def lines(self) -> list[str]:
        """A line for each key: + added, - removed, ~ changed."""
        marks = (("+", self.added), ("-", self.removed), ("~", self.changed))
        return [f"{mark} {key}" for mark, keys in marks for key in keys]


def known(state: State, bucket: str) -> Manifest:
    """The manifest. Raises Refused if the bucket has none, or if it cannot be read."""
    if state.manifest is None:
        raise Refused(state.unread or f"{bucket} has no releases: it has no {manifest.KEY}. Release to it first.")
    return state.manifest


def lines(kept: Mapping[Release, Sequence[str]]) -> list[str]:
    """The releases as lines for a person, newest first; the first one is live. kept: as from `lost`."""
    lines = []
    for number, (release, gone) in enumerate(kept.items()):
        when = text.when(release.at) if release.at else "earlier"
        mark = "*" if number == 0 else "-" if gone else " "
        why = f"  cannot be restored, gone or changed: {shown(gone)}" if gone and number else ""
        lines.append(f"{mark} {release.id}  {when}  {release.actor} {release.run}".rstrip() + why)
    return lines


def lost(state: State, current: Manifest) -> dict[Release, tuple[str, ...]]:
    """Each release with the keys that it cannot be restored with: neither the object nor its copy is in the bucket."""
    listing, now = state.listing or {}, current.known()

    def is_there(key: str, entry: Entry) -> bool:
        remote = listing.get(key)
        same = remote is not None and now[key].sha256 == entry.sha256 != ""
        if same and remote and (remote.etag, remote.size) == (now[key].etag, entry.size):
            return True
        return bool(entry.sha256) and manifest.blob_key(entry.sha256) in listing

    return {
        release: tuple(key for key, entry in sorted(files.items()) if not is_there(key, entry))
        for release, files in current.releases.items()
    }


def find(current: Manifest, wanted: str, bucket: str) -> Release:
    """A kept release by its id. Raises Refused, with the kept ids, if it is not kept."""
    found = next((release for release in current.releases if release.id == wanted), None)
    if found is None:
        ids = ", ".join(release.id for release in current.releases)
        raise Refused(f"{wanted!r} is not a kept release of {bucket}: it keeps {ids}.")
    if not found.at:
        raise Refused(f"{wanted} was there before the first recorded release: its files are not known.")
    return found


def before_live(current: Manifest, bucket: str) -> Release:
    """The release before the live one. Raises Refused if there is none."""
    if len(current.releases) < 2:
        raise Refused(f"{bucket} has only one release, and no earlier one.")
    return find(current, list(current.releases)[1].id, bucket)


def to_go_back_to(current: Manifest, bucket: str) -> Release:
    """The newest release before the live one that was not rolled back from. Raises Refused if there is none.

    One with the live one's very files would change nothing.
    """
    live = next(iter(current.releases))
    left = {release.rolled_back_from for release in current.releases}
    for release, files in list(current.releases.items())[1:]:
        same = {k: e.sha256 for k, e in files.items()} == {k: e.sha256 for k, e in current.files.items()}
        if release.id not in left and not same:
            return find(current, release.id, bucket)
    ids = ", ".join(release.id for release in current.releases)
    raise Refused(
        f"{bucket} keeps no release before {live.id} that was not rolled back from. It keeps {ids}:"
        " choose one with --to."
    )


def compare(state: State, bucket: str, old: str | None, new: str | None) -> Difference:
    """What changed between two releases, by default between the last two. Raises Refused if one is not kept."""
    current = known(state, bucket)
    first = before_live(current, bucket) if old is None else find(current, old, bucket)
    second = next(iter(current.releases)) if new is None else find(current, new, bucket)
    before, after = current.releases[first], current.releases[second]
    return Difference(
        old=first.id,
        new=second.id,
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(
            sorted(key for key in before.keys() & after.keys() if _stored(before[key]) != _stored(after[key]))
        ),
    )


def _stored(entry: Entry) -> tuple[str, dict[str, str]]:
    """What two objects are compared by: content and headers."""
    return entry.sha256, dict(entry.headers)


def restored(bucket: Bucket, state: State, wanted: str | None, folder: Path) -> tuple[Release, Site]:
    """A release, by default the one of `to_go_back_to`, and its site.

    Files that are no longer in the bucket as they were are restored from their copies into the folder; the others stay
    where they are. Raises Refused if the release is not kept, or if one of its files is missing or damaged.
    """
    current = known(state, bucket.name)
    to = to_go_back_to(current, bucket.name) if wanted is None else find(current, wanted, bucket.name)
    there = current.known()
    files: dict[str, File] = {}
    missing = []
    for key, entry in current.releases[to].items():
        files[key] = File("", entry.size, entry.sha256, entry.headers)
        if not reason_to_put(files[key], there.get(key), (state.listing or {}).get(key)):
            continue
        found = bucket.get(manifest.blob_key(entry.sha256), entry.size)
        if found is None or hashlib.sha256(found[0]).hexdigest() != entry.sha256:
            missing.append(key)
            continue
        path = folder / entry.sha256
        write(path, found[0])
        files[key] = File(str(path), entry.size, entry.sha256, entry.headers)
    if missing:
        whole = [one.id for one, gone in lost(state, current).items() if not gone and one != to]
        raise Refused(
            f"{to.id} cannot be restored: missing or changed in the bucket: {shown(missing)}. Complete are"
            f" {', '.join(whole) or 'none'}."
        )
    return to, Site(str(folder), files)
