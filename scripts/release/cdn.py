"""Tells CloudFront which paths have changed."""

import time

from scripts.edges import aws
from scripts.frame import console, waiting
from scripts.frame.errors import OutcomeUnknown
from scripts.frame.settings import Environment
from scripts.frame.waiting import CLOCK, Clock, TimedOut

INTERVAL = 2.0
TIMEOUT = 900.0


def invalidate(environment: Environment, paths: tuple[str, ...]) -> str:
    """Invalidate paths, once. Returns the invalidation's id.

    Raises DeployError where CloudFront refuses, OutcomeUnknown where its answer was lost.
    """
    client = aws.client("cloudfront", environment, once=True)
    distribution = environment.frontend.distribution
    with aws.errors(f"invalidating {len(paths)} paths of {distribution}", environment, starts_something=True):
        batch = {
            "Paths": {"Quantity": len(paths), "Items": list(paths)},
            "CallerReference": str(time.time_ns()),
        }
        made = client.create_invalidation(DistributionId=distribution, InvalidationBatch=batch)["Invalidation"]
    console.say(f"CloudFront: invalidation {made['Id']} of {' '.join(paths)}")
    return str(made["Id"])


def wait_for(environment: Environment, invalidation: str, *, clock: Clock = CLOCK) -> None:
    """Wait until an invalidation is done. Raises OutcomeUnknown where it is not after TIMEOUT seconds."""
    client = aws.client("cloudfront", environment)
    distribution = environment.frontend.distribution

    def look() -> tuple[str, bool | None]:
        with aws.errors(f"looking at the invalidation {invalidation} of {distribution}", environment):
            found = client.get_invalidation(DistributionId=distribution, Id=invalidation)["Invalidation"]
        return f"CloudFront: invalidation {invalidation}: {found['Status']}", found["Status"] == "Completed" or None

    try:
        waiting.wait(look, seconds=TIMEOUT, every=INTERVAL, clock=clock)
    except TimedOut as error:
        raise OutcomeUnknown(
            f"The site is released and CloudFront was told, but it has not finished the invalidation {invalidation} of"
            f" {distribution} after {TIMEOUT:g} s: until then it may answer with old pages."
        ) from error
