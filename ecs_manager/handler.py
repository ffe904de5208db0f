"""The entry point: takes the event apart, runs its command, puts the reply together.

A failure of the command is a normal reply with `title` and `message`; `traceback` is there because
callers expect the key, and is empty because a traceback could hold a secret.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ecs_manager.commands import COMMANDS, Invocation
from ecs_manager.errors import BadRequest, ManagerError

log = logging.getLogger("ecs_manager")
log.setLevel(logging.INFO)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Lambda's entry point. context: Lambda's, for its id and its time limit."""
    return answer(event, lambda: _in_lambda(context))


def answer(event: Any, using: Callable[[], Invocation]) -> dict[str, Any]:
    """Answer an event `{"command": …, "body": {…}}`. using: makes the clients, once the event is understood."""
    started = time.perf_counter()
    command = event.get("command") if isinstance(event, Mapping) else None
    if not isinstance(command, str) or command not in COMMANDS:
        return _not_understood(f"unknown command {command!r}: use one of {', '.join(COMMANDS)}")
    try:
        response = _run(event, using)
    except BadRequest as error:
        return _not_understood(str(error))
    duration = f"{(time.perf_counter() - started) * 1000:.1f} ms"
    log.info(json.dumps({"command": command, "duration": duration, "title": response.get("title")}))
    reply = {"request_payload": dict(event), **response}
    return {"msg": "response received", "data": {"response": reply, "duration": duration}}


def _in_lambda(context: Any) -> Invocation:
    import boto3
    from botocore.config import Config

    # botocore would repeat a slow UpdateService, and each starts another deployment.
    once = Config(retries={"mode": "standard", "total_max_attempts": 1})
    return Invocation(
        ecs=boto3.client("ecs"),
        ssm=boto3.client("ssm"),
        id=context.aws_request_id,
        remaining=lambda: context.get_remaining_time_in_millis() / 1000,
        once=boto3.client("ecs", config=once),
    )


def _run(event: Mapping[str, Any], using: Callable[[], Invocation]) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    body = event.get("body")
    if not isinstance(body, Mapping):
        raise BadRequest("the event needs a body that is an object")
    call = using()
    try:
        return COMMANDS[event["command"]](call, body)
    except ManagerError as error:
        return _failed(error.title, error.message)
    except ClientError as error:
        return _failed(error.response["Error"]["Code"], str(error))
    except BotoCoreError as error:
        return _failed(type(error).__name__, str(error))


def _failed(title: str, message: str) -> dict[str, Any]:
    return {"title": title, "message": message, "traceback": []}


def _not_understood(reason: str) -> dict[str, Any]:
    return {"msg": "request not understood", "data": reason, "level": "critical"}
