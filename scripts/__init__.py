"""The deployment commands, one module per script that it replaces.

Imports run one way: tasks.py -> command -> the commands -> the shared nouns (invocation, rollout,
version, environments) -> the edges (aws, shell) -> console -> errors. Commands do not import commands.
boto3 is imported in aws.py alone, sh in shell.py alone, and both only when they are used.
"""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Import a command's module when tasks.py first uses it: `invoke --list` and completion need none."""
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(name) from error
