"""The whole command line: one thin task per command, nothing else.

`positional=[]`, because a parameter without default would swallow --help and --dry (pyinvoke/invoke#1084);
no short flags of our own, because they would take -e and -h from Invoke.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import invoke

import scripts

# Invoke turns the caches of bytecode off; without them every command compiles all that it imports.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

task = partial(invoke.task, positional=[], auto_shortflags=False)


def flags(**own):
    """The help of a task's flags: its own, and those that every task has."""
    return {
        **own,
        "env": "Environment: dev, impl, prod or local. Default: $APP_ENV, else local, but in CI none.",
        "dry_run": "Print what would be done and change nothing; needs no credentials and no network.",
        "yes": "Go on without asking, where the environment asks a person to confirm.",
        "json": "Print one JSON document on stdout: the plan, and the result of a run.",
    }


def _build_image(command, push=True, **flags):
    env = command.environment
    repository, tag = scripts.build_image.planned(env, flags.get("image"), flags.get("tag"))
    known = command.read(f"{repository} in ECR", partial(scripts.images.find, env, repository, tag)) if push else ""
    plan = scripts.build_image.plan(env, push=push, digest=known or "", **flags)
    command.read("what is to be built", partial(scripts.build_image.check_sources, plan))
    return command.run(plan, partial(scripts.build_image.build, env))


@task(
    help=flags(
        image="Repository of the image. Default: the service's, from the settings.",
        file="Dockerfile. Default: the image's, from the settings.",
        context="Folder that the build sees. Default: from the settings.",
        tag="The image's tag. Default: $GITHUB_SHA, else the commit that is checked out.",
        no_push="Only build.",
    )
)
def build_image(
    c, env=None, image=None, file=None, context=None, tag=None, no_push=False, dry_run=False, yes=False, json=False
):
    """Build the image of a version and push it to ECR, unless it is there already."""
    with scripts.command.Command(c, "build-image", env, dry_run=dry_run, yes=yes, json=json) as command:
        _build_image(command, push=not no_push, image=image, file=file, context=context, tag=tag)


@task(
    help=flags(
        service="ECS service. Default: the application's, from the settings.",
        image="The image's repository in the environment's registry. Default: the service's own.",
        tag="The image's tag. Default: $GITHUB_SHA, else the commit that is checked out.",
        image_uri="The image's whole URI, instead of --image and --tag.",
        no_image="Restart what runs: send no image.",
        function_name="Name of the ecs-manager Lambda. Default: from the settings.",
        qualifier="The Lambda's version or alias. Default: from the settings; $LATEST for another function.",
    )
)
def deploy_service(
    c,
    env=None,
    service=None,
    image=None,
    tag=None,
    image_uri=None,
    no_image=False,
    function_name=None,
    qualifier=None,
    dry_run=False,
    yes=False,
    json=False,
):
    """Deploy a service: the ECS manager gives it the image and starts its rollout."""
    with scripts.command.Command(c, "deploy-service", env, dry_run=dry_run, yes=yes, json=json) as command:
        plan = scripts.deploy_service.plan(
            command.environment,
            service=service,
            image=image,
            tag=tag,
            image_uri=image_uri,
            no_image=no_image,
            function_name=function_name,
            qualifier=qualifier,
        )
        command.run(plan, partial(scripts.deploy_service.deploy, command.environment))


@task(
    help=flags(
        service="ECS service whose task runs. Default: the one that migrates the database.",
        function_name="Name of the ecs-manager Lambda. Default: from the settings.",
        qualifier="The Lambda's version or alias. Default: from the settings; $LATEST for another function.",
    )
)
def run_task(
    c,
    env=None,
    service=None,
    function_name=None,
    qualifier=None,
    dry_run=False,
    yes=False,
    json=False,
):
    """Run a service's task once and wait for its end; fails with its exit code and reason."""
    with scripts.command.Command(c, "run-task", env, dry_run=dry_run, yes=yes, json=json) as command:
        plan = scripts.run_task.plan(
            command.environment, service=service, function_name=function_name, qualifier=qualifier
        )
        command.run(plan, partial(scripts.run_task.run, command.environment))


