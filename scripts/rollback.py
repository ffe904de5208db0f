"""Takes an environment back to a version that has run well there: the service first, then the matching frontend.

The receipts say which versions those are. Migrations of the database are named, and not undone.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from scripts import releases
from scripts.deploy_service import Deployed, Wish, carry_out, still
from scripts.ecs import images, receipts
from scripts.ecs.images import Image
from scripts.ecs.reader import Reader, steadily
from scripts.ecs.receipts import Receipt
from scripts.edges import git
from scripts.frame import console, text
from scripts.frame import version as versions
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.release import lease
from scripts.release.manifest import Manifest
from scripts.revert import fetch, revert, top

# Receipts that are looked through, good versions that are shown, and seconds for the healthcheck.
MOST, SHOWN, TIMEOUT = 300, 5, 5.0
# How far back ECS's own records of deployments go.
DAYS = 90
# The least of a commit's hash that --to may give.
SHORTEST = 7


class Frontend(Struct, frozen=True):
    """Which release of the frontend belongs to a version. release: its id, empty if there is nothing to release.

    missing: why there is none although the bucket has releases, else empty.
    """

    release: str = ""
    missing: str = ""


class Target(Report, Struct, frozen=True):
    """What an environment goes back to. running: the version that runs, empty if not known.

    by_digest: the digest to deploy it by, empty for its tag. migrations: files that differ between the two versions,
    None if that is not known. good: the last versions that ran well, newest first.
    """

    environment: str
    running: str
    version: str
    by_digest: str
    migrations: tuple[str, ...] | None
    frontend: Frontend
    good: tuple[Receipt, ...]

    def line(self) -> str:
        running = versions.short(self.running) or "an unknown version"
        return f"{self.environment} goes back from {running} to {versions.short(self.version)}"

    def table(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("", "GOOD VERSION", "DEPLOYED", "BY")]
        for one in self.good:
            mark = "->" if one.version == self.version else "*" if one.version == self.running else ""
            rows.append((mark, versions.short(one.version), text.when(one.started), text.one_line(one.actor, 40)))
        return rows if self.good else []

    def says(self) -> list[str]:
        """What a person has to know before it begins."""
        lines = [self.line()]
        if self.frontend.release:
            lines.append(f"the frontend goes back to {self.frontend.release}")
        if self.migrations:
            lines += ["these migrations are not undone:", *(f"  {text.one_line(name)}" for name in self.migrations)]
        if self.migrations is None:
            lines.append("it is not known which migrations lie between the two versions; none of them is undone")
        return lines


def rollback(run: Run, *, to: str | None = None, backend_only: bool = False, supersede: bool = False) -> None:
    """Go back to a version, by default the last good one before the one that runs."""
    env = run.environment
    if to is not None:
        versions.checked(to, "--to")
    with receipts.kept(run), lease.locked(run):
        target = run.look(f"what ran well in {env.name}", lambda: observe(env, to, backend_only))
        if target is None:
            return
        for line in target.says():
            console.say(line)
        if not run.dry_run:
            check(target, yes=run.yes)
            run.confirm()
        run.facts |= {"version": target.version, "rolled_back_from": target.running}
        _go_back(run, target, supersede)
    if not run.dry_run:
        _offer_revert(run, target)


def _go_back(run: Run, target: Target, supersede: bool) -> None:
    """Redeploy the service, watch it, and release the frontend that belongs to it."""
    tag = None if target.by_digest else target.version
    wish = Wish(tag=tag, digest=target.by_digest or None, version=target.version, supersede=supersede)
    deployed: Deployed | None = None

    def deploy() -> None:
        nonlocal deployed
        deployed = carry_out(run, wish)

    def release() -> None:
        lease.check(run)
        releases.rollback(run, to=target.frontend.release)

    def look_again() -> None:
        if done := deployed:
            run.look("the service", lambda: still(run.environment, done))

    frontend = [("release the frontend", release)] if target.frontend.release else []
    run.run_steps([("deploy the service", deploy), *frontend, ("look at the service again", look_again)])


def observe(environment: Environment, to: str | None, backend_only: bool) -> Target:
    """Find what to go back to. Raises Refused if there is nothing, or if it can no longer be deployed."""
    kept = receipts.read(environment, MOST).receipts
    service = environment.service.name
    running = _running(environment, kept)
    good = receipts.good(kept, service)
    if to is None and all(one.version == running for one in good):
        # Before there were receipts, ECS kept its own records.
        left = receipts.rolled_back_from(kept)
        good += [one for one in _by_ecs(environment) if one.version not in left | {running}]
    chosen = choose(good, kept, running, to, environment)
    version = chosen.version if chosen else str(to)
    return Target(
        environment=environment.name,
        running=running,
        version=version,
        by_digest=_by_digest(environment, version, chosen.digest if chosen else ""),
        migrations=_migrations(environment, version, running),
        frontend=Frontend() if backend_only else _frontend(environment, version, chosen.release if chosen else ""),
        good=tuple(good[:SHOWN]),
    )


def choose(
    good: Sequence[Receipt], kept: Sequence[Receipt], running: str, to: str | None, environment: Environment
) -> Receipt | None:
    """The version to go back to: the one that was asked for, else the last good one that is not the one that runs.

    good: newest first, without those that were rolled back from. None for a version that has no receipt of a good run.
    Raises Refused if there is none, or if it runs already.
    """
    where = environment.name
    if to is not None:
        ran = [one for one in kept if one.is_good(environment.service.name) and _is(one.version, to)]
        found = ran[0] if ran else None
        if (found.version if found else to) == running:
            raise Refused(f"{where} runs {versions.short(running)} already. Nothing was changed.")
        if len({one.version for one in ran}) > 1:
            raise Refused(f"--to={to} begins more than one version: give more of it. Nothing was changed.")
        if found is None:
            console.warn(f"no receipt shows that {versions.short(to)} has run well in {where}")
        return found
    found = next((one for one in good if one.version != running), None)
    if found is None:
        left = ", ".join(sorted(map(versions.short, receipts.rolled_back_from(kept))))
        but = f" that was not rolled back from ({left})" if left else ""
        raise Refused(
            f"{where} has no receipt of a good version before {versions.short(running) or 'the one that runs'}{but}:"
            " choose one with --to=VERSION. Nothing was changed."
        )
    return found


def _by_ecs(environment: Environment) -> list[Receipt]:
    """The versions of which ECS's own records say that they were rolled out, as receipts would, newest first."""
    service = environment.service
    try:
        found = Reader(environment, service.name).succeeded(time.time() - DAYS * 86400)
    except DeployError as error:
        console.say(f"ECS's records of deployments cannot be read: {error}")
        return []
    ran: dict[str, float] = {}
    for began, references in found:
        for image in filter(None, map(images.parse, references)):
            if image.repository == service.image and image.tag:
                ran.setdefault(image.tag, began)
    return [
        Receipt(
            id="ecs",
            application=environment.application.name,
            environment=environment.name,
            command="deploy",
            version=version,
            service=service.name,
            actor="not known, by ECS's records",
            started=began,
            seconds=0,
            verdict=receipts.SUCCEEDED,
            exit_code=0,
        )
        for version, began in ran.items()
    ]


