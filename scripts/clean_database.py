"""Empties an environment's database with the task that the settings name.

The database of production is never emptied, whatever the settings say.
"""

from scripts.ecs.manager import ECS
from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.run_task import TaskEnded, run_task

PRODUCTION = {"prod", "production"}


def clean_database(run: Run) -> TaskEnded | None:
    """Run the task that empties the database."""
    check(run.environment)
    cleaner = run.environment.cleaner
    if not cleaner.function:
        return run_task(run, service=cleaner.service)
    return run_task(run, service=cleaner.service, function_name=cleaner.function, qualifier=cleaner.qualifier)


def is_set(environment: Environment) -> bool:
    """Whether the settings say how the database is emptied: by a function, or directly in ECS."""
    cleaner = environment.cleaner
    return bool(cleaner.function or (cleaner.service and environment.manager.via == ECS))


def check(environment: Environment) -> None:
    """Raises Refused if the database must not be emptied, or if the settings do not say how."""
    why = protected(environment)
    if why:
        raise Refused(f"The database of {environment.name} is never cleaned: {why}.")
    if not (is_set(environment) and environment.cleaner.service):
        by_itself = environment.cleaner.function or environment.manager.via == ECS
        missing = "service" if by_itself else "function"
        raise Refused(f"The database of {environment.name} cannot be cleaned: its settings have no cleaner.{missing}.")
    shared = shared_with(environment)
    if shared:
        raise Refused(
            f"The database of {environment.name} is never cleaned: {shared} has the same cluster or database."
        )


def protected(environment: Environment) -> str:
    """Why an environment counts as production, "" if it does not."""
    promotion = environment.application.promotion
    if environment.name.lower() in PRODUCTION:
        return "by its name it is production"
    if promotion and environment.name == promotion[-1]:
        return "it is the last environment in the order of promotion"
    if environment.confirm:
        return "it needs a person's confirmation"
    return ""


def shared_with(environment: Environment) -> str:
    """The protected environment whose cluster or database this one's settings wrongly name, "" if there is none."""
    if environment.endpoint_url:
        return ""
    for name in settings.names():
        other = settings.environment(name, dry_run=True)
        same = other.cluster == environment.cluster or (
            other.database.name and other.database.name == environment.database.name
        )
        if name != environment.name and same and protected(other):
            return name
    return ""
