"""Reads an application's old deployment scripts and workflows, and writes environments.toml from what they say.

Both generations are known: the scripts that call the ecs-manager Lambda, and those that call ECS themselves. What
cannot be read is listed, and gets a value that a person has to correct.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.edges import git
from scripts.frame.errors import DeployError
from scripts.frame.settings import ROOT

LOCAL = "# The embedded AWS (local_aws/)"
UNKNOWN = "unknown"
# Before the name of a variable of the job, in place of a text of the shell.
OF_THE_JOB = "of the job: "
# In the arms of a case, and of an export, of the scripts.
ARM = re.compile(r'^\s*"(\w+)"\)\s*$')
EXPORT = re.compile(r'^\s*(?:export )?([A-Z][A-Z0-9_]*)="([^"]*)"')
PREFIXED = re.compile(r"(?:REACT_APP|VITE)_\w+")
# A repository's name, and its Dockerfile a few lines below.
IMAGE = re.compile(
    r"ECR_REPOSITORY: ([\w-]+)\n(?:(?!.*ECR_REPOSITORY: ).*\n){0,8}?.*?(?:file: |--file )\"?(Dockerfile[\w.]*)"
)
CALL = re.compile(r'scripts/(\w+)((?: +"[^"]*")+)')


@dataclass
class Found:
    """What the scripts say. environments: name -> variables that its arm of the script sets. shared: the same for all.

    unread: what was not found, a sentence each.
    """

    app: str = ""
    repository: str = ""
    branch: str = ""
    channel: str = ""
    region: str = ""
    database: str = ""
    prefix: str = ""
    via: str = "lambda"
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    qualifiers: dict[str, str] = field(default_factory=dict)
    promotion: list[str] = field(default_factory=list)
    backups: list[str] = field(default_factory=list)
    cleaner: tuple[str, ...] = ()
    cleaned: str = ""
    storybook: list[str] = field(default_factory=list)
    scan: str = ""
    keep: str = "0"
    images: dict[str, str] = field(default_factory=dict)
    secrets: bool = False
    migrations: str = ""
    unread: list[str] = field(default_factory=list)


def example() -> str:
    """The settings of this project, as an example."""
    return (ROOT / "environments.toml").read_text(encoding="utf-8")


def made(folder: Path) -> tuple[str, list[str]]:
    """environments.toml for an application, and what could not be read."""
    found = read(folder)
    return written(found), found.unread


def read(folder: Path) -> Found:
    """What an application's scripts and workflows say."""
    scripts = {path.name.removesuffix(".sh"): _text(path) for path in sorted((folder / "scripts").glob("*"))}
    workflows = {path.name: _text(path) for path in sorted((folder / ".github" / "workflows").glob("*.yml"))}
    found = Found()
    _read_names(found, folder, scripts, workflows)
    _read_frontend(found, scripts, workflows)
    _read_workflows(found, workflows)
    _read_databases(found, scripts)
    _complete(found)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _first(pattern: str, texts: Iterable[str], missing: str = "") -> str:
    for text in texts:
        if match := re.search(pattern, text, re.MULTILINE):
            return match[1]
    return missing


def _read_names(found: Found, folder: Path, scripts: Mapping[str, str], workflows: Mapping[str, str]) -> None:
    """The names of application, repository, branch, channel and region."""
    every = [*scripts.values(), *workflows.values()]
    cluster = _first(r"\$APP_ENV-([a-z]+)-app", every) or _first(
        r"ECS_CLUSTER: \"\$\{\{ inputs\.env \}\}-([a-z]+)-app", every
    )
    found.app = cluster
    try:
        found.repository = git.name_of_remote(git.run(folder, "config", "--get", "remote.origin.url"))
    except DeployError:
        found.repository = ""
    found.branch = _first(r"^ {4}branches:\n +- (\w+)", _pipelines(workflows))
    found.channel = _first(r'"channel": "(#[\w-]+)"', [scripts.get("github-action-announce-broken-branch", "")])
    found.region = _first(r"aws-region: ([\w-]+)", _pipelines(workflows)) or _first(r"aws-region: ([\w-]+)", every)
    if any("aws ecs update-service" in text for text in scripts.values()):
        found.via = "ecs"
    found.scan = _first(r'check_ecr_findings "[^"]*" "[^"]*" "(\d+)"', every)
    found.scan = found.scan or _first(r'check_deployed_image_findings "[^"]*" "(\d+)"', every)
    found.secrets = found.via == "lambda" and "body.secrets" in scripts.get("deploy_service", "")


