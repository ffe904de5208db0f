"""A Docker registry (/v2/) whose images are ECR's, and the parts of ECR that moto gets wrong.

The protocol is https://distribution.github.io/distribution/spec/api/, as far as docker uses it. The login is
ECR's authorization token. No response names a real registry.
"""

import base64
import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from local_aws.cloud import ACCOUNT, App, Cloud, StartResponse, answer, body_of

PASSWORD = "local-registry-password"  # noqa: S105 - of a registry on loopback
TOKEN = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<upload>[0-9a-f-]*)")
BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})")
MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
TOKEN_SECONDS = 12 * 3600
OCTETS = "application/octet-stream"


def sha256(body: bytes) -> str:
    """A digest as registries write it."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


class RegistryError(Exception):
    """An error as a registry reports it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Registry:
    """The blobs of one cloud; manifests are moto's ECR images."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._blobs = cloud.blobs
        self._uploads: dict[str, bytearray] = {}

    def wrap(self, app: App) -> App:
        """Answer /v2/ and what moto gets wrong of ECR, and pass everything else on."""

        def registry(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"].startswith("/v2"):
                try:
                    return self._answer(environ, start)
                except RegistryError as error:
                    body = json.dumps({"errors": [{"code": error.code, "message": str(error)}]}).encode()
                    extra = {"WWW_Authenticate": 'Basic realm="ECR"'} if error.status == 401 else {}
                    return answer(start, error.status, body, **extra)
            if environ.get("HTTP_X_AMZ_TARGET", "").startswith("AmazonEC2ContainerRegistry_V20150921."):
                return self._ecr(app, environ, start)
            return app(environ, start)

        return registry

    # The registry's own protocol

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> list[bytes]:
        if environ.get("HTTP_AUTHORIZATION", "") != f"Basic {TOKEN}" and not self._is_signed(environ):
            raise RegistryError(401, "UNAUTHORIZED", "log in with a token of GetAuthorizationToken")
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path in ("/v2", "/v2/"):
            return answer(start, 200, b"{}", Docker_Distribution_Api_Version="registry/2.0")
        for pattern, handle in ((UPLOAD, self._upload), (BLOB, self._blob), (MANIFEST, self._manifest)):
            if match := pattern.fullmatch(path):
                self._repository(match["name"])
                return handle(environ, start, method, **match.groupdict())
        raise RegistryError(404, "UNSUPPORTED", f"{method} {path}")

    def _repository(self, name: str) -> Any:
        from moto.ecr.models import ecr_backends

        for backend in ecr_backends[ACCOUNT].values():
            if name in backend.repositories:
                return backend
        raise RegistryError(404, "NAME_UNKNOWN", f"The repository with name '{name}' does not exist")

    def _upload(
        self, environ: dict[str, Any], start: StartResponse, method: str, name: str, upload: str
    ) -> list[bytes]:
        digest = parse_qs(environ.get("QUERY_STRING", "")).get("digest", [""])[0]
        if method == "POST" and not upload:
            upload = str(uuid.uuid4())
            self._uploads[upload] = bytearray()
        if upload not in self._uploads:
            raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN", upload)
        self._uploads[upload] += body_of(environ)
        location = f"{self._cloud.url}/v2/{name}/blobs/uploads/{upload}"
        if not digest:
            end = max(0, len(self._uploads[upload]) - 1)
            return answer(start, 202, b"", OCTETS, Location=location, Range=f"0-{end}", Docker_Upload_UUID=upload)
        blob = bytes(self._uploads.pop(upload))
        if sha256(blob) != digest:
            raise RegistryError(400, "DIGEST_INVALID", digest)
        self._blobs[digest] = blob
        where = f"{self._cloud.url}/v2/{name}/blobs/{digest}"
        return answer(start, 201, b"", OCTETS, Location=where, Docker_Content_Digest=digest)

    def _blob(self, environ: dict[str, Any], start: StartResponse, method: str, name: str, digest: str) -> list[bytes]:
        if digest not in self._blobs:
            raise RegistryError(404, "BLOB_UNKNOWN", digest)
        return _content(start, method, self._blobs[digest], OCTETS, digest)

    def _manifest(
        self, environ: dict[str, Any], start: StartResponse, method: str, name: str, reference: str
    ) -> list[bytes]:
        backend = self._repository(name)
        if method == "PUT":
            return self._put_manifest(environ, start, backend, name, reference)
        for image in backend.repositories[name].images:
            if reference in (image.get_image_digest(), *image.image_tags):
                body = image.image_manifest.encode()
                return _content(start, method, body, image.image_manifest_media_type, image.get_image_digest())
        raise RegistryError(404, "MANIFEST_UNKNOWN", reference)

    def _put_manifest(
        self, environ: dict[str, Any], start: StartResponse, backend: Any, name: str, reference: str
    ) -> list[bytes]:
        from moto.core.exceptions import JsonRESTError, ServiceException

        body = body_of(environ)
        digest = sha256(body)
        manifest = json.loads(body)
        parts = [part["digest"] for part in (manifest.get("config"), *manifest.get("layers", [])) if part]
        missing = [part for part in parts if part not in self._blobs]
        if missing:
            raise RegistryError(400, "MANIFEST_BLOB_UNKNOWN", ", ".join(missing))
        kind = manifest.get("mediaType") or environ.get("CONTENT_TYPE", "")
        tag = None if reference == digest else reference
        same = [i for i in backend.repositories[name].images if i.get_image_digest() == digest]
        if not any(tag in image.image_tags for image in same):
            try:
                backend.put_image(name, body.decode(), tag, kind, digest)
            except (JsonRESTError, ServiceException) as error:
                raise RegistryError(400, "TAG_INVALID", str(error.message)) from error
        where = f"{self._cloud.url}/v2/{name}/manifests/{digest}"
        return answer(start, 201, b"", OCTETS, Location=where, Docker_Content_Digest=digest)

    # ECR

    def _ecr(self, app: App, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        name = environ["HTTP_X_AMZ_TARGET"].rpartition(".")[2]
        given = json.loads(body_of(environ) or b"{}")
        if name == "GetAuthorizationToken":
            until = self._cloud.clock.now() + TOKEN_SECONDS
            data = {"authorizationToken": TOKEN, "expiresAt": until, "proxyEndpoint": self._cloud.url}
            return _json(start, {"authorizationData": [data]})
        if name == "GetDownloadUrlForLayer":
            return self._download(start, given)
        if name == "DescribeImageScanFindings":
            return self._scan(start, given)
        return self._renamed(app, environ, start)

    def _download(self, start: StartResponse, given: dict[str, Any]) -> list[bytes]:
        """A URL of a layer that whoever has it may read."""
        name, digest = given["repositoryName"], given["layerDigest"]
        if name not in self.repositories():
            return _error(start, "RepositoryNotFoundException", f"The repository with name '{name}' does not exist")
        if digest not in self._blobs:
            return _error(start, "LayersNotFoundException", f"The layer {digest} does not exist in '{name}'")
        url = f"{self._cloud.url}/v2/{name}/blobs/{digest}?signature={self._signature(digest)}"
        return _json(start, {"downloadUrl": url, "layerDigest": digest})

    def _signature(self, digest: str) -> str:
        return hmac.new(self._cloud.token.encode(), digest.encode(), hashlib.sha256).hexdigest()

    def _is_signed(self, environ: dict[str, Any]) -> bool:
        """Whether a request reads a layer whose signed URL it was given."""
        match = BLOB.fullmatch(environ["PATH_INFO"])
        given = parse_qs(environ.get("QUERY_STRING", "")).get("signature", [""])[0]
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        return bool(match and reads and hmac.compare_digest(given, self._signature(match["digest"])))

    def _scan(self, start: StartResponse, given: dict[str, Any]) -> list[bytes]:
        """The findings that were set through /_local/findings, in pages; a complete scan without any by default."""
        repository, image = given["repositoryName"], given["imageId"]
        backend = self._repository(repository) if repository in self.repositories() else None
        images = backend.repositories[repository].images if backend else []
        ids = set(image.values())
        if not any(ids & {stored.get_image_digest(), *stored.image_tags} for stored in images):
            message = f"The image with imageId {json.dumps(image)} does not exist within the repository"
            return _error(start, "ImageNotFoundException", message)
        key = (repository, image.get("imageTag") or image.get("imageDigest", ""))
        scan = self._cloud.findings.get(key, {})
        status = scan.get("status", "COMPLETE")
        if status == "NONE":
            return _error(start, "ScanNotFoundException", "Image scan does not exist for the image")
        if status == "IN_PROGRESS" and self._cloud.clock.now() >= scan.get("until", float("inf")):
            status = "COMPLETE"
        found = scan.get("findings", []) if status == "COMPLETE" else []
        first, size = int(given.get("nextToken", 0)), min(given.get("maxResults", 100), 100)
        counts: dict[str, int] = {}
        for finding in found:
            counts[finding["severity"]] = counts.get(finding["severity"], 0) + 1
        reply: dict[str, Any] = {
            "registryId": ACCOUNT,
            "repositoryName": repository,
            "imageId": image,
            "imageScanStatus": {"status": status},
            "imageScanFindings": {"findings": found[first : first + size], "findingSeverityCounts": counts},
        }
        if first + size < len(found):
            reply["nextToken"] = str(first + size)
        return _json(start, reply)

    def repositories(self) -> set[str]:
        from moto.ecr.models import ecr_backends

        return {name for backend in ecr_backends[ACCOUNT].values() for name in backend.repositories}

    def _renamed(self, app: App, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """moto's response, with this registry in place of the real ones that it names."""
        sent: list[Any] = []
        body = b"".join(app(environ, lambda status, headers, *_: sent.extend((status, headers))))
        real = re.compile(rb"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com")
        body = real.sub(self._cloud.host.encode(), body)
        status, headers = sent
        kept = [(key, value) for key, value in headers if key.lower() != "content-length"]
        start(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]


def _content(start: StartResponse, method: str, body: bytes, kind: str, digest: str) -> list[bytes]:
    sent = answer(start, 200, body, kind, Docker_Content_Digest=digest)
    return [] if method == "HEAD" else sent


def _json(start: StartResponse, reply: dict[str, Any]) -> list[bytes]:
    return answer(start, 200, json.dumps(reply).encode(), "application/x-amz-json-1.1")


def _error(start: StartResponse, code: str, message: str) -> list[bytes]:
    body = json.dumps({"__type": code, "message": message}).encode()
    return answer(start, 400, body, "application/x-amz-json-1.1")
