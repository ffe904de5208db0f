"""Fits the workflows that an application gets to its settings: region, environments, main branch, folder and secrets.

They are those of this project, with its own values in the places that are known here.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, convert

from scripts.frame.errors import Refused

VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
# Those that each workflow has whatever the settings say, and the storybook's, which no copied workflow releases.
COMMON = {"AWS_ACCOUNT_ID", "STORYBOOK_S3_BUCKET"}


class Facts(Struct, frozen=True):
    """What a settings file says that workflows have to say too. built: variables that the build of the frontend needs;
    deployed: those that only a deployment needs. regions: all that it has."""

    regions: tuple[str, ...]
    environments: tuple[str, ...]
    main: str
    folder: str
    built: tuple[str, ...]
    deployed: tuple[str, ...]


def facts(settings: str) -> Facts:
    """Of the text of a settings file, without its embedded environments. Raises Refused if it cannot be read."""
    try:
        tables = tomllib.loads(settings)
        defaults, named = tables.get("defaults", {}), tables.get("environments", {})
        real = {name: own for name, own in named.items() if "endpoint_url" not in own}
        parts = [defaults, *real.values()]
        built = _names(part.get("frontend", {}).get("variables", {}) for part in parts)
        used = [name for name in _names(parts) if name not in {*built, *COMMON}]
        regions = dict.fromkeys(part["region"] for part in parts if "region" in part)
        main, folder = tables["application"]["main_branch"], defaults.get("frontend", {}).get("folder", "build")
        made = {"regions": [*regions], "environments": [*real], "main": main, "folder": folder}
        return convert({**made, "built": built, "deployed": used}, Facts)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise Refused(f"environments.toml cannot be read: {error}") from error


def _names(values: Iterable[Any]) -> list[str]:
    """The variables that texts name, each once."""
    return list(dict.fromkeys(name for text in _texts(values) for name in VARIABLE.findall(text)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(value.values())
    elif isinstance(value, Iterable):
        for one in value:
            yield from _texts(one)


def fitted(workflow: str, ours: Facts, theirs: Facts) -> str:
    """A workflow of ours with another application's values."""
    if theirs.regions:
        workflow = workflow.replace(f"aws-region: {ours.regions[0]}", f"aws-region: {theirs.regions[0]}")
    listed = f"options: [{', '.join(theirs.environments)}]"
    workflow = workflow.replace(f"options: [{', '.join(ours.environments)}]", listed)
    workflow = workflow.replace(f"refs/heads/{ours.main}", f"refs/heads/{theirs.main}")
    workflow = re.sub(rf"^( +path: ){ours.folder}$(?=\n +#)", rf"\g<1>{theirs.folder}", workflow, flags=re.MULTILINE)
    for before, after in ((ours.built, theirs.built), (ours.deployed, theirs.deployed)):
        workflow = _replaced(workflow, before, after, "      {0}:\n        required: true\n")
        workflow = _replaced(workflow, before, after, "      {0}: ${{{{ secrets.{0} }}}}\n")
    return workflow.replace("    secrets:\n\n", "\n")


def _replaced(workflow: str, before: Sequence[str], after: Sequence[str], line: str) -> str:
    """The same lines for other names."""
    return workflow.replace("".join(map(line.format, before)), "".join(map(line.format, after)))
