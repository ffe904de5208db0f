"""The whole command line: one declaration per command, whose parameters are its flags. scripts/ has a file for each."""

import scripts
from scripts.frame import declaration as flags
from scripts.frame.declaration import Text, command, flag, namespace_of, switch


@command(lambda: scripts.deploy.deploy, locks=True)
def deploy(
    tag: Text = flag("Version to deploy: the tag of the images. Default: $GITHUB_SHA, else the checked-out commit."),
    digest: Text = flag("Digest of the service's image, sha256:…; the healthcheck still waits for the version."),
    migration_digest: Text = flag("Digest of the migrations' image, sha256:…."),
    no_build: bool = switch("Build neither the images nor the frontend: deploy what is already built."),
    build_dir: Text = flags.BUILD_DIR,
    skip_promotion: bool = switch("Deploy it even if the environment before is not known to have run it well."),
    supersede: bool = flags.SUPERSEDE,
    allow_secret_removal: bool = flags.REMOVE,
) -> None:
    """Deploy a version: back up or clean the database, migrate it, deploy the service, release the frontend."""


@command(lambda: scripts.preview.preview, changes=False)
def preview(tag: Text = flags.TAG, digest: Text = flags.DIGEST, build_dir: Text = flags.BUILD_DIR) -> None:
    """Show what a deployment would change, for those who approve it. Changes nothing."""


@command(lambda: scripts.build_image.build_image)
def build_image(
    image: Text = flag("Repository of the image. Default: the service's, from the settings."),
    file: Text = flag("Dockerfile. Default: the image's, from the settings."),
    context: Text = flag("Folder of the build context. Default: from the settings."),
    tag: Text = flags.TAG,
    no_push: bool = switch("Build the image, but do not push it."),
    rebuild: bool = switch("Build it although the registry has its tag, which then moves."),
) -> None:
    """Build the image of a version and push it to ECR, unless ECR already has it."""


@command(lambda: scripts.deploy_service.deploy_service, locks=True)
def deploy_service(
    service: Text = flag("ECS service. Default: all of the application's, from the settings."),
    image: Text = flag("Repository of the image in the environment's registry. Default: the service's own."),
    tag: Text = flags.TAG,
    digest: Text = flags.DIGEST,
    image_uri: Text = flag("Full URI of the image, instead of --image and --tag."),
    no_image: bool = switch("Restart the service with the image that it has."),
    supersede: bool = flags.SUPERSEDE,
    allow_secret_removal: bool = flags.REMOVE,
    no_wait: bool = switch("Start the rollout, but do not watch it."),
    wait_until: Text = flag("Watch until ECS calls the rollout complete (default), or until its traffic has shifted."),
    timeout: Text = flag("Seconds to watch, besides the time that the service's strategy bakes. Default: 900."),
    keep_waiting: bool = switch("Go on watching although its tasks die for the same reason."),
    abort_on_failure: bool = switch("If its tasks die for the same reason, have ECS stop the rollout and roll back."),
    resume: bool = switch("Start nothing: find the rollout of the image in ECS, and go on watching it."),
    via: Text = flags.VIA,
    function_name: Text = flags.FUNCTION,
    qualifier: Text = flags.QUALIFIER,
) -> None:
    """Deploy a service: register a task definition with the image, start the rollout and watch it to its end."""


@command(lambda: scripts.verify.verify, changes=False)
def verify(
    service: Text = flag("Service to look at. Default: the application's, and the one that migrates the database."),
    tag: Text = flags.TAG,
    digest: Text = flags.DIGEST,
    image_uri: Text = flags.URI,
    via: Text = flags.VIA,
) -> None:
    """Look at all that a deployment depends on, rights included, and show what it would change. Changes nothing."""


