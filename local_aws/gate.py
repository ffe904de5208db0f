"""Decides who may use the embedded AWS: programs on this machine, but no web page of another origin.

A page in a browser can send requests to any port of this machine, and its own host name can resolve to 127.0.0.1 (DNS
rebinding). So the Host must name this machine or a site on it, a request that a page of another origin caused is
refused on every path, and no response allows another origin to read it. A page of a site may only read its own site.
The control paths also need a token from a file in the checkout.
"""

import hmac
from collections.abc import Collection, Iterable
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


def wrap(app: App, token: str, sites: Collection[str] = ()) -> App:
    """Refuse requests of pages of another origin, before anything else handles them. sites: their host names.

    They end in .localhost, which browsers resolve to this machine themselves.
    """
    hosts = {*HOSTS, *sites}

    def guarded(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        why = fault(environ, token, hosts)
        if why:
            return answer(start, 413 if why == TOO_LARGE else 403, f'{{"error": "{why}"}}'.encode(), Connection="close")

        def without_cors(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
            return start(status, kept, *rest)

        return app(environ, without_cors)

    return guarded


TOO_LARGE = "the body is too large"


def fault(environ: dict[str, Any], token: str, hosts: Collection[str] = HOSTS) -> str:
    """Why a request is refused, empty if it is not. hosts: the names that it may be sent to."""
    if host_of(environ) not in hosts:
        return "the Host is not this machine"
    path = environ.get("PATH_INFO", "")
    if is_of_a_page(environ):
        why = _page_fault(environ, path)
        if why:
            return why
    has_token = hmac.compare_digest(environ.get(TOKEN, "").encode(), token.encode())
    if path.startswith(CONTROL) and path != STATUS and not has_token:
        return "the control paths need the token in .local/<port>.token as X-Local-AWS-Token"
    return _size_fault(environ, path)


def _page_fault(environ: dict[str, Any], path: str) -> str:
    origin, site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE", "same-origin")
    if origin not in (None, f"http://{environ.get('HTTP_HOST', '')}") or site not in ("none", "same-origin"):
        return "requests from pages of another origin are refused"
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or path.startswith(CONTROL):
        return "a page may only read its site"
    return ""


def is_of_a_page(environ: dict[str, Any]) -> bool:
    """Whether a page in a browser caused the request, not a program or a person who typed its address."""
    return "HTTP_ORIGIN" in environ or environ.get("HTTP_SEC_FETCH_SITE", "none") != "none"


def host_of(environ: dict[str, Any]) -> str:
    """The host name that a request was sent to, empty if it has none."""
    return _name(f"//{environ.get('HTTP_HOST', '')}")


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
