"""Tells CloudFront which paths have changed."""

import time
from collections.abc import Callable

from scripts.edges import aws
from scripts.frame import console
from scripts.frame.errors import DeployError
from scripts.frame.settings import Environment

INTERVAL = 2.0
TIMEOUT = 900.0


def invalidate(
    environment: Environment,
    paths: tuple[str, ...],
    *,
    wait: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Invalidate paths, and wait until that is done where it is asked for.

    Raises DeployError where CloudFront refuses, or is not done after a quarter of an hour.
    """
    client = aws.client("cloudfront", environment)
    distribution = environment.frontend.distribution
    with aws.errors(f"invalidating {len(paths)} paths of {distribution}", environment):
        batch = {
            "Paths": {"Quantity": len(paths), "Items": list(paths)},
            "CallerReference": str(time.time_ns()),
        }
        made = client.create_invalidation(DistributionId=distribution, InvalidationBatch=batch)["Invalidation"]
        console.say(f"CloudFront: invalidation {made['Id']} of {' '.join(paths)}")
        waited = 0.0
        while wait and made["Status"] != "Completed":
            if waited >= TIMEOUT:
                raise DeployError(f"The invalidation {made['Id']} of {distribution} is not done after {TIMEOUT:g} s.")
            console.progress(f"CloudFront: {made['Status']}, {waited:g} s")
            sleep(INTERVAL)
            waited += INTERVAL
            made = client.get_invalidation(DistributionId=distribution, Id=made["Id"])["Invalidation"]
    if wait:
        console.progress_done()
        console.say(f"CloudFront: invalidation {made['Id']} is done")