def _pipelines(workflows: Mapping[str, str]) -> list[str]:
    """The workflows that deploy what was merged, those first that have more of it."""
    order = ("build.yml", "deploy_pipeline.yml", "deploy_to_environment.yml")
    return [workflows[name] for name in order if name in workflows]


def _read_frontend(found: Found, scripts: Mapping[str, str], workflows: Mapping[str, str]) -> None:
    """The environments and the variables of the build, from the script that builds and the job that calls it."""
    builds = [workflows[name] for name in ("build.yml", "build_frontend_assets.yml") if name in workflows]
    text = scripts.get("build_static") or scripts.get("release_static", "")
    arm = ""
    for line in text.splitlines():
        if match := ARM.match(line):
            arm = match[1]
            found.environments[arm] = {}
        elif line.strip() == "esac":
            arm = ""
        elif match := EXPORT.match(line):
            (found.environments[arm] if arm else found.shared)[match[1]] = match[2]
    named = PREFIXED.search(text)
    # Others come as secrets of the job that builds.
    for name, secret in re.findall(
        r"^ +((?:REACT_APP|VITE)_\w+): \$\{\{ secrets\.(\w+) \}\}$", "\n".join(builds), re.M
    ):
        found.shared.setdefault(name, OF_THE_JOB + secret)
    found.prefix = "VITE_" if named and named[0].startswith("VITE_") else "REACT_APP_"


def _read_workflows(found: Found, workflows: Mapping[str, str]) -> None:
    """The order of the deployments, and what each job does."""
    pipeline = _pipelines(workflows)[:1]
    jobs = re.findall(r"^  deploy_([a-z]+):$", "".join(pipeline), re.MULTILINE)
    found.promotion = [name for name in jobs if name in found.environments]
    job = ""
    for line in "\n".join(_pipelines(workflows)).splitlines():
        if match := re.match(r"^  (\w+):$", line):
            job = match[1].removeprefix("deploy_")
        for name, words in CALL.findall(line):
            _read_call(found, job, name, re.findall(r'"([^"]*)"', words))
        if "scripts/rds-snapshot-app-db" in line and job in found.environments:
            found.backups.append(job)
        if "scripts/release_storybook_static" in line:
            found.storybook.append(job.removeprefix("storybook_"))
    every = "\n".join(workflows.values())
    found.backups += [name for name in found.environments if f"contains(inputs.env, '{name}')\n" in every + "\n"]
    guard = re.search(r"if: (contains\(inputs\.env[^\n]*)\n\s+run: \|\n\s+\./scripts/rds-snapshot", every)
    if guard:
        found.backups = re.findall(r"contains\(inputs\.env, '(\w+)'\)", guard[1])
    for repository, file in IMAGE.findall(every):
        found.images.setdefault(repository, file)
    if found.via == "ecs" and 'TASK_FAMILY: "db-clean-' in every:
        found.cleaned = next((name for name in found.environments if name == "dev"), "")


def _read_call(found: Found, job: str, name: str, words: list[str]) -> None:
    """One call of an old script in a workflow's job."""
    if name == "deploy_service" and len(words) >= 4 and job in found.environments:
        found.qualifiers[job] = words[2]
        if "migrate" in words[0]:
            found.migrations = words[0]
    if name == "db_lambda_invoke" and len(words) == 3 and "clean" in words[0]:
        found.cleaner, found.cleaned = tuple(words), job


def _read_databases(found: Found, scripts: Mapping[str, str]) -> None:
    text = scripts.get("rds-snapshot-app-db", "")
    name = _first(r"db_instance(?:_identifier)?=(\S+)", [text])
    found.database = re.sub(r"\$(environment|env)\b", "${name}", name)
    found.keep = _first(r"manual_retention_count=(\d+)", [text], "0")


