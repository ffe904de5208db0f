"""Empties an environment's database, where the settings name the task that does it.

Whatever the settings say, the database of production is never emptied.
"""

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
    return run_task(run, service=cleaner.service, function_name=cleaner.function, qualifier=cleaner.qualifier)


def check(environment: Environment) -> None:
    """Raises Refused where the database must not be emptied, or the settings do not say how."""
    why = protected(environment)
    if why:
        raise Refused(f"The database of {environment.name} is never cleaned: {why}.")
    if not (environment.cleaner.function and environment.cleaner.service):
        missing = "service" if environment.cleaner.function else "function"
        raise Refused(f"The database of {environment.name} may not be cleaned: its settings have no cleaner.{missing}.")
    shared = shared_with(environment)
    if shared:
        raise Refused(f"The database of {environment.name} is never cleaned: its settings are those of {shared}.")


def protected(environment: Environment) -> str:
    """Why an environment is production, or ""."""
    promotion = environment.application.promotion
    if environment.name.lower() in PRODUCTION:
        return "it is production by its name"
    if promotion and environment.name == promotion[-1]:
        return "it is the last one in the order of promotion"
    if environment.confirm:
        return "a person has to confirm what is done there"
    return ""


def shared_with(environment: Environment) -> str:
    """The protected environment whose cluster or database this one's settings name by mistake, or ""."""
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
