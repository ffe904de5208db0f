"""The deployment commands: each file here is one, whole, named like the script that it replaces.

The folders are what commands share. frame/ is what each stands in, ecs/ and release/ are what is known of ECS and of
releases to S3, edges/ are the doors to AWS, other programs, git and HTTP. Imports point down, without a cycle:
tasks.py, commands, ecs and release, edges, frame's errors and console. tests/test_layers.py holds that.
"""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:

    def __getattr__(name):
        """Import a command's module when tasks.py first uses it: `invoke --list` and completion need none."""
        import importlib

        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(name) from error