@task(
    help=flags(
        version="Version to wait for. Default: $GITHUB_SHA, else the commit that is checked out.",
        timeout="Seconds to wait. Default: 300.",
        url="URL of the healthcheck. Default: the environment's.",
    )
)
def healthcheck(c, env=None, version=None, timeout=None, url=None, dry_run=False, yes=False, json=False):
    """Wait until the environment answers with the version."""
    with scripts.command.Command(c, "healthcheck", env, dry_run=dry_run, yes=yes, json=json, changes=False) as command:
        plan = scripts.healthcheck.plan(command.environment, wanted=version, timeout=timeout, url=url)
        command.run(
            plan,
            lambda plan: scripts.healthcheck.wait(plan, scripts.healthcheck.watcher(command.environment)),
        )


def _release(command, bucket, path, force_lock=False, wait=False):
    static, env = scripts.release_static, command.environment
    observed = command.read(f"the bucket {bucket}", lambda: static.observe(env, bucket, path))
    if observed is None:
        observed = command.read("the build", lambda: static.unseen(env, bucket, path))
    if observed is not None:
        act = partial(static.release, env, observed, force_lock=force_lock, wait=wait)
        command.run(static.decide(env, observed), act, "release")


def _build_frontend(command):
    plan = scripts.release_static.plan_build(command.environment)
    command.read("what builds the frontend", partial(scripts.release_static.check_programs, plan))
    command.run(plan, scripts.release_static.build, "build the frontend")


@task(help=flags())
def build_frontend(c, env=None, dry_run=False, yes=False, json=False):
    """Build the frontend with the environment's variables, for a release later."""
    with scripts.command.Command(
        c, "build-frontend", env, dry_run=dry_run, yes=yes, json=json, changes=False
    ) as command:
        _build_frontend(command)


@task(
    help=flags(
        build_dir="Folder to release. Default: from the settings.",
        bucket="Bucket to release to. Default: $STORYBOOK_S3_BUCKET_<ENV>, $STORYBOOK_S3_BUCKET, or the settings.",
        force_lock="Break the lease of another release, which must be dead.",
    )
)
def release_storybook(c, env=None, build_dir=None, bucket=None, force_lock=False, dry_run=False, yes=False, json=False):
    """Release a built storybook to S3, where the settings have a bucket for it."""
    with scripts.command.Command(c, "release-storybook", env, dry_run=dry_run, yes=yes, json=json) as command:
        name = scripts.release_static.bucket_name(command.environment, bucket, "storybook_bucket")
        path = scripts.release_static.folder(command.environment, build_dir, "storybook_dir")
        _release(command, name, path, force_lock)


@task(
    help=flags(
        build_dir="Folder to release. Default: from the settings.",
        no_build="Release what the folder holds, and build nothing.",
        bucket="Bucket to release to. Default: $STATIC_S3_BUCKET_<ENV>, $STATIC_S3_BUCKET, or the settings.",
        force_lock="Break the lease of another release, which must be dead.",
        wait="Wait until the CDN has forgotten what was there before.",
    )
)
def release_static(
    c,
    env=None,
    build_dir=None,
    no_build=False,
    bucket=None,
    force_lock=False,
    wait=False,
    dry_run=False,
    yes=False,
    json=False,
):
    """Build the frontend and release it to S3; the page is whole at every moment."""
    with scripts.command.Command(c, "release-static", env, dry_run=dry_run, yes=yes, json=json) as command:
        name = scripts.release_static.bucket_name(command.environment, bucket)
        path = scripts.release_static.folder(command.environment, build_dir)
        if not no_build:
            _build_frontend(command)
        _release(command, name, path, force_lock, wait)


@task(help=flags(tag="Version to deploy: the images' tag. Default: $GITHUB_SHA, else the commit that is checked out."))
def deploy(c, env=None, tag=None, dry_run=False, yes=False, json=False):
    """Deploy a version: back up or clean, migrate, deploy the service, wait until it answers, release the frontend."""
    with scripts.command.Command(c, "deploy", env, dry_run=dry_run, yes=yes, json=json) as command:
        env, version = command.environment, scripts.version.wanted(tag)
        if not command.dry_run:
            # What the last steps need is looked at before the first one changes anything.
            scripts.release_static.check(env)
        steps = []
        if env.endpoint_url:
            # No pipeline has built the images of an embedded environment.
            for image in (env.image, env.migration_image):
                steps.append((f"build {image}", partial(_build_image, command, image=image, tag=version)))
        if env.backup:
            steps.append(("back up the database", partial(_backup, command)))
        if env.clean_function:
            steps.append(("clean the database", partial(_clean, command)))
        if env.migration_service:
            steps += _migration(command, version)
        steps.append(("deploy the service", partial(_deploy_service, command, env.service, version)))
        steps.append(("wait for the version", partial(_healthcheck, command, version)))
        steps.append(("build the frontend", partial(_build_frontend, command)))
        steps.append(("release the frontend", partial(_release_default, command)))
        command.row(steps)
        command.last_line = f"{env.name} runs {scripts.version.short(version)}"


