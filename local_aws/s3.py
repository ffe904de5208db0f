"""Refuses uploads whose checksum is wrong, as S3 does and moto does not."""

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from local_aws.cloud import App, StartResponse, answer, body_of


def _encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


CHECKSUMS: dict[str, Callable[[bytes], str]] = {
    "HTTP_CONTENT_MD5": lambda body: _encoded(hashlib.md5(body, usedforsecurity=False).digest()),
    "HTTP_X_AMZ_CHECKSUM_SHA256": lambda body: _encoded(hashlib.sha256(body).digest()),
    "HTTP_X_AMZ_CHECKSUM_SHA1": lambda body: _encoded(hashlib.sha1(body, usedforsecurity=False).digest()),
    "HTTP_X_AMZ_CHECKSUM_CRC32": lambda body: _encoded(zlib.crc32(body).to_bytes(4, "big")),
}


def wrap(app: App) -> App:
    """Check the body of every request against the checksums in its headers."""

    def checked(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("PUT", "POST") and "/s3/aws4_request" in environ.get("HTTP_AUTHORIZATION", ""):
            code = wrong(environ, body_of(environ))
            if code:
                error = f"<Error><Code>{code}</Code><Message>The body is not what its checksum says.</Message></Error>"
                return answer(start, 400, error.encode(), "application/xml")
        return app(environ, start)

    return checked


def wrong(environ: dict[str, Any], body: bytes) -> str:
    """The code of S3's error for a body that does not match its headers, empty if it does."""
    if "aws-chunked" in environ.get("HTTP_CONTENT_ENCODING", ""):
        return ""
    signed = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    if len(signed) == 64 and signed != hashlib.sha256(body).hexdigest():
        return "XAmzContentSHA256Mismatch"
    bad = any(header in environ and environ[header] != compute(body) for header, compute in CHECKSUMS.items())
    return "BadDigest" if bad else ""
