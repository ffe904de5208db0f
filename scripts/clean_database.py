"""Decides whether an environment's database may be emptied, and by which task.

Was a step of the workflow, for dev alone. The settings have to name the function that cleans; and whatever
they say, the production database is never cleaned.
"""

from dataclasses import dataclass

from scripts.frame import settings
from scripts.frame.errors import Refused
from scripts.frame.run import Run
from scripts.frame.settings import Environment
from scripts.run_task import TaskEnded, run_task

PRODUCTION = {"prod", "production"}


@dataclass(frozen=True)
class Cleaner:
    """The task that cleans a database: the ECS service, and the function that runs its task."""

    service: str
    function: str
    qualifier: str


def clean_database(run: Run) -> TaskEnded | None:
    """Run the task that empties the database."""
    found = cleaner(run.environment)
    return run_task(run, service=found.service, function_name=found.function, qualifier=found.qualifier)


def cleaner(environment: Environment) -> Cleaner:
    """The task that cleans the environment's database. Raises Refused where it may not be cleaned."""
    why = protected(environment)
    if why:
        raise Refused(f"The database of {environment.name} is never cleaned: {why}.")
    if not environment.cleaner.function:
        raise Refused(f"The database of {environment.name} may not be cleaned: it has no cleaner.function.")
    shared = shared_with(environment)
    if shared:
        raise Refused(f"The database of {environment.name} is never cleaned: its settings are those of {shared}.")
    qualifier = environment.cleaner.qualifier or "$LATEST"
    return Cleaner(environment.cleaner.service, environment.cleaner.function, qualifier)


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
