"""Builds the frontend with the environment's variables and releases it to S3.

Was scripts/release_static. The S3 half is scripts/release/.
"""

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from scripts.edges import aws, shell
from scripts.edges.s3 import Bucket, Keys, open_bucket
from scripts.frame import console, version
from scripts.frame.errors import DeployError, Refused
from scripts.frame.report import Report
from scripts.frame.run import Run
from scripts.frame.settings import ROOT, BucketName, Environment
from scripts.release import cdn, lease, manifest, plan, publish, references, site
from scripts.release.manifest import Release, State
from scripts.release.plan import ReleasePlan
from scripts.release.publish import Released
from scripts.release.site import Site


@dataclass(frozen=True)
class FrontendBuild:
    """A build of the frontend: its commands in order, and the variables that they see."""

    commands: tuple[tuple[str, ...], ...]
    variables: Mapping[str, str]
    folder: str

    def describe(self) -> list[str]:
        variables = [f"set {name}={value}" for name, value in self.variables.items()]
        return variables + [f"run {shell.words(command)} in {self.folder}" for command in self.commands]


@dataclass(frozen=True)
class FrontendBuilt(Report):
    """A build that ended well."""

    folder: str

    def line(self) -> str:
        return f"the frontend is built in {self.folder}"


@dataclass(frozen=True)
class Observed:
    """The folder that is to be released, and what the bucket holds. copies: read from the bucket for a rollback."""

    site: Site
    bucket: Bucket
    state: State
    copies: int = 0


def release_static(
    run: Run,
    *,
    build_dir: str | None = None,
    no_build: bool = False,
    bucket: str | None = None,
    force_lock: bool = False,
    wait: bool = False,
) -> Released | None:
    """Build the frontend and release it."""
    frontend = run.environment.frontend
    name, path = bucket_name(frontend.bucket, bucket), folder(frontend.folder, build_dir)
    if not no_build:
        build_frontend(run)
    return _release(run, name, path, force_lock, wait)


def release_storybook(
    run: Run, *, build_dir: str | None = None, bucket: str | None = None, force_lock: bool = False
) -> Released | None:
    """Release a storybook."""
    storybook = run.environment.storybook
    name, path = bucket_name(storybook.bucket, bucket), folder(storybook.folder, build_dir)
    return _release(run, name, path, force_lock)


def build_frontend(run: Run) -> FrontendBuilt | None:
    """Build the frontend."""
    decided = plan_build(run.environment)
    run.read("what builds the frontend", lambda: check_programs(decided))
    return run.act(decided, build, "build the frontend")


def _release(run: Run, bucket: str, path: Path, force_lock: bool, wait: bool = False) -> Released | None:
    env = run.environment
    observed = run.read(f"the bucket {bucket}", lambda: observe(env, bucket, path))
    if observed is None:
        observed = run.read("the build", lambda: unseen(env, bucket, path))
    if observed is None:
        return None
    act = partial(release, env, observed, force_lock=force_lock, wait=wait)
    return run.act(decide(env, observed), act, "release")


def plan_build(environment: Environment) -> FrontendBuild:
    """Decide the build. Raises Refused for a variable that is not set."""
    commands = tuple(command for command in (environment.frontend.install, environment.frontend.build) if command)
    return FrontendBuild(commands, environment.frontend_variables(), str(ROOT))


def check_programs(plan: FrontendBuild) -> None:
    """Raises Refused for a program that the build needs and the machine does not have."""
    for command in plan.commands:
        if not shell.available(command[0]):
            raise Refused(f"{command[0]} is not installed: it is needed to build the frontend.")


def check(environment: Environment, *, build_dir: str | None = None, no_build: bool = False) -> None:
    """Raises Refused where the frontend could not be built or released: a variable, a program or the bucket's name."""
    bucket_name(environment.frontend.bucket, None)
    path = folder(environment.frontend.folder, build_dir)
    if no_build:
        read_site(path)
    else:
        check_programs(plan_build(environment))