def _is(version: str, wanted: str) -> bool:
    """Whether a person means a version: by its name, or by the beginning of a commit's hash."""
    short = len(wanted) >= SHORTEST and versions.COMMIT.fullmatch(version) is not None
    return version == wanted or (short and version.startswith(wanted))


def _running(environment: Environment, kept: Sequence[Receipt]) -> str:
    """The version that runs: as the endpoint answers, else as ECS shows it, else of the newest receipt; or empty."""
    try:
        return versions.ask(environment.healthcheck, TIMEOUT)
    except DeployError as error:
        console.say(f"{environment.healthcheck} does not answer: {error}")
    service = environment.service
    try:
        primary = steadily(Reader(environment, service.name).look).primary
    except DeployError as error:
        console.say(f"ECS cannot be read: {error}")
        return next((one.version for one in kept if one.service == service.name and one.version), "")
    found = [image for one in (primary.images if primary else ()) if (image := images.parse(one))]
    own = next((image for image in found if image.repository == service.image), None)
    if own is None:
        return ""
    by_digest = (one.version for one in kept if own.digest and one.digest == own.digest)
    return own.tag or next(by_digest, "")


def _by_digest(environment: Environment, version: str, digest: str) -> str:
    """The digest to deploy a version by, if its tag has become another image; empty if its tag will do.

    digest: that ran well, empty if not known. Raises Refused if the image is no longer in ECR.
    """
    tagged = Image(environment.registry.require(), environment.service.image, version)
    if not images.is_in_ecr(environment, tagged):
        return ""
    found = images.look_up(environment, tagged)
    if found and digest in ("", found.digest):
        return ""
    if digest and images.look_up(environment, Image(tagged.registry, tagged.repository, digest=digest)):
        return digest
    raise Refused(
        f"The image of {versions.short(version)} is no longer in ECR ({digest or tagged}): build and push it again, or"
        " choose another version with --to. Nothing was changed."
    )