def _complete(found: Found) -> None:
    """Say what is missing, and put something in its place."""
    wanted = {
        "app": "the application's name: no script names its cluster",
        "repository": "application.repository: the remote origin is not on GitHub",
        "branch": "application.main_branch: no workflow of a pipeline was found",
        "channel": "application.slack_channel",
        "region": "defaults.region",
        "database": "defaults.database.name",
        "scan": "defaults.scan.qualifier",
    }
    found.unread += [f"{SETTINGS}: {says}" for name, says in wanted.items() if not getattr(found, name)]
    found.app = found.app or UNKNOWN
    found.repository = found.repository or f"{UNKNOWN}/{UNKNOWN}"
    found.branch, found.region = found.branch or "main", found.region or "us-east-1"
    if not found.environments:
        found.environments["dev"] = {}
        found.unread.append(f"{SETTINGS}: no script has the environments: dev stands for them")
    found.promotion = found.promotion or list(found.environments)
    if found.via == "ecs":
        found.unread += [
            f"{SETTINGS}: the subnets and security groups of the tasks that have no service",
            f"{SETTINGS}: defaults.frontend.distribution, if the site is behind CloudFront",
        ]
    else:
        lost = [name for name in found.environments if name not in found.qualifiers]
        found.unread += [f"{SETTINGS}: environments.{name}.manager.qualifier" for name in lost]


SETTINGS = "environments.toml"


def written(found: Found) -> str:
    """environments.toml. Every table is complete, so that dry runs work at once."""
    app, lines = found.app, list[str]()
    lines += [
        "# Written from the old scripts and workflows by `invoke adopt --from-scripts`.",
        "",
    ]
    lines += ["[application]", f'name = "{app}-app"', f'repository = "{found.repository}"']
    lines += [f'main_branch = "{found.branch}"', f"promotion = {_list(found.promotion)}"]
    lines += [f'slack_channel = "{found.channel}"', "", "[defaults]", 'account = "${AWS_ACCOUNT_ID}"']
    lines += [f'region = "{found.region}"', 'registry = "${account}.dkr.ecr.${region}.amazonaws.com"']
    lines += [
        f'cluster = "${{name}}-{app}-app"',
        'build_context = "."',
        'healthcheck = "${site}/api/v1/healthcheck"',
        "",
    ]
    secrets = f"'^/${{name}}/{app}-app/\\S+$'" if found.secrets else '""'
    lines += ["[defaults.service]", f'name = "{app}-app"', f'image = "{app}-backend"', 'file = "Dockerfile"']
    lines += [f"secrets = {secrets}", "", "[defaults.migrations]"]
    service = "db-migrate" if found.via == "ecs" else found.migrations or f"{app}-app-db-migrate"
    file = found.images.get(f"{app}-db-migrate", "Dockerfile.db_migrations")
    lines += [f'service = "{service}"', f'image = "{app}-db-migrate"', f'file = "{file}"', 'folder = "migrations/"', ""]
    lines += _manager(found)
    lines += ["[defaults.scan]", 'function = "ecr-scan-findings"', f'qualifier = "{found.scan or "$LATEST"}"', ""]
    lines += [
        "[defaults.database]",
        f'name = "{found.database or app + "-${name}"}"',
        f"keep_snapshots = {found.keep}",
        "",
    ]
    lines += ["[defaults.frontend]", 'bucket = "${STATIC_S3_BUCKET}"', 'folder = "build"']
    lines += ['install = ["yarn", "install", "--frozen-lockfile"]', 'build = ["yarn", "run", "build"]', ""]
    lines += ["[defaults.frontend.variables]", *_variables(found, found.shared), ""]
    for name, own in found.environments.items():
        lines += _environment(found, name, own)
    return "\n".join(lines) + "\n" + _local(found)


def _manager(found: Found) -> list[str]:
    if found.via == "lambda":
        return ["[defaults.manager]", 'function = "${name}-ecs-manager-docker"', ""]
    family = ["[defaults.tasks.db-migrate]", 'family = "db-migrate-${name}"', f'subnets = ["{UNKNOWN}"]', ""]
    return ["[defaults.manager]", 'via = "ecs"', "", *family]


