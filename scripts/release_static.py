"""Builds the frontend with the environment's variables and releases it to S3. The S3 half is scripts/release/."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from scripts.ecs import receipts
from scripts.edges import aws, shell
from scripts.edges.s3 import Bucket, open_bucket
from scripts.frame import console, version
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


@dataclass(frozen=True)
class FrontendBuild:
    """How the frontend is built. variables: environment variables of the commands. folder: where the commands run.

    build_folder: the folder that the build writes to, and that is released.
    """

    commands: tuple[tuple[str, ...], ...]
    variables: Mapping[str, str]
    folder: str
    build_folder: str

    def describe(self) -> list[str]:
        variables = [f"set {name}={value}" for name, value in self.variables.items()]
        return variables + [f"run {shell.words(command)} in {self.folder}" for command in self.commands]


@dataclass(frozen=True)
class FrontendBuilt(Report):
    """A build that succeeded. folder: the built files."""

    folder: str

    def line(self) -> str:
        return f"the frontend is built in {self.folder}"


@dataclass(frozen=True)
class Observed:
    """What is to be released, and what the bucket holds. name: of the bucket.

    bucket: None if it could not be read; only a dry run continues without it. copies: how many files were downloaded
    for a rollback. earlier: requests that the run had sent to the bucket before.
    """

    site: Site
    state: State
    name: str
    bucket: Bucket | None = None
    copies: int = 0
    earlier: int = 0


def release_static(
    run: Run,
    *,
    build_dir: str | None = None,
    no_build: bool = False,
    bucket: str | None = None,
    wait: bool = False,
) -> Released | None:
    """Build the frontend and release it."""
    frontend = run.environment.frontend
    name, path = bucket_name(frontend.bucket, bucket), folder(frontend.folder, build_dir)
    with receipts.kept(run, name):
        if not no_build:
            build_into(run, path)
        return _release(run, name, path, wait)


def release_storybook(run: Run, *, build_dir: str | None = None, bucket: str | None = None) -> Released | None:
    """Release a storybook."""
    storybook = run.environment.storybook
    name, path = bucket_name(storybook.bucket, bucket), folder(storybook.folder, build_dir)
    return _release(run, name, path)


def build_frontend(run: Run) -> FrontendBuilt | None:
    """Build the frontend."""
    return build_into(run, folder(run.environment.frontend.folder, None))


def build_into(run: Run, path: Path) -> FrontendBuilt | None:
    """Build the frontend. path: the folder that the build writes to."""
    decided = plan_build(run.environment, path)
    run.read("what builds the frontend", lambda: check_programs(decided))
    return run.act(decided, build, "build the frontend", changes=False)


def _release(run: Run, bucket: str, path: Path, wait: bool = False) -> Released | None:
    env = run.environment
    with lease.awaited(run, bucket):
        observed = run.read(f"the bucket {bucket}", lambda: observe(env, bucket, path))
        if observed is None:
            observed = run.read("the build", lambda: observe_folder(bucket, path))
        if observed is None:
            return None
        decided = decide(env, observed, of_version=run.facts.get("version", ""))
        run.facts.setdefault("version", decided.release.version)
        act = partial(release, env, observed, force_lock=run.force_lock, wait=wait)
        return run.act(decided, act, "release")


def plan_build(environment: Environment, path: Path) -> FrontendBuild:
    """Decide the build. path: the folder that it writes to. Raises Refused if a variable is not set."""
    commands = tuple(command for command in (environment.frontend.install, environment.frontend.build) if command)
    return FrontendBuild(commands, environment.frontend_variables(), str(ROOT), str(path))


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
        read_site(path)
    else:
        check_programs(plan_build(environment, path))


def build(plan: FrontendBuild) -> FrontendBuilt:
    """Run the build. Raises DeployError if a command fails."""
    for command in plan.commands:
        shell.stream(list(command), cwd=Path(plan.folder), env=plan.variables)
    return FrontendBuilt(plan.build_folder)


def bucket_name(setting: BucketName, flag: str | None) -> str:
    """The bucket to release to: the flag, else the setting. Raises Refused if neither is set or the name is invalid."""
    return setting.require() if flag is None else BucketName.checked(flag, "the name of a bucket")


def folder(setting: str, flag: str | None) -> Path:
    """The folder to release: the flag, else the setting. Raises Refused for an empty name."""
    if flag == "":
        raise Refused("--build-dir is empty: give a folder.")
    return ROOT / setting if flag is None else Path(flag)


def read_site(path: Path) -> Site:
    """Hash and check the files of a folder. Raises Refused if they must not be released."""
    found = site.read(path)
    references.check(found)
    return found


def observe(environment: Environment, name: str, path: Path) -> Observed:
    """Read the folder and the bucket at the same time.

    Raises Refused if the folder must not be released, DeployError if the bucket cannot be read.
    """
    if environment.dry_run and not aws.has_credentials(environment):
        raise Refused("there are no AWS credentials here")
    bucket = lease.bucket(name) or open_bucket(environment, name)
    earlier = bucket.requests
    with workers(2) as pool:
        looking = pool.submit(bucket.list)
        reading = pool.submit(manifest.read, bucket)
        found = read_site(path)
        listing, stored = looking.result(), reading.result()
    if stored.unread:
        console.warn(f"the manifest cannot be read, so this release deletes nothing: {stored.unread}")
    if environment.dry_run and not stored.unread:
        lease.warn_of_holder(bucket, listing)
    return Observed(found, State(listing, *stored), name, bucket, earlier=earlier)


def observe_folder(name: str, path: Path) -> Observed:
    """Read the folder alone, for a dry run that cannot read the bucket."""
    return Observed(read_site(path), State(None, None, unread="not read"), name)


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
    stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(at))}.{int(now * 1000) % 1000:03d}Z"
    release = Release(f"{stamp}-{version.short(running)}", running, at, *actor(), rolled_back_from)
    decided = plan.plan(
        observed.site,
        observed.state,
        bucket=observed.name,
        release=release,
        application=environment.application.name,
        environment=environment.name,
        cache_control=environment.frontend.cache_control,
        keep_releases=environment.frontend.keep_releases,
        max_delete_percent=environment.frontend.max_delete_percent,
        distribution=environment.frontend.distribution,
    )
    return replace(decided, requests=decided.requests + observed.copies)


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
