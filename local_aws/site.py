"""The application as its visitors see it: the page from its bucket, as CloudFront serves it, and the service at /api/.

Each embedded environment has a site of its own at http://NAME.localhost:PORT, and the first one at 127.0.0.1 too.
A request is a visitor's if it reads, and nothing in it is a client's of AWS: no signature, no header or parameter of
its SDKs, no name of a bucket. Whatever a page of a site requests is a visitor's, so that no script in it reaches AWS.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, quote

from local_aws import stored_images
from local_aws.cloud import ACCOUNT, KEYS, App, StartResponse, answer
from local_aws.ecs import Ecs
from local_aws.gate import host_of, is_of_a_page

ENTRY, OWN = "index.html", "_release/"
API = "/api/"
NOT_FOUND = b'{"status": "not found"}'
# Of clients of AWS, which send them with every request, also with one that they do not sign.
HEADERS = ("HTTP_AUTHORIZATION", "HTTP_X_AMZ_", "HTTP_AMZ_SDK_")
PARAMETERS = {"X-Amz-Signature", "Signature", "Action"}
# Of a visitor's request that S3 answers by.
CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_RANGE")
SIGNED = f"AWS4-HMAC-SHA256 Credential={KEYS['aws_access_key_id']}/20260101/us-east-1/s3/aws4_request, Signature=0"
# A client-side route has no extension.
ROUTE = re.compile(r"(.*/)?[^./]*")


@dataclass(frozen=True)
class Site:
    """The site of an environment. service: region, cluster and name of what answers at /api/ and at `healthcheck`.

    bucket: BUCKET or BUCKET/FOLDER with the page. base: the path that it is served at, without its last slash.
    """

    bucket: str
    base: str
    healthcheck: str
    service: tuple[str, str, str]


def wrap(app: App, ecs: Ecs, sites: Mapping[str, Site]) -> App:
    """Answer the visitors of `sites`: host name -> site, where any other host is that of the first one."""

    def visited(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        if not sites or not _is_of_a_visitor(environ):
            return app(environ, start)
        path = environ["PATH_INFO"]
        site = sites.get(host_of(environ)) or next(iter(sites.values()))
        checked = [one for one in (site, *sites.values()) if one.healthcheck == path]
        if checked or path.startswith(API):
            return _service(environ, start, ecs, (checked or [site])[0])
        return _page(app, environ, start, ecs.cloud.host, site)

    return visited


def _is_of_a_visitor(environ: dict[str, Any]) -> bool:
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return False
    if is_of_a_page(environ):
        return True
    query = parse_qs(environ.get("QUERY_STRING", ""))
    path = environ["PATH_INFO"]
    is_for_aws = path.startswith("/v2/") or path == "/v2" or path.split("/")[1] in _buckets()
    return not (is_for_aws or PARAMETERS & query.keys() or any(name.startswith(HEADERS) for name in environ))


def _buckets() -> Mapping[str, Any]:
    """All buckets. Without a signature S3 refuses to read one, or answers as its policy says."""
    from moto.s3.models import s3_backends

    found: Mapping[str, Any] = s3_backends[ACCOUNT]["aws"].buckets
    return found


def _service(environ: dict[str, Any], start: StartResponse, ecs: Ecs, site: Site) -> Iterable[bytes]:
    """The answer of a running task: the healthcheck with the version of its image, or a container's own."""
    deployment, path = ecs.answering(*site.service), environ["PATH_INFO"]
    if deployment is None:
        sent = answer(start, 503, b'{"status": "no task runs"}')
    elif ecs.engine:
        query = environ.get("QUERY_STRING", "")
        sent = answer(start, *ecs.engine.ask(deployment.id, quote(path, encoding="latin-1") + (query and f"?{query}")))
    elif path != site.healthcheck:
        sent = answer(start, 404, NOT_FOUND)
    else:
        now = int(ecs.cloud.clock.now())
        when = time.strftime("%Y-%m-%d %H:%M:%S+00:00", time.gmtime(deployment.created))
        version = stored_images.version(ecs.cloud, deployment.definition)
        body = {"status": "pass", "datetime": when, "version": version, "timestamp": str(now)}
        sent = answer(start, 200, json.dumps(body).encode())
    return sent if environ["REQUEST_METHOD"] == "GET" else []


def _page(app: App, environ: dict[str, Any], start: StartResponse, host: str, site: Site) -> Iterable[bytes]:
    """An object of the bucket as it is stored; the page for a path that only the page's own script knows.

    A distribution can answer every path that S3 does not have with the page and status 200. A tab that asks for a
    script of an older release then gets HTML, and a check of the site finds no file missing. So only a path without an
    extension gets the page, as a function in front of the bucket decides it.
    """
    path = environ["PATH_INFO"]
    within, key = path.startswith(f"{site.base}/"), path.removeprefix(f"{site.base}/")
    # What the release keeps for itself is not for visitors.
    if within and not key.startswith(OWN):
        for name in (key or ENTRY, *([ENTRY] if ROUTE.fullmatch(key) else [])):
            status, headers, body = _object(app, environ, host, f"/{site.bucket}/{name}")
            if not status.startswith(("403", "404")):
                start(status, headers)
                return [body]
    told = f"{path} is not on this site, whose files are in the bucket {site.bucket}.\n".encode("latin-1")
    sent = answer(start, 404, told, "text/plain; charset=utf-8")
    return sent if environ["REQUEST_METHOD"] == "GET" else []


def _object(app: App, environ: dict[str, Any], host: str, path: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Read an object with a signature, as CloudFront does. path: /BUCKET/KEY. Returns status, headers and body."""
    url, sent = quote(path, encoding="latin-1"), list[Any]()
    dropped = ("HTTP_", "local_aws.", "werkzeug.")
    own = {name: value for name, value in environ.items() if not name.startswith(dropped) or name in CONDITIONS}
    own |= {"PATH_INFO": path, "RAW_URI": url, "REQUEST_URI": url, "QUERY_STRING": "", "wsgi.input": BytesIO()}
    own |= {"HTTP_HOST": host, "HTTP_AUTHORIZATION": SIGNED}
    body = b"".join(app(own, lambda status, headers, *_: sent.extend((status, headers))))
    return sent[0], sent[1], body