def _migrations(environment: Environment, old: str, new: str) -> tuple[str, ...] | None:
    """The files of migrations that differ between two versions, None if that is not known."""
    prefix = environment.migrations.folder
    if not (prefix and environment.migrations.service):
        return ()
    try:
        folder = top(Path.cwd())
        if not (git.HASH.fullmatch(old) and git.HASH.fullmatch(new)):
            # A version may be any tag of an image, and git would take some of them for more.
            return None
        if not _are_there(folder, old, new):
            fetch(folder)
        if not _are_there(folder, old, new):
            return None
        return tuple(name for name in git.changes(folder, old, new) if name.startswith(prefix))
    except DeployError as error:
        console.say(f"the repository cannot be read: {error}")
        return None


def _are_there(folder: Path, *names: str) -> bool:
    return all(git.commit(folder, name) is not None for name in names)


def _frontend(environment: Environment, version: str, release: str) -> Frontend:
    """The release of a version. release: its id by the receipt."""
    name = environment.frontend.bucket.known()
    if not name:
        return Frontend()
    state = releases.look(environment, name)[1]
    if state.unread:
        return Frontend(missing=state.unread)
    return matching(state.manifest, version, release) if state.manifest else Frontend()


def matching(known: Manifest, version: str, release: str) -> Frontend:
    """The kept release of a version: by its id, else the newest of that version."""
    kept = [one for one in known.releases if one.at]
    found = next((one for one in kept if one.id == release), None)
    found = found or next((one for one in kept if one.version == version), None)
    if found is None:
        ids = ", ".join(one.id for one in kept)
        return Frontend(missing=f"its frontend is not among the kept releases ({ids})")
    return Frontend() if found == next(iter(known.releases)) else Frontend(found.id)


def check(target: Target, *, yes: bool) -> None:
    """Raises Refused for a target that a person has not agreed to. yes: --yes was given."""
    short = versions.short(target.version)
    if target.frontend.missing:
        raise Refused(
            f"{short} would run with another version's frontend: {target.frontend.missing}. Release it from its build"
            " first, or give --backend-only. Nothing was changed."
        )
    if not yes and target.migrations != ():
        what = "it is not known which ones" if target.migrations is None else ", ".join(target.migrations)
        raise Refused(
            f"The database keeps the migrations after {short} ({text.one_line(what)}): make sure that {short} works"
            " with them, and give --yes. Nothing was changed."
        )


def _offer_revert(run: Run, target: Target) -> None:
    """Offer the second half: without it, the next deployment brings the bad version back."""
    bad, env = target.running, run.environment
    if not versions.COMMIT.fullmatch(bad):
        return
    main, short = env.application.main_branch, versions.short(bad)
    console.say(f"{main} still has {short}: `invoke revert --env={env.name} --commit={bad}` reverts it")
    if not console.interactive():
        return
    run.progress = f"{env.name} runs {versions.short(target.version)}. Interrupted: the revert of {short}."
    if not console.confirm("Type revert to do that now:", "revert"):
        return
    last = run.last_line
    try:
        revert(run, commit=bad)
    except DeployError as error:
        console.warn(f"{short} was not reverted: {error}")
    run.last_line, run.progress = last, ""