def _environment(found: Found, name: str, own: Mapping[str, str]) -> list[str]:
    lines = [f"[environments.{name}]", f'site = "{_site(own) or f"https://{name}.example.org"}"']
    lines += [f'manager.qualifier = "{found.qualifiers.get(name, "$LATEST")}"'] if found.via == "lambda" else []
    lines += ["database.backup = true"] if name in found.backups else []
    lines += ["confirm = true"] if name == found.promotion[-1] else []
    lines += ['storybook.bucket = "${STORYBOOK_S3_BUCKET}"'] if name in found.storybook else []
    shared = _variables(found, found.shared)
    lines += [f"frontend.variables.{line}" for line in _variables(found, own) if line not in shared]
    if name == found.cleaned:
        lines += ["", f"[environments.{name}.cleaner]"]
        image = f"{found.app}-db-clean"
        if found.cleaner:
            lines += [
                f'{key} = "{value}"'
                for key, value in zip(("function", "qualifier", "service"), found.cleaner, strict=True)
            ]
        else:
            lines += ['service = "db-clean"']
        lines += [f'image = "{image}"', f'file = "{found.images.get(image, "Dockerfile.db_clean")}"']
        if not found.cleaner:
            lines += [
                "",
                f"[environments.{name}.tasks.db-clean]",
                'family = "db-clean-${name}"',
                f'subnets = ["{UNKNOWN}"]',
            ]
    return [*lines, ""]


def _site(own: Mapping[str, str]) -> str:
    return next((value for key, value in own.items() if key.endswith("_URL") and not PREFIXED.match(key)), "")


def _variables(found: Found, given: Mapping[str, str]) -> list[str]:
    """The variables of the build, with the references of the shell as those of the settings."""
    made = {key: _reference(found, value) for key, value in given.items() if PREFIXED.fullmatch(key)}
    if given is found.shared and not any(key.endswith("_OKTA_CLIENT_ID") for key in given):
        for key in ("OKTA_CLIENT_ID", "OKTA_SERVER_ID", "LD_CLIENT_ID"):
            made.setdefault(f"{found.prefix}{key}", f"${{{key}}}")
    return [f'{key} = "{value}"' for key, value in made.items()]


def _reference(found: Found, value: str) -> str:
    if value.startswith(OF_THE_JOB):
        return f"${{{value.removeprefix(OF_THE_JOB)}}}"

    def one(match: re.Match[str]) -> str:
        name = match[1]
        suffix = next((env for env in found.environments if name.endswith(f"_{env.upper()}")), "")
        if name == "APP_ENV":
            return "${name}"
        if name.endswith("_URL") and not PREFIXED.match(name):
            return "${site}"
        if PREFIXED.match(name):
            return f"${{frontend.variables.{name}}}"
        return f"${{{name.removesuffix(f'_{suffix.upper()}') if suffix else name}}}"

    return re.sub(r"\$\{?(\w+)\}?", one, value)


def _local(found: Found) -> str:
    """The environment of the embedded AWS, which deploys examples/ whatever the application is."""
    app = found.app
    text = LOCAL + (ROOT / SETTINGS).read_text(encoding="utf-8").partition(LOCAL)[2]
    text = text.replace("mint-app", f"{app}-app").partition("[environments.local.frontend.variables]")[0]
    text = text.replace(
        'manager.qualifier = "$LATEST"',
        'manager = { via = "lambda", function = "local-ecs-manager-docker", qualifier = "$LATEST" }\n'
        f'migrations.service = "{app}-app-db-migrate"',
    )
    names = {key for key in found.shared if PREFIXED.fullmatch(key)}
    names |= {f"{found.prefix}{key}" for key in ("OKTA_CLIENT_ID", "OKTA_SERVER_ID", "LD_CLIENT_ID", "OKTA_DOMAIN")}
    values = "\n".join(f'{name} = "{"${name}" if name.endswith("_APP_ENV") else "local"}"' for name in sorted(names))
    tasks = '\n[environments.local.tasks.db-migrate]\nsubnets = ["subnet-local"]\n' if found.via == "ecs" else ""
    return f"{text}[environments.local.frontend.variables]\n{values}\n{tasks}"


def _list(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