def _deploy_service(command, service, tag, image_uri=None):
    env = command.environment
    plan = scripts.deploy_service.plan(env, service=service, tag=tag, image_uri=image_uri)
    return command.run(plan, partial(scripts.deploy_service.deploy, env), f"deploy {service}")


def _run_task(command, service, **function):
    env = command.environment
    plan = scripts.run_task.plan(env, service=service, **function)
    return command.run(plan, partial(scripts.run_task.run, env), f"run {service}")


def _backup(command):
    env = command.environment
    existing = command.read("the snapshots of the database", partial(scripts.backup_database.snapshots, env))
    plan = scripts.backup_database.plan(env, existing or (), time.time())
    return command.run(plan, partial(scripts.backup_database.backup, env), "back up the database")


def _clean(command):
    cleaner = scripts.clean_database.cleaner(command.environment)
    return _run_task(command, cleaner.service, function_name=cleaner.function, qualifier=cleaner.qualifier)


def _migration(command, version, image_uri=None):
    """The steps of a migration: the service that migrates gets its image, then its task runs once."""
    service = scripts.migrate_database.service(command.environment)

    def migrate():
        with scripts.migrate_database.showing_logs(command.environment):
            return _run_task(command, service)

    return [
        ("deploy the migrations", partial(_deploy_service, command, service, version, image_uri)),
        ("migrate the database", migrate),
    ]


def _healthcheck(command, version):
    env, deployed = command.environment, command.steps[-1].result
    plan = scripts.healthcheck.plan(env, wanted=version, deployment_id=deployed.deployment_id if deployed else "")
    wait = lambda plan: scripts.healthcheck.wait(plan, scripts.healthcheck.watcher(env))  # noqa: E731
    return command.run(plan, wait, "wait for the version")


def _release_default(command):
    env = command.environment
    static = scripts.release_static
    return _release(command, static.bucket_name(env, None), static.folder(env, None))


@task(
    help=flags(
        commit="Commit to revert. Default: the one that --env runs, else the newest on the base branch.",
        base="Branch to revert on. Default: the main branch, from the settings.",
        no_push="Only make the branch, here.",
        no_pr="Push the branch and open no pull request.",
    )
)
def revert(c, env=None, commit=None, base=None, no_push=False, no_pr=False, dry_run=False, yes=False, json=False):
    """Roll back: revert a commit on a branch of its own and open the pull request."""
    flags = {"dry_run": dry_run, "yes": yes, "json": json}
    with scripts.command.Command(c, "revert", env, changes=False, embedded=False, application=True, **flags) as command:
        folder = scripts.revert.top(Path.cwd())
        command.read("the newest commits", partial(scripts.revert.fetch, folder))
        asked = scripts.status.ask(scripts.status.plan(None).urls)
        running = {one.environment: one.version for one in asked if one.version}
        observed = scripts.revert.observe(
            command.environment,
            folder,
            commit=commit,
            base=base,
            running=running,
            of_environment=env or "",
        )
        plan = scripts.revert.plan(observed, push=not no_push, pull_request=not no_pr)
        command.run(plan, scripts.revert.revert)


@task(help=flags())
def status(c, env=None, dry_run=False, yes=False, json=False):
    """Say what runs where: version, commit, age, and how far behind the main branch."""
    flags = {"dry_run": dry_run, "yes": yes, "json": json}
    with scripts.command.Command(c, "status", env, changes=False, embedded=False, application=True, **flags) as command:
        application = command.environment.application
        look = partial(scripts.status.table, folder=Path.cwd(), main_branch=application.main_branch, now=time.time())
        table = command.run(scripts.status.plan(env), look)
        if table and not json:
            scripts.console.result("\n".join(table.lines()))


@task(help=flags())
def backup_database(c, env=None, dry_run=False, yes=False, json=False):
    """Take a snapshot of the database and wait until it is available."""
    with scripts.command.Command(c, "backup-database", env, dry_run=dry_run, yes=yes, json=json) as command:
        _backup(command)


@task(help=flags())
def clean_database(c, env=None, dry_run=False, yes=False, json=False):
    """Empty the database, where the settings allow it; never production's."""
    with scripts.command.Command(c, "clean-database", env, dry_run=dry_run, yes=yes, json=json) as command:
        _clean(command)