@command(lambda: scripts.healthcheck.healthcheck, changes=False)
def healthcheck(
    version: Text = flag("Version to wait for. Default: $GITHUB_SHA, else the checked-out commit."),
    deployment_id: Text = flag("Id of the ECS deployment to follow: the output deployment-id of deploy-service."),
    digest: Text = flag("Digest of the deployed image: the output digest of deploy-service."),
    timeout: Text = flag("Seconds to wait. Default: 300."),
    url: Text = flag("URL of the healthcheck. Default: the environment's."),
) -> None:
    """Wait until the environment's healthcheck returns the version and its rollout in ECS is complete."""


@command(lambda: scripts.run_task.run_task, locks=True)
def run_task(
    service: Text = flag("Service, or task of the settings, to run. Default: the one that migrates the database."),
    via: Text = flags.VIA,
    function_name: Text = flags.FUNCTION,
    qualifier: Text = flags.QUALIFIER,
) -> None:
    """Run a service's task once and wait until it stops; a failure shows its exit code and reason."""


@command(lambda: scripts.migrate_database.migrate_database, locks=True)
def migrate_database(
    tag: Text = flags.TAG, digest: Text = flags.DIGEST, image_uri: Text = flags.URI, via: Text = flags.VIA
) -> None:
    """Migrate the database: deploy the migrations of a version, run them once, show their logs."""


@command(lambda: scripts.clean_database.clean_database, locks=True)
def clean_database() -> None:
    """Empty the database, if the settings allow it. Always refused for production."""


@command(lambda: scripts.backup_database.backup_database)
def backup_database() -> None:
    """Take a snapshot of the database and wait until it is available."""


@command(lambda: scripts.release_static.build_frontend, changes=False, embedded=False)
def build_frontend() -> None:
    """Build the frontend with the environment's variables, to be released later."""


@command(lambda: scripts.release_static.release_static, locks=True)
def release_static(
    build_dir: Text = flags.FOLDER,
    no_build: bool = switch("Release the folder as it is, without a build."),
    bucket: Text = flags.TARGET,
    wait: bool = flags.WAIT,
    allow_missing: Text = flags.ALLOW_MISSING,
) -> None:
    """Build the frontend and release it to S3. The site stays complete at every moment."""


@command(lambda: scripts.release_static.release_storybook, locks=True)
def release_storybook(
    build_dir: Text = flags.FOLDER, bucket: Text = flags.STORYBOOK, allow_missing: Text = flags.ALLOW_MISSING
) -> None:
    """Release a built storybook to its bucket in S3."""


@command(lambda: scripts.releases.list_releases, name="release.list", changes=False)
def release_list(bucket: Text = flags.BUCKET) -> None:
    """List the kept releases, newest first; the first one is live."""


@command(lambda: scripts.releases.diff, name="release.diff", changes=False)
def release_diff(
    bucket: Text = flags.BUCKET,
    old: Text = flag("Release to compare from. Default: the one before the live one."),
    new: Text = flag("Release to compare with it. Default: the live one."),
) -> None:
    """List the files that differ between two releases."""


@command(lambda: scripts.releases.verify, name="release.verify", changes=False)
def release_verify(bucket: Text = flags.BUCKET, url: Text = flags.SITE) -> None:
    """Compare the objects in the bucket, and with --url the files that are served, with the live release."""


@command(lambda: scripts.releases.rollback, name="release.rollback", locks=True)
def release_rollback(bucket: Text = flags.BUCKET, to: Text = flags.RELEASE, wait: bool = flags.WAIT) -> None:
    """Go back to an earlier release of the frontend, without a build."""


@command(lambda: scripts.check_image.check_image, changes=False)
def check_image(
    image: Text = flag("Repository of the image. Default: the service's, from the settings."),
    tag: Text = flags.TAG,
    running: bool = switch("Check the running version, as the environment's healthcheck returns it, instead of --tag."),
    against_running: bool = switch("Count only findings that the running version does not have."),
    via: Text = flag("Source of the findings: ecr (default), or lambda, which only counts them."),
    fail_on: Text = flag("Lowest severity that counts: informational (default), low, medium, high or critical."),
    waivers: Text = flag("TOML file of findings that are accepted until a date."),
    announce: bool = switch("Post the findings to the Slack channel instead of failing."),
    timeout: Text = flag("Seconds to wait for a scan that is not complete. Default: 300."),
    function_name: Text = flag("With --via=lambda: its name. Default: from the settings."),
    qualifier: Text = flag("With --via=lambda: its version or alias. Default: as for every Lambda."),
) -> None:
    """Fail if the registry's scanner found vulnerabilities in an image."""


