"""The SSM parameters that become a container's secrets."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from ecs_manager.errors import ManagerError

TAG = "ENV_VAR_NAME"
PATH = re.compile(r"\^?((?:/[A-Za-z0-9_-]+){2,})/")
LONGEST = 200


# Does a request and repeats it while AWS refuses it for now: SSM allows few of these requests a second.
Patiently = Callable[[Callable[[], Any]], Any]


def secrets(
    ssm: Any, expressions: Sequence[str], patiently: Patiently = lambda request: request()
) -> list[dict[str, str]]:
    """The secrets that expressions select: every parameter whose whole name matches one and that has the tag.

    Returns `{"name": <the tag's value>, "valueFrom": <the parameter's name>}`, sorted by name. Raises
    ManagerError for an expression that is malformed or finds nothing, and for two parameters with one tag value.
    """
    patterns = [(_compiled(expression), _path(expression)) for expression in expressions]
    found: dict[str, str] = {}
    for pattern, path in patterns:
        names = _names(ssm, path, patiently)
        matching = [name for name in names if pattern.fullmatch(name)]
        tagged = {name: variable for name in matching if (variable := _variable(ssm, name, patiently))}
        if not tagged:
            raise ManagerError(
                "NoSecretsFound",
                f"No parameter with the tag {TAG} matches {pattern.pattern}: {len(matching)} of {len(names)}"
                " names match. The secrets stay as they are, and nothing was deployed.",
            )
        for name, variable in tagged.items():
            if found.setdefault(variable, name) != name:
                raise ManagerError(
                    "DuplicateSecret", f"Both {found[variable]} and {name} have the tag {TAG}={variable}."
                )
    return [{"name": variable, "valueFrom": found[variable]} for variable in sorted(found)]


def _path(expression: str) -> str:
    """The path that an expression begins with, such as /prod/mint-app. Only parameters under it are looked at."""
    found = PATH.match(expression)
    if found is None:
        raise ManagerError(
            "BadExpression",
            f"{expression!r} must begin with a path of at least two names, such as ^/prod/mint-app/.",
        )
    return found[1]


def _names(ssm: Any, path: str, patiently: Patiently) -> list[str]:
    """The names of all parameters under a path."""
    found: list[str] = []
    page: dict[str, Any] = {
        "ParameterFilters": [{"Key": "Path", "Option": "Recursive", "Values": [path]}],
        "MaxResults": 50,
    }
    while True:
        answer = patiently(lambda: ssm.describe_parameters(**page))
        found += [parameter["Name"] for parameter in answer["Parameters"]]
        if not answer.get("NextToken"):
            return found
        page["NextToken"] = answer["NextToken"]


def _compiled(expression: str) -> re.Pattern[str]:
    # One repetition is enough for a path; the backtracking of several can outlast the function's time-out.
    if len(re.findall(r"[*+{]", expression)) > 1 or len(expression) > LONGEST:
        raise ManagerError(
            "BadExpression",
            f"{expression[:LONGEST]!r} has more than one repetition, or more than {LONGEST} characters.",
        )
    try:
        return re.compile(expression)
    except (re.error, OverflowError) as error:
        raise ManagerError("BadExpression", f"{expression!r} is not a regular expression: {error}.") from error


def _variable(ssm: Any, name: str, patiently: Patiently) -> str:
    """The environment variable in a parameter's tag, empty if it does not have the tag."""
    answer = patiently(lambda: ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name))
    return next((str(tag["Value"]) for tag in answer["TagList"] if tag["Key"] == TAG), "")
