"""Decides who may use the embedded AWS: programs on this machine, but no web page of another origin.

A page in a browser can send requests to any port of this machine, and its own host name can resolve to 127.0.0.1 (DNS
rebinding). So the Host must name this machine, a request that a page of another origin caused is refused on every path,
and no response allows another origin to read it. The control paths also need a token from a file in the checkout.
"""

import hmac
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from local_aws.cloud import App, StartResponse, answer

HOSTS = {"127.0.0.1", "localhost", "::1"}
TOKEN = "HTTP_X_LOCAL_AWS_TOKEN"  # noqa: S105 - the name of a header
CONTROL = "/_local/"
# Needs no token: a program first has to know whether this is an embedded AWS, and whether it is ready.
STATUS = "/_local/status"
# The largest bodies, in bytes. A deployment's largest are the layers of images; those of control paths are a few lines.
MOST = 64 << 20
MOST_OF_A_LAYER = 2 << 30
MOST_OF_CONTROL = 1 << 20


def wrap(app: App, token: str) -> App:
    """Refuse requests that do not come from a program on this machine, before anything else handles them."""

    def guarded(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        why = fault(environ, token)
        if why:
            return answer(start, 413 if why == TOO_LARGE else 403, f'{{"error": "{why}"}}'.encode(), Connection="close")

        def without_cors(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
            return start(status, kept, *rest)

        return app(environ, without_cors)

    return guarded


TOO_LARGE = "the body is too large"


def fault(environ: dict[str, Any], token: str) -> str:
    """Why a request is refused, empty if it is not."""
    host = environ.get("HTTP_HOST", "")
    if _name(f"//{host}") not in HOSTS:
        return "the Host is not this machine"
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and origin != f"http://{host}":
        return "requests from pages of another origin are refused"
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
        return "requests from pages of another origin are refused"
    path = environ.get("PATH_INFO", "")
    has_token = hmac.compare_digest(environ.get(TOKEN, "").encode(), token.encode())
    if path.startswith(CONTROL) and path != STATUS and not has_token:
        return "the control paths need the token in .local/<port>.token as X-Local-AWS-Token"
    return _size_fault(environ, path)


def _size_fault(environ: dict[str, Any], path: str) -> str:
    most = MOST_OF_CONTROL if path.startswith(CONTROL) else MOST_OF_A_LAYER if path.startswith("/v2/") else MOST
    length = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdecimal()):
        return "the length of the body is not a number"
    return TOO_LARGE if int(length) > most else ""


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
