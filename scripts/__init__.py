"""The deployment commands: each file here is one command, named like the script that it replaces.

The folders hold what commands share. frame/: settings, output, errors. ecs/: the ECS manager and rollouts. release/:
releases to S3. edges/: access to AWS, other programs, git and HTTP. Imports go one way: tasks.py, commands, ecs and
release, edges, frame's errors and console. tests/test_layers.py checks that.
"""

import sys
from typing import TYPE_CHECKING

# Invoke turns bytecode caches off; without them every command compiles everything that it imports.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

if TYPE_CHECKING:
    from scripts import adopt as adopt
    from scripts import announce_failure as announce_failure
    from scripts import backup_database as backup_database
    from scripts import build_image as build_image
    from scripts import check_image as check_image
    from scripts import clean_database as clean_database
    from scripts import deploy as deploy
    from scripts import deploy_service as deploy_service
    from scripts import healthcheck as healthcheck
    from scripts import history as history
    from scripts import local as local
    from scripts import migrate_database as migrate_database
    from scripts import package_ecs_manager as package_ecs_manager
    from scripts import preview as preview
    from scripts import release_static as release_static
    from scripts import releases as releases
    from scripts import revert as revert
    from scripts import rollback as rollback
    from scripts import run_task as run_task
    from scripts import settings as settings
    from scripts import status as status
    from scripts import verify as verify
else:

    def __getattr__(name):
        """Import a command's module when tasks.py first uses it; `invoke --list` and completion do not need it."""
        import importlib

        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(name) from error
