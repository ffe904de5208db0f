"""Invalidates paths in CloudFront."""

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

    Raises DeployError if CloudFront refuses, OutcomeUnknown if its response was lost.
    """
    client = aws.client("cloudfront", environment, once=True)
    distribution = environment.frontend.distribution.require()
    with aws.errors(f"invalidating {len(paths)} paths of {distribution}", environment, starts_something=True):
        batch = {
            "Paths": {"Quantity": len(paths), "Items": list(paths)},
            "CallerReference": str(time.time_ns()),
        }
        made = client.create_invalidation(DistributionId=distribution, InvalidationBatch=batch)["Invalidation"]
    console.say(f"CloudFront: invalidation {made['Id']} of {' '.join(paths)}")
    return str(made["Id"])


def wait_for(environment: Environment, invalidation: str, *, clock: Clock = CLOCK) -> None:
    """Wait until an invalidation is complete. Raises OutcomeUnknown if it is not after TIMEOUT seconds."""
    client = aws.client("cloudfront", environment)
    distribution = environment.frontend.distribution.require()

    def look() -> tuple[str, bool | None]:
        with aws.errors(f"reading the invalidation {invalidation} of {distribution}", environment):
            found = client.get_invalidation(DistributionId=distribution, Id=invalidation)["Invalidation"]
        return f"CloudFront: invalidation {invalidation}: {found['Status']}", found["Status"] == "Completed" or None

    try:
        waiting.wait(look, seconds=TIMEOUT, every=INTERVAL, clock=clock)
    except TimedOut as error:
        raise OutcomeUnknown(
            f"The site is released, but CloudFront has not completed the invalidation {invalidation} of"
            f" {distribution} after {TIMEOUT:g} s: until then it may serve old pages."
        ) from error