@task(
    help=flags(
        tag="The migrations' image's tag. Default: $GITHUB_SHA, else the commit that is checked out.",
        image_uri="The image's whole URI, instead of --tag.",
    )
)
def migrate_database(c, env=None, tag=None, image_uri=None, dry_run=False, yes=False, json=False):
    """Migrate the database: deploy the migrations of a version, run them once, show what they printed."""
    with scripts.command.Command(c, "migrate-database", env, dry_run=dry_run, yes=yes, json=json) as command:
        tag = scripts.version.wanted(tag) if image_uri is None else None
        command.row(_migration(command, tag, image_uri))


@task(
    help=flags(
        image="Repository of the image. Default: the service's, from the settings.",
        tag="The image's tag. Default: $GITHUB_SHA, else the commit that is checked out.",
        running="Check the version that runs, as the environment's healthcheck says, instead of --tag.",
        against_running="Count only what the version that runs does not have.",
        via="Where the findings come from: ecr (default), or lambda, which only counts them.",
        fail_on="Least severity that counts: informational (default), low, medium, high or critical.",
        waivers="TOML file of findings that are accepted until a date.",
        announce="Tell the Slack channel of findings instead of failing.",
        timeout="Seconds to wait for a scan that is not done. Default: 300.",
        function_name="With --via=lambda: its name. Default: from the settings.",
        qualifier="With --via=lambda: its version or alias. Default: from the settings; $LATEST for another one.",
    )
)
def check_image(
    c,
    env=None,
    image=None,
    tag=None,
    running=False,
    against_running=False,
    via=None,
    fail_on=None,
    waivers=None,
    announce=False,
    timeout=None,
    function_name=None,
    qualifier=None,
    dry_run=False,
    yes=False,
    json=False,
):
    """Fail for what the registry's scanner found in an image."""
    with scripts.command.Command(c, "check-image", env, dry_run=dry_run, yes=yes, json=json, changes=False) as command:
        env, module = command.environment, scripts.check_image
        module.check_flags(tag, running, against_running)
        answers = ""
        if running or against_running:
            answers = command.read("the version that runs", partial(module.running_version, env)) or "unknown"
        plan = module.plan(
            env,
            image=image,
            tag=answers if running else tag,
            running=answers if against_running else "",
            via=via,
            fail_on=fail_on,
            waivers=waivers,
            timeout=timeout,
            function_name=function_name,
            qualifier=qualifier,
        )
        checked = command.run(plan, partial(module.check, env))
        if checked and announce and checked.total:
            found = scripts.announce_failure.Announcement("", module.message(env, checked))
            command.run(found, scripts.announce_failure.announce, "announce the findings")
        elif checked and not announce:
            module.require_clean(checked)


@task(
    help=flags(
        step="Name of the step that failed.",
        reason="Why it failed.",
    )
)
def announce_failure(c, env=None, step=None, reason=None, dry_run=False, yes=False, json=False):
    """Tell the team's Slack channel that a job of the main branch has failed; never fails for Slack."""
    with scripts.command.Command(
        c, "announce-failure", env, dry_run=dry_run, yes=yes, json=json, changes=False
    ) as command:
        asked = [] if command.dry_run else scripts.status.ask(scripts.status.plan(command.environment.name).urls)
        running = next((one.version for one in asked), "")
        plan = scripts.announce_failure.plan(command.environment, step=step, reason=reason, running=running)
        command.run(plan, scripts.announce_failure.announce)


@task(help=flags(output="The zip to write. Default: ecs_manager.zip."))
def package_ecs_manager(c, env=None, output=None, dry_run=False, yes=False, json=False):
    """Pack the ecs-manager Lambda into a zip, the same bytes each time."""
    flags = {"dry_run": dry_run, "yes": yes, "json": json}
    with scripts.command.Command(
        c, "package-ecs-manager", env, changes=False, embedded=False, application=True, **flags
    ) as command:
        command.run(scripts.package_ecs_manager.plan(output), scripts.package_ecs_manager.write)


BUCKET = "Bucket of the releases. Default: $STATIC_S3_BUCKET_<ENV>, $STATIC_S3_BUCKET, or the settings."