def build(plan: FrontendBuild) -> FrontendBuilt:
    """Run the build. Raises DeployError where a command fails."""
    for command in plan.commands:
        shell.stream(list(command), cwd=Path(plan.folder), env=plan.variables)
    return FrontendBuilt(plan.folder)


def bucket_name(setting: BucketName, flag: str | None) -> str:
    """The bucket to release to: the flag, else the setting. Raises Refused for none, or for what cannot be one."""
    return setting.require() if flag is None else BucketName.checked(flag, "the name of a bucket")


def folder(setting: str, flag: str | None) -> Path:
    """The folder to release: the flag, else the setting. Raises Refused for an empty name."""
    if flag == "":
        raise Refused("--build-dir is empty: give a folder.")
    return ROOT / setting if flag is None else Path(flag)


def read_site(path: Path) -> Site:
    """The folder's files, hashed and checked. Raises Refused for everything that must not be released."""
    found = site.read(path)
    references.check(found)
    return found


def observe(environment: Environment, name: str, path: Path) -> Observed:
    """Read folder and bucket at the same time. Raises Refused for an unfit folder, DeployError of S3."""
    if environment.dry_run and not aws.has_credentials(environment):
        raise Refused("there are no AWS credentials here")
    bucket = open_bucket(environment, name)
    with ThreadPoolExecutor(2) as pool:
        listing = pool.submit(bucket.list)
        known = pool.submit(manifest.read, bucket)
        found = read_site(path)
        present = listing.result()
        old, etag, unread = known.result()
    if unread:
        console.warn(f"the release goes on without its manifest, and deletes nothing: {unread}")
    if environment.dry_run and not unread:
        lease.warn_of_holder(bucket, present)
    return Observed(found, bucket, State(present, old, etag, unread))


def unseen(environment: Environment, name: str, path: Path) -> Observed:
    """The folder alone, for a dry run that cannot read the bucket."""
    bucket = Bucket(name, environment.region, environment.endpoint_url, Keys("", ""), environment.name)
    return Observed(read_site(path), bucket, State(None, None, "", "not read"))


def decide(
    environment: Environment, observed: Observed, *, now: float | None = None, of_version: str = ""
) -> ReleasePlan:
    """The plan of a release. now: Unix time in seconds. Raises Refused for what a release must not do.

    of_version: the version that is released, where it is not the one that is checked out.
    """
    now = time.time() if now is None else now
    at = int(now)
    try:
        running = of_version or version.wanted(None)
    except DeployError:
        running = "unknown"
    # To the millisecond: no two releases have one id.
    stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(at))}.{int(now * 1000) % 1000:03d}Z"
    release = Release(f"{stamp}-{version.short(running)}", running, at, *actor())
    decided = plan.plan(
        observed.site,
        observed.state,
        bucket=observed.bucket.name,
        release=release,
        application=environment.application.name,
        environment=environment.name,
        cache_control=environment.frontend.cache_control,
        keep_releases=environment.frontend.keep_releases,
        max_delete_percent=environment.frontend.max_delete_percent,
        distribution=environment.frontend.distribution,
    )
    return replace(decided, requests=decided.requests + observed.copies)


def actor() -> tuple[str, str]:
    """Who releases, and the URL of the workflow's run, empty on a laptop."""
    who = os.environ.get("GITHUB_ACTOR") or os.environ.get("USER") or os.environ.get("LOGNAME") or "somebody"
    repository, run = os.environ.get("GITHUB_REPOSITORY"), os.environ.get("GITHUB_RUN_ID")
    return who, console.github(f"{repository}/actions/runs/{run}") if repository and run else ""


def release(
    environment: Environment,
    observed: Observed,
    decided: ReleasePlan,
    *,
    force_lock: bool = False,
    wait: bool = False,
) -> Released:
    """Carry the plan out. Raises DeployError; the page is whole whatever happens."""
    who, run = actor()
    return publish.publish(
        observed.bucket,
        observed.site,
        observed.state,
        decided,
        environment,
        lambda paths: cdn.invalidate(environment, paths, wait=wait),
        actor=who,
        run=run,
        force_lock=force_lock,
    )
