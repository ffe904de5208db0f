"""The application's healthcheck: answers with the version of a running task's image."""

import json
import time
from collections.abc import Iterable
from typing import Any

from local_aws import stored_images
from local_aws.cloud import App, StartResponse, answer
from local_aws.ecs import Ecs


def wrap(app: App, ecs: Ecs, services: dict[str, tuple[str, str, str]]) -> App:
    """Answer at the paths of `services`: path -> region, cluster and name of the service behind it."""

    def health(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        service = services.get(environ["PATH_INFO"])
        if service is None or environ["REQUEST_METHOD"] != "GET" or "HTTP_AUTHORIZATION" in environ:
            return app(environ, start)
        deployment = ecs.answering(*service)
        if deployment is None:
            return answer(start, 503, b'{"status": "no task runs"}')
        if ecs.engine:
            return answer(start, *ecs.engine.ask(deployment.id, environ["PATH_INFO"]))
        now = int(ecs.cloud.clock.now())
        when = time.strftime("%Y-%m-%d %H:%M:%S+00:00", time.gmtime(deployment.created))
        version = stored_images.version(ecs.cloud, deployment.definition)
        body = {"status": "pass", "datetime": when, "version": version, "timestamp": str(now)}
        return answer(start, 200, json.dumps(body).encode())

    return health