@command(lambda: scripts.rollback.rollback, locks=True, asks=True)
def rollback(
    to: Text = flag("Version to go back to. Default: the last good one that was not rolled back from."),
    backend_only: bool = switch("Leave the frontend as it is."),
    supersede: bool = switch("Go back although a rollout is in progress, which then ends."),
) -> None:
    """Go back to a version that ran well: redeploy the service, watch it, release the matching frontend."""


@command(lambda: scripts.history.history, changes=False)
def history(limit: Text = flag("How many to show. Default: 20, or 200 on a page."), html: Text = flags.HTML) -> None:
    """Show what was done to an environment, newest first: when, who, which version, and how it ended."""


@command(lambda: scripts.revert.revert, changes=False, embedded=False, application=True)
def revert(
    commit: Text = flag("Commit to revert. Default: the one that runs in --env, else the newest on the base branch."),
    base: Text = flag("Branch to revert on. Default: the main branch, from the settings."),
    no_push: bool = switch("Create the branch, but do not push it."),
    no_pr: bool = switch("Push the branch, but do not open a pull request."),
) -> None:
    """Roll back: revert a commit on a branch of its own and open the pull request."""


@command(lambda: scripts.status.status, changes=False, embedded=False, application=True)
def status() -> None:
    """Show what runs in each environment: version, commit, age, commits behind the main branch."""


@command(lambda: scripts.settings.settings, changes=False, embedded=False)
def settings() -> None:
    """Show every setting of an environment and where it comes from; values from variables are masked."""


@command(lambda: scripts.announce_failure.announce_failure, changes=False, embedded=False, application=True)
def announce_failure(
    step: Text = flag("Name of the step that failed."),
    reason: Text = flag("Why it failed."),
    needs: Text = flag("The workflow's context `needs` as JSON: the jobs that failed are named."),
) -> None:
    """Tell the team's Slack channel that a job on the main branch failed. An error of Slack is only a warning."""


@command(lambda: scripts.adopt.adopt, changes=False, embedded=False, application=True)
def adopt(into: Text = flag("Folder to copy into."), from_scripts: bool = switch("Read its old scripts.")) -> None:
    """Copy the deployment commands into an application's repository, or bring them up to date there."""


@command(lambda: scripts.package_ecs_manager.package_ecs_manager, changes=False, embedded=False, application=True)
def package_ecs_manager(output: Text = flag("The zip to write. Default: ecs_manager.zip.")) -> None:
    """Package the ecs-manager Lambda as a zip, with the same bytes each time."""


@command(lambda: scripts.local.up, name="local.up", changes=False, embedded=False, env="local")
def local_up(port: Text = flags.PORT, scenario: Text = flags.SCENARIO) -> None:
    """Start the embedded AWS in the background, unless it is already running."""


@command(lambda: scripts.local.down, name="local.down", changes=False, embedded=False, env="local")
def local_down(port: Text = flags.PORT) -> None:
    """Stop the embedded AWS."""


@command(lambda: scripts.local.rehearse, name="local.rehearse", changes=False, embedded=False, env="local")
def local_rehearse(scenario: Text = flags.REHEARSED) -> None:
    """Rehearse what can go wrong, in an embedded AWS of its own: what a deployment says, and what to do then."""


@command(lambda: scripts.local.status, name="local.status", changes=False, embedded=False, env="local")
def local_status(port: Text = flags.PORT) -> None:
    """Show whether the embedded AWS is running, and where."""


namespace = namespace_of(list(vars().values()))
