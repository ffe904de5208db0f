"""Whether somebody has to approve a deployment: the reviewers of an environment's gate on GitHub.

GitHub creates an environment that a workflow names and that does not exist, without any protection.
"""

from collections.abc import Iterator
from urllib.parse import quote

from msgspec import Struct

from scripts.ecs import promotion
from scripts.ecs.preflight import OK, WARNING, Finding
from scripts.edges import github
from scripts.frame.errors import DeployError
from scripts.frame.settings import Environment

ABOUT = "gate"
TIMEOUT = 10.0


class _Account(Struct):
    """A person has a login, a team a slug."""

    login: str = ""
    slug: str = ""


class _Reviewer(Struct):
    reviewer: _Account


class _Rule(Struct):
    type: str
    reviewers: list[_Reviewer] = []


class _Environment(Struct):
    """https://docs.github.com/en/rest/deployments/environments#get-an-environment"""

    protection_rules: list[_Rule] = []


def check(environment: Environment) -> Iterator[Finding]:
    """What is known of the gate. Nothing for an environment that needs none: an embedded one, the first of all.

    Without a token nobody is asked. What cannot be read is a warning.
    """
    needs_one = bool(promotion.environment_before(environment)) or environment.confirm
    if environment.endpoint_url or not needs_one or not github.token():
        return
    gate = f"{environment.name}_gate"
    try:
        # A workflow without gates has the reviewers at the environment itself.
        found = {name: who for name in (gate, environment.name) if (who := reviewers(environment, name))}
    except DeployError as error:
        yield Finding(ABOUT, WARNING, f"the reviewers of {gate} cannot be read: {error}")
        return
    if found:
        yield Finding(ABOUT, OK, "; ".join(f"{name} waits for {' or '.join(who)}" for name, who in found.items()))
    else:
        yield Finding(ABOUT, WARNING, f"{gate} has no reviewers on GitHub, so nobody has to approve a deployment")


def reviewers(environment: Environment, name: str) -> list[str]:
    """Who has to approve a job of an environment on GitHub; nobody if it does not exist. Raises DeployError."""
    path = f"{quote(environment.application.on_github)}/environments/{quote(name, safe='')}"
    url = f"{github.api_for_token()}/repos/{path}"
    answer = github.request("GET", url, timeout=TIMEOUT, token=github.token())
    if answer.status == 404:
        return []
    rules = github.document(answer, _Environment, "an environment").protection_rules
    accounts = [one.reviewer for rule in rules if rule.type == "required_reviewers" for one in rule.reviewers]
    return [one.login or one.slug for one in accounts]