def _look(c, name, env, bucket, what, act, dry_run, yes, json):
    flags = {"dry_run": dry_run, "yes": yes, "json": json}
    with scripts.command.Command(c, f"release.{name}", env, changes=False, **flags) as command:
        chosen = scripts.release_static.bucket_name(command.environment, bucket)
        plan = scripts.release_history.Look(f"{what} {chosen}")
        seen = command.run(plan, act(command.environment, chosen))
        if seen and hasattr(seen, "lines") and not json:
            lines = seen.lines() if callable(seen.lines) else seen.lines
            scripts.console.result("\n".join(lines))


@task(name="list", help=flags(bucket=BUCKET))
def release_list(c, env=None, bucket=None, dry_run=False, yes=False, json=False):
    """List the releases that are kept, the live one first."""
    _look(c, "list", env, bucket, "read the releases of", scripts.release_history.releases, dry_run, yes, json)


@task(
    name="diff",
    help=flags(
        bucket=BUCKET,
        old="Release to compare from. Default: the one before.",
        new="Release to compare. Default: the live one.",
    ),
)
def release_diff(c, env=None, old=None, new=None, bucket=None, dry_run=False, yes=False, json=False):
    """Say which files differ between two releases."""
    act = partial(scripts.release_history.difference, old=old, new=new)
    _look(c, "diff", env, bucket, "compare two releases of", act, dry_run, yes, json)


@task(name="verify", help=flags(bucket=BUCKET, url="Fetch the page and all it needs from this URL too."))
def release_verify(c, env=None, bucket=None, url=None, dry_run=False, yes=False, json=False):
    """Compare the bucket, and the site as it is served, with the live release."""
    act = partial(scripts.release_history.check, url=url)
    _look(c, "verify", env, bucket, "compare with its manifest", act, dry_run, yes, json)


@task(
    name="rollback",
    help=flags(
        bucket=BUCKET,
        to="Release to go back to. Default: the one before the live one.",
        force_lock="Break the lease of another release, which must be dead.",
        wait="Wait until the CDN has forgotten what was there before.",
    ),
)
def release_rollback(
    c, env=None, to=None, bucket=None, force_lock=False, wait=False, dry_run=False, yes=False, json=False
):
    """Go back to an earlier release of the frontend, without a build."""
    static = scripts.release_static
    with (
        scripts.command.Command(c, "release.rollback", env, dry_run=dry_run, yes=yes, json=json) as command,
        tempfile.TemporaryDirectory() as folder,
    ):
        environment = command.environment
        name = static.bucket_name(environment, bucket)
        look = partial(scripts.release_history.restored, environment, name, to, Path(folder))
        found = command.read(f"the bucket {name}", look)
        if found:
            site, s3, state, version = found
            observed = static.Observed(site, s3, state, copies=sum(bool(file.path) for file in site.files.values()))
            act = partial(static.release, environment, observed, force_lock=force_lock, wait=wait)
            command.run(static.decide(environment, observed, of_version=version), act, "rollback")


def _local(c, verb, env, port, dry_run, yes, json):
    flags = {"dry_run": dry_run, "yes": yes, "json": json}
    with scripts.command.Command(c, f"local.{verb}", env or "local", changes=False, embedded=False, **flags) as command:
        command.run(scripts.embedded.plan(command.environment, verb, port), scripts.embedded.act)


PORT = "Port of 127.0.0.1. Default: that of the settings. Other commands find it by AWS_ENDPOINT_URL."


@task(name="up", help=flags(port=PORT))
def local_up(c, env=None, port=None, dry_run=False, yes=False, json=False):
    """Start the embedded AWS in the background, unless it runs."""
    _local(c, "up", env, port, dry_run, yes, json)


@task(name="down", help=flags(port=PORT))
def local_down(c, env=None, port=None, dry_run=False, yes=False, json=False):
    """Stop the embedded AWS."""
    _local(c, "down", env, port, dry_run, yes, json)


@task(name="status", help=flags(port=PORT))
def local_status(c, env=None, port=None, dry_run=False, yes=False, json=False):
    """Say whether the embedded AWS runs, and where."""
    _local(c, "status", env, port, dry_run, yes, json)


namespace = invoke.Collection(
    announce_failure,
    backup_database,
    build_frontend,
    build_image,
    check_image,
    clean_database,
    deploy,
    deploy_service,
    healthcheck,
    migrate_database,
    package_ecs_manager,
    release_static,
    release_storybook,
    revert,
    run_task,
    status,
    invoke.Collection("release", release_list, release_diff, release_rollback, release_verify),
    invoke.Collection("local", local_up, local_down, local_status),
)
