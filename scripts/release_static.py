"""Builds the frontend with the environment's variables and releases it to S3. The S3 half is scripts/release/."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from scripts.ecs import receipts
from scripts.edges import aws, shell
from scripts.edges.s3 import Bucket, open_bucket
from scripts.frame import console, settings, text, version
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run, actor
from scripts.frame.settings import ROOT, BucketName, Environment
from scripts.frame.threads import workers
from scripts.release import cdn, lease, manifest, plan, publish, references, site
from scripts.release.manifest import Release, State
from scripts.release.plan import ReleasePlan
from scripts.release.publish import Released
from scripts.release.site import Site

# Create React App and Vite put every variable with these prefixes into the pages.
TAKEN_OVER = ("REACT_APP_", "VITE_")


class FrontendBuild(Struct, frozen=True):
    """How the frontend is built. variables: environment variables of the commands. folder: where the commands run.

    build_folder: the folder that the build writes to, and that is released. origins: where each variable came from.
    left_out: variables of this process that a build would take over, and that are not in the settings.
    """

    commands: tuple[tuple[str, ...], ...]
    variables: Mapping[str, str]
    folder: str
    build_folder: str
    origins: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        variables = [f"set {name}={value} (from {self.origins.get(name)})" for name, value in self.variables.items()]
        variables += [f"leave out {name}, which is not in the settings" for name in self.left_out]
        return variables + [f"run {shell.words(command)} in {self.folder}" for command in self.commands]


class FrontendBuilt(Report, Struct, frozen=True):
    """A build that succeeded. folder: the built files. values_from: the variables that its values came from."""

    folder: str
    values_from: tuple[str, ...] = ()

    def line(self) -> str:
        values = f", with the values of {', '.join(self.values_from)}" if self.values_from else ""
        return f"the frontend is built in {self.folder}{values}"


class Build(Struct, frozen=True):
    """A folder that may be released. needed: keys that pages load themselves. missing: files that may be missing."""

    site: Site
    needed: frozenset[str]
    missing: tuple[str, ...]


class Observed(Struct, frozen=True):
    """What is to be released, and what the bucket holds. name: of the bucket.

    bucket: None if it could not be read; only a dry run continues without it. copies: how many files were downloaded
    for a rollback. earlier: requests that the run had sent to the bucket before. needed, missing: as in Build.
    """

    site: Site
    state: State
    name: str
    bucket: Bucket | None = None
    copies: int = 0
    earlier: int = 0
    needed: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()


def release_static(
    run: Run,
    *,
    build_dir: str | None = None,
    no_build: bool = False,
    bucket: str | None = None,
    wait: bool = False,
    allow_missing: str | None = None,
) -> Released | None:
    """Build the frontend and release it."""
    frontend = run.environment.frontend
    name, path = bucket_name(frontend.bucket, bucket), folder(frontend.folder, build_dir)
    if not no_build:
        build_into(run, path)
    return _release(run, name, path, wait=wait, allowed=patterns(allow_missing))


def release_storybook(
    run: Run, *, build_dir: str | None = None, bucket: str | None = None, allow_missing: str | None = None
) -> Released | None:
    """Release a storybook."""
    storybook = run.environment.storybook
    name, path = bucket_name(storybook.bucket, bucket), folder(storybook.folder, build_dir)
    return _release(run, name, path, storybook=True, allowed=patterns(allow_missing))


def patterns(flag: str | None) -> tuple[str, ...]:
    """The patterns of --allow-missing, which are separated by commas. Raises Refused for an empty flag."""
    found = tuple(part.strip() for part in (flag or "").split(",") if part.strip())
    if flag is not None and not found:
        raise Refused("--allow-missing is empty: give a pattern of files, such as env.js or docs/*.")
    return found


def build_frontend(run: Run) -> FrontendBuilt | None:
    """Build the frontend."""
    return build_into(run, folder(run.environment.frontend.folder, None))


def build_into(run: Run, path: Path) -> FrontendBuilt | None:
    """Build the frontend. path: the folder that the build writes to."""
    decided = plan_build(run.environment, path)
    run.read("what builds the frontend", lambda: check_programs(decided))
    return run.act(decided, build, "build the frontend", changes=False)


def _release(
    run: Run, bucket: str, path: Path, *, wait: bool = False, storybook: bool = False, allowed: Sequence[str] = ()
) -> Released | None:
    env = run.environment
    with lease.awaited(run, bucket):
        observed = run.read(f"the bucket {bucket}", lambda: observe(env, bucket, path, allowed))
        if observed is None:
            observed = run.read("the build", lambda: observe_folder(env, bucket, path, allowed))
        if observed is None:
            return None
        decided = decide(env, observed, of_version=run.facts.get("version", ""))
        for warning in decided.warnings:
            console.warn(warning)
        act = partial(release, env, observed, force_lock=run.force_lock, wait=wait)
        run.facts.setdefault("version", decided.release.version)
        # Nothing is released if the bucket holds this build already, and a storybook is not the application.
        keeping = receipts.kept(run, bucket) if decided.is_needed and not storybook else nullcontext()
        with keeping:
            return run.act(decided, act, "release")


def plan_build(environment: Environment, path: Path) -> FrontendBuild:
    """Decide the build. path: the folder that it writes to. Raises Refused if a variable is not set."""
    commands = tuple(command for command in (environment.frontend.install, environment.frontend.build) if command)
    variables, known = environment.frontend_variables(), settings.origins(environment.name)
    origins = {name: known.get(f"frontend.variables.{name}", "") for name in variables}
    left_out = tuple(sorted(name for name in os.environ if name.startswith(TAKEN_OVER) and name not in variables))
    return FrontendBuild(commands, variables, str(ROOT), str(path), origins, left_out)


def check_programs(plan: FrontendBuild) -> None:
    """Raises Refused if a program that the build runs is not installed."""
    for command in plan.commands:
        if not shell.available(command[0]):
            raise Refused(f"{command[0]} is not installed: it is needed to build the frontend.")


def check(environment: Environment, *, build_dir: str | None = None, no_build: bool = False) -> None:
    """Raises Refused if it is clear beforehand that the frontend cannot be built or released.

    Checks the bucket's name, and the variables and programs of the build, or with no_build the folder.
    """
    bucket_name(environment.frontend.bucket, None)
    path = folder(environment.frontend.folder, build_dir)
    if no_build:
        read_site(environment, environment.frontend.bucket.require(), path)
    else:
        check_programs(plan_build(environment, path))


def build(plan: FrontendBuild) -> FrontendBuilt:
    """Run the build. Raises DeployError if a command fails."""
    for command in plan.commands:
        shell.stream(list(command), cwd=Path(plan.folder), env={**plan.variables, **dict.fromkeys(plan.left_out)})
    sources = (origin.partition(" with ")[2] for origin in plan.origins.values())
    return FrontendBuilt(plan.build_folder, tuple(sorted({source for source in sources if source})))


def bucket_name(setting: BucketName, flag: str | None) -> str:
    """The bucket to release to: the flag, else the setting. Raises Refused if neither is set or the name is invalid."""
    return setting.require() if flag is None else BucketName.checked(flag, "the name of a bucket")


def folder(setting: str, flag: str | None) -> Path:
    """The folder to release: the flag, else the setting. Raises Refused for an empty name."""
    if flag == "":
        raise Refused("--build-dir is empty: give a folder.")
    return ROOT / setting if flag is None else Path(flag)


def rules(environment: Environment) -> site.Rules:
    """What the settings say about files."""
    frontend = environment.frontend
    return site.Rules(frontend.keep, frontend.publish, frontend.cache_control, frontend.content_types)


def base(environment: Environment, name: str) -> str:
    """The path at which a site is served. name: of the bucket that it is released to, with its folder."""
    of_frontend = environment.frontend.base if name != environment.storybook.bucket.known() else ""
    return of_frontend or f"/{name.partition('/')[2]}"


def read_site(environment: Environment, name: str, path: Path, allowed: Sequence[str] = ()) -> Build:
    """Hash and check the files of a folder. Raises Refused if they must not be released.

    name: of the bucket. allowed: patterns of files that may be missing.
    """
    found, served = site.read(path, rules(environment)), base(environment, name)
    for keys, why in ((found.kept, "others write them"), (found.litter, "no site needs them")):
        if keys:
            console.say(f"left out, because {why}: {site.shown(keys)}")
    for line in site.hints(found):
        console.say(line)
    checked = references.check(found, base=served, keep=environment.frontend.keep, allowed=allowed)
    if checked.excused:
        console.warn(f"missing, and allowed by --allow-missing: {site.shown(checked.excused)}")
    return Build(found, checked.needed, checked.excused)


def observe(environment: Environment, name: str, path: Path, allowed: Sequence[str] = ()) -> Observed:
    """Read the folder and the bucket at the same time. allowed: as for `read_site`.

    Raises Refused if the folder must not be released, DeployError if the bucket cannot be read.
    """
    if environment.dry_run and not aws.has_credentials(environment):
        raise Refused("there are no AWS credentials here")
    bucket = lease.bucket(name) or open_bucket(environment, name)
    earlier = bucket.requests
    with workers(2) as pool:
        looking = pool.submit(bucket.list)
        reading = pool.submit(manifest.read, bucket)
        found = read_site(environment, name, path, allowed)
        listing, stored = looking.result(), reading.result()
    if stored.unread:
        console.warn(f"the manifest cannot be read, so this release deletes nothing: {stored.unread}")
    if environment.dry_run and not stored.unread:
        lease.warn_of_holder(bucket, listing)
    state = known(environment, bucket, State(listing, *stored))
    return Observed(found.site, state, name, bucket, earlier=earlier, needed=found.needed, missing=found.missing)


def known(environment: Environment, bucket: Bucket, state: State) -> State:
    """What a bucket holds, without the keys of others, and with the live release if the manifest lacks it.

    Raises DeployError if the bucket cannot be read.
    """
    found = manifest.repaired(bucket, state)
    if found.repaired and found.manifest:
        live = next(iter(found.manifest.releases)).id
        console.say(f"{bucket.name} holds release {live}, although its manifest was not written")
    return manifest.without(found, rules(environment).keeps) if environment.frontend.keep else found


def observe_folder(environment: Environment, name: str, path: Path, allowed: Sequence[str] = ()) -> Observed:
    """Read the folder alone, for a dry run that cannot read the bucket."""
    found, unread = read_site(environment, name, path, allowed), State(None, None, unread="not read")
    return Observed(found.site, unread, name, needed=found.needed, missing=found.missing)


def decide(
    environment: Environment,
    observed: Observed,
    *,
    now: float | None = None,
    of_version: str = "",
    rolled_back_from: str = "",
) -> ReleasePlan:
    """The plan of a release. Raises Refused if the release is not allowed (see plan.plan).

    now: Unix time in seconds. of_version: the application's version, by default $GITHUB_SHA or the checked-out commit.
    """
    now = time.time() if now is None else now
    at = int(now)
    try:
        running = of_version or version.wanted(None)
    except DeployError:
        running = "unknown"
    # Milliseconds keep the ids of two quick releases of one version apart.
    release = Release(f"{text.stamp(now)}-{version.short(running)}", running, at, *actor(), rolled_back_from)
    decided = plan.plan(
        observed.site,
        observed.state,
        bucket=observed.name,
        release=release,
        application=environment.application.name,
        environment=environment.name,
        keep_releases=environment.frontend.keep_releases,
        max_delete_percent=environment.frontend.max_delete_percent,
        distribution=of_cdn.require() if (of_cdn := environment.frontend.distribution) else "",
        base=base(environment, observed.name),
        needed=observed.needed,
    )
    return replace(decided, requests=decided.requests + observed.copies, allowed_missing=observed.missing)


def release(
    environment: Environment,
    observed: Observed,
    decided: ReleasePlan,
    *,
    force_lock: bool = False,
    wait: bool = False,
) -> Released:
    """Carry out the plan. wait: for CloudFront to complete the invalidation.

    Raises DeployError; the old page or the new one is whole then.
    """
    if observed.bucket is None:
        raise Refused(f"The bucket {observed.name} could not be read, so nothing was released to it.")
    who, run = actor()
    done = publish.publish(
        observed.bucket,
        observed.site,
        observed.state,
        decided,
        environment,
        actor=who,
        run=run,
        force_lock=force_lock,
    )
    if wait and done.invalidation:
        cdn.wait_for(environment, done.invalidation)
    return replace(done, requests=done.requests - observed.earlier)
