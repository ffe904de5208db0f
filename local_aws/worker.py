"""One Lambda function in a process of its own: a line of JSON in, a line of JSON out.

Run as `python -m local_aws.worker module:function`.
"""

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any


class Context:
    """The context that Lambda passes to a handler with the event. timeout: seconds."""

    def __init__(self, request_id: str, timeout: float) -> None:
        self.aws_request_id = request_id
        self._deadline = time.monotonic() + timeout

    def get_remaining_time_in_millis(self) -> int:
        """The time until Lambda stops the function."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def main() -> None:
    """Answer events until stdin ends. What the handler prints goes to stderr, as the function's log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    handler = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        call = json.loads(line)
        print(json.dumps(_run(handler, call)), file=answers, flush=True)


def _run(handler: Any, call: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"reply": handler(call["event"], Context(call["id"], call["timeout"]))}
    except Exception as error:
        stack = traceback.format_tb(error.__traceback__)
        return {"error": {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": stack}}


if __name__ == "__main__":
    main()
