"""GitHub Actions, as far as the workflow files depend on it.

Expressions, jobs and reusable workflows, secrets, environments with reviewers, queues, re-runs, and what GitHub drops
or masks. What a job does is up to `GitHub.execute`, so that the order of jobs can be tested without running any.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ENDED = {"success", "failure", "cancelled", "skipped"}


def load(path: Path) -> dict[str, Any]:
    """A workflow file. YAML 1.1 parses the key `on` as true."""
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    loaded["on"] = loaded.pop(True, {})
    return loaded


# Expressions: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions

EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)
TOKEN = re.compile(r"\s*('(?:[^']|'')*'|\d+|&&|\|\||==|!=|!|\(|\)|,|[A-Za-z_][\w-]*(?:\.[\w*-]+)*)")
STATUS = ("success()", "failure()", "cancelled()", "always()")


def resolve(text: Any, context: Mapping[str, Any]) -> Any:
    """A value of a workflow with its expressions resolved. Raises ValueError for syntax that is not supported."""
    if not isinstance(text, str):
        return text
    whole = EXPRESSION.fullmatch(text)
    if whole:
        return evaluate(whole[1], context)
    return EXPRESSION.sub(lambda match: shown(evaluate(match[1], context)), text)


def condition(text: Any, context: Mapping[str, Any]) -> bool:
    """An `if`. One without a status function holds only if nothing failed before."""
    given = str(text)
    whole = EXPRESSION.fullmatch(given)
    held = evaluate(whole[1] if whole else given, context)
    return bool(held) and (any(name in given for name in STATUS) or context["status"] == "success")


def shown(value: Any) -> str:
    """A value inside a text."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """The value of an expression."""
    tokens, at = list[str](), 0
    while at < len(expression.rstrip()):
        match = TOKEN.match(expression, at)
        if not match:
            raise ValueError(f"this expression is not understood: {expression}")
        tokens.append(match[1])
        at = match.end()
    value, left = _either(tokens, context)
    if left:
        raise ValueError(f"this expression is not understood: {expression}")
    return value


Parsed = tuple[Any, list[str]]


def _either(tokens: list[str], context: Mapping[str, Any]) -> Parsed:
    value, tokens = _both(tokens, context)
    while tokens[:1] == ["||"]:
        other, tokens = _both(tokens[1:], context)
        value = value or other
    return value, tokens


def _both(tokens: list[str], context: Mapping[str, Any]) -> Parsed:
    value, tokens = _equal(tokens, context)
    while tokens[:1] == ["&&"]:
        other, tokens = _equal(tokens[1:], context)
        value = value and other
    return value, tokens


def _equal(tokens: list[str], context: Mapping[str, Any]) -> Parsed:
    value, tokens = _one(tokens, context)
    if tokens[:1] in (["=="], ["!="]):
        other, left = _one(tokens[1:], context)
        same = shown(value).lower() == shown(other).lower()
        return same is (tokens[0] == "=="), left
    return value, tokens


def _one(tokens: list[str], context: Mapping[str, Any]) -> Parsed:
    first, left = tokens[0], tokens[1:]
    if first == "!":
        value, left = _one(left, context)
        return not value, left
    if first == "(":
        value, left = _either(left, context)
        return value, left[1:]
    if first.startswith("'"):
        return first[1:-1].replace("''", "'"), left
    if first.isdigit():
        return int(first), left
    if left[:1] == ["("]:
        return _call(first, left[1:], context)
    return {"true": True, "false": False}.get(first, _path(first, context)), left


def _call(name: str, tokens: list[str], context: Mapping[str, Any]) -> Parsed:
    given = []
    while tokens[0] != ")":
        value, tokens = _either(tokens, context)
        given.append(value)
        if tokens[0] == ",":
            tokens = tokens[1:]
    status = context.get("status", "success")
    known: dict[str, Callable[..., Any]] = {
        "always": lambda: True,
        "success": lambda: status == "success",
        "failure": lambda: status == "failure",
        "cancelled": lambda: status == "cancelled",
        "contains": lambda where, what: what in (where or ()),
        "format": lambda text, *values: text.format(*map(shown, values)),
        "toJSON": lambda value: json.dumps(value),
        "hashFiles": lambda *_: "0" * 64,
    }
    if name not in known:
        raise ValueError(f"this function is not understood: {name}")
    return known[name](*given), tokens[1:]


def _path(term: str, context: Mapping[str, Any]) -> Any:
    value: Any = context
    for name in term.split("."):
        if name == "*":
            value = value or []
        elif isinstance(value, list):
            value = [item.get(name) for item in value]
        else:
            value = (value or {}).get(name)
    return value


# Runs


@dataclass
class Environment:
    """An environment of the repository. reviewers: whether a job that names it waits for an approval."""

    secrets: dict[str, str] = field(default_factory=dict)
    reviewers: bool = False


@dataclass(eq=False)
class Job:
    """One job of a run. name: with that of the job that calls its workflow, such as deploy_dev/approve.

    state: empty until it begins; pending in its queue, waiting for an approval, running, or how it ended.
    given: the inputs and secrets of the workflow that it is in. url: that GitHub shows for its deployment.
    """

    run: "Run"
    name: str
    spec: Mapping[str, Any]
    needs: list["Job"]
    caller: "Job | None"
    given: Mapping[str, Any]
    state: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    url: str = ""

    @property
    def group(self) -> str:
        """The queue that it waits in, empty for none."""
        spec = self.spec.get("concurrency")
        return str(resolve(spec["group"], self.context())) if spec else ""

    @property
    def environment(self) -> str:
        """The environment that it works on, empty for none."""
        spec = self.spec.get("environment", "")
        return str(resolve(spec["name"] if isinstance(spec, dict) else spec, self.context()))

    @property
    def secrets(self) -> dict[str, str]:
        """What it can read: of its workflow and of its environment."""
        own = self.run.github.environments.get(self.environment, Environment()).secrets
        return {**self.given["secrets"], **({} if self.run.fork else own)}

    def context(self) -> dict[str, Any]:
        """What its expressions can name, without secrets."""
        needs = {one.name.rpartition("/")[2]: {"result": one.state, "outputs": one.outputs} for one in self.needs}
        states = {one.state for one in self.ancestors()}
        status = next((state for state in ("cancelled", "failure", "skipped") if state in states), "success")
        if self.run.cancelled:
            status = "cancelled"
        env = {**self.given["env"]}
        return {"github": self.run.event, "inputs": self.given["inputs"], "needs": needs, "status": status, "env": env}

    def ancestors(self) -> Iterator["Job"]:
        """What it needs, and what that needs."""
        for one in self.needs:
            yield one
            yield from one.ancestors()


@dataclass(eq=False)
class Run:
    """One run of a workflow."""

    github: "GitHub"
    event: Mapping[str, Any]
    fork: bool = False
    cancelled: bool = False
    approved: set[str] = field(default_factory=set)
    jobs: list[Job] = field(default_factory=list)

    def __getitem__(self, name: str) -> Job:
        return next(job for job in self.jobs if job.name == name)

    def states(self) -> dict[str, str]:
        """The state of each job."""
        return {job.name: job.state for job in self.jobs}


@dataclass
class GitHub:
    """A repository: its workflows, secrets, environments and runs.

    execute: what a job does. Returns how it ended and its steps' outputs; None for a job that is still running.
    """

    workflows: Path
    execute: Callable[[Job], tuple[str, dict[str, Any]] | None]
    secrets: dict[str, str] = field(default_factory=dict)
    environments: dict[str, Environment] = field(default_factory=dict)
    repository: str = "CMS-Enterprise/mint-app"
    runs: list[Run] = field(default_factory=list)
    groups: dict[str, list[Job]] = field(default_factory=dict)

    def start(self, workflow: str, event: Mapping[str, Any], inputs: Mapping[str, Any] | None = None) -> Run:
        """Start a run. A pull request from a fork, and one of Dependabot, has no secrets."""
        request = event.get("event", {}).get("pull_request") or {}
        head = request.get("head", {}).get("repo", {}).get("full_name", self.repository)
        fork = head != self.repository or request.get("user", {}).get("login") == "dependabot[bot]"
        run = Run(self, {"repository": self.repository, "run_id": str(len(self.runs) + 1), **event}, fork)
        given = {"inputs": dict(inputs or {}), "secrets": {} if fork else self.secrets}
        self._add(run, load(self.workflows / workflow), given, None)
        self.runs.append(run)
        self.advance()
        return run

    def _add(self, run: Run, workflow: Mapping[str, Any], given: Mapping[str, Any], caller: Job | None) -> None:
        prefix = f"{caller.name}/" if caller else ""
        made = dict[str, Job]()
        given = {**given, "env": workflow.get("env", {})}
        for name, spec in workflow["jobs"].items():
            made[name] = Job(run, prefix + name, spec, [], caller, given)
            run.jobs.append(made[name])
        for name, spec in workflow["jobs"].items():
            needs = spec.get("needs", [])
            made[name].needs = [made[one] for one in ([needs] if isinstance(needs, str) else needs)]

    def advance(self) -> None:
        """Let every job go on as far as it can."""
        while any(self._go(job) for run in self.runs for job in list(run.jobs)):
            pass

    def _go(self, job: Job) -> bool:
        """Let one job go on. Returns whether it did."""
        before = job.state
        if not job.state and all(one.state in ENDED for one in job.needs):
            self._begin(job)
        elif job.state == "calling":
            self._return(job)
        elif job.state == "pending" and self.groups[job.group][0] is job:
            job.state = "waiting"
        if job.state == "waiting" and self._may_run(job):
            job.state = "running"
            self._end(job, self.execute(job))
        return job.state != before

    def _may_run(self, job: Job) -> bool:
        protected = self.environments.get(job.environment, Environment()).reviewers
        return not protected or job.environment in job.run.approved

    def _begin(self, job: Job) -> None:
        if not condition(job.spec.get("if", "success()"), job.context()):
            job.state = "cancelled" if job.run.cancelled else "skipped"
        elif "uses" in job.spec:
            self._call(job)
        elif job.group:
            self._queue(job)
        else:
            job.state = "waiting"

    def _call(self, job: Job) -> None:
        """Add the jobs of the workflow that it calls. Only the secrets that are named are handed on."""
        called = load(self.workflows / job.spec["uses"].rpartition("/")[2])
        declared = called["on"]["workflow_call"]
        context = {**job.context(), "secrets": job.secrets}
        inputs = {name: resolve(value, context) for name, value in job.spec.get("with", {}).items()}
        secrets = {name: resolve(value, context) for name, value in job.spec.get("secrets", {}).items()}
        for kind, given in (("inputs", inputs), ("secrets", secrets)):
            known = declared.get(kind, {})
            assert set(given) <= set(known), f"{job.name}: unknown {kind}: {set(given) - set(known)}"
            missing = {name for name, one in known.items() if one.get("required") and not given.get(name)}
            if missing:
                raise AssertionError(f"{job.name}: required {kind} are empty: {missing}")
        defaults = {name: one["default"] for name, one in declared.get("inputs", {}).items() if "default" in one}
        job.state = "calling"
        self._add(job.run, called, {"inputs": {**defaults, **inputs}, "secrets": secrets}, job)

    def _return(self, job: Job) -> None:
        own = [one for one in job.run.jobs if one.caller is job]
        if all(one.state in ENDED for one in own):
            states = {one.state for one in own}
            job.state = next((state for state in ("failure", "cancelled", "success") if state in states), "skipped")

    def _queue(self, job: Job) -> None:
        """Take a place in the queue of its group, in which only one job waits: the newest."""
        queue = self.groups.setdefault(job.group, [])
        cancels = bool(resolve(job.spec["concurrency"].get("cancel-in-progress", False), job.context()))
        for other in queue[0 if cancels else 1 :]:
            other.state = "cancelled"
        del queue[0 if cancels else 1 :]
        queue.append(job)
        job.state = "pending"

    def _end(self, job: Job, result: tuple[str, dict[str, Any]] | None) -> None:
        if result is None:
            return
        job.state, steps = result
        context = {**job.context(), "steps": steps}
        environment = job.spec.get("environment")
        job.url = shown(resolve(environment.get("url"), context)) if isinstance(environment, dict) else ""
        told = {name: shown(resolve(value, context)) for name, value in job.spec.get("outputs", {}).items()}
        # GitHub drops an output that contains a secret, and only says so in the log.
        job.outputs = {name: value for name, value in told.items() if not contains_secret(value, job)}
        if job.group and job in self.groups.get(job.group, []):
            self.groups[job.group].remove(job)

    def finish(self, job: Job, state: str = "success", outputs: Mapping[str, str] | None = None) -> None:
        """End a job that is running."""
        assert job.state == "running"
        self._end(job, (state, {}))
        job.outputs |= outputs or {}
        self.advance()

    def approve(self, run: Run, environment: str) -> None:
        """A reviewer approves what waits for an environment."""
        assert any(job.state == "waiting" and job.environment == environment for job in run.jobs)
        run.approved.add(environment)
        self.advance()

    def rerun_failed(self, run: Run) -> None:
        """Run again what failed or was cancelled, and what depends on it. The rest keeps its results and outputs."""
        assert all(job.state in ENDED for job in run.jobs)
        again = [job for job in run.jobs if job.state in ("failure", "cancelled")]
        again += [job for job in run.jobs if set(job.ancestors()) & set(again) and job not in again]
        callers = {job for job in again if "uses" in job.spec}
        for job in again:
            job.state = "calling" if any(one.caller is job and one not in again for one in run.jobs) else ""
            job.outputs = {}
        for job in callers:
            if not job.state:
                run.jobs = [one for one in run.jobs if one.caller is not job]
        run.approved.clear()
        self.advance()


def contains_secret(value: str, job: Job) -> bool:
    """Whether GitHub takes a value for one that must not leave the job."""
    return any(secret in value for secret in job.secrets.values() if secret)


def masked(log: str, job: Job) -> str:
    """A log as GitHub shows it: secrets, and what `::add-mask::` names, are replaced."""
    hidden = {line for secret in job.secrets.values() for line in secret.splitlines()}
    hidden |= set(re.findall(r"^::add-mask::(.+)$", log, re.MULTILINE))
    for secret in sorted(hidden, key=len, reverse=True):
        log = log.replace(secret, "***")
    return log
