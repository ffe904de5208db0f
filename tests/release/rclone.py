"""An S3 server that is not moto, and much faster: `rclone serve s3`, in memory, on loopback."""

import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

# The tests' own reads need not verify the certificate.
UNVERIFIED = ssl._create_unverified_context()  # noqa: S323
RCLONE = Path(sys.executable).with_name("rclone")


@dataclass
class Rclone:
    """A running server with one bucket. It ignores conditions of writes, and its ETags have no quotes."""

    url: str
    bucket: str = "site"

    @property
    def env(self) -> dict[str, str]:
        """Variables that make a release to dev use this server."""
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ACCOUNT_ID": "123456789012"}
        return {**keys, "AWS_ENDPOINT_URL": self.url, "STATIC_S3_BUCKET": self.bucket, "GITHUB_SHA": "abc"}

    def get(self, key: str) -> tuple[str, bytes] | None:
        """Content type and body of an object."""
        try:
            url = f"{self.url}/{self.bucket}/{quote(key)}"
            with urllib.request.urlopen(url, timeout=10, context=UNVERIFIED) as answer:
                return answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            return None


@contextmanager
def rclone(*, certificate: Path | None = None) -> Iterator[Rclone]:
    """Serve on a free port until the block ends. certificate: PEM file with certificate and key, for TLS."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [str(RCLONE), "serve", "s3", ":memory:", f"--addr=127.0.0.1:{port}", "--config=/dev/null"]
    if certificate:
        words += [f"--cert={certificate}", f"--key={certificate}"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=dict(os.environ))
    server = Rclone(f"{'https' if certificate else 'http'}://127.0.0.1:{port}")
    try:
        _make_bucket(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _make_bucket(server: Rclone) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            request = urllib.request.Request(f"{server.url}/{server.bucket}", method="PUT")
            urllib.request.urlopen(request, timeout=5, context=UNVERIFIED).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
