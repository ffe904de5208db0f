"""The deployment commands: each file here is one command, named like the script that it replaces.

The folders hold what commands share. frame/: settings, output, errors. ecs/: the ECS manager and rollouts. release/:
releases to S3. edges/: access to AWS, other programs, git and HTTP. Imports go one way: tasks.py, commands, ecs and
release, edges, frame's errors and console. tests/test_layers.py checks that.
"""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:

    def __getattr__(name):
        """Import a command's module when tasks.py first uses it; `invoke --list` and completion do not need it."""
        import importlib

        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(name) from error
