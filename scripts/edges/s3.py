"""The door to S3: one bucket, with the few requests that a release needs.

boto3 takes longer to start than a whole small release, so requests are signed here and sent over the standard
library's connections; uploads go through obstore, whose LIST and DELETE alter odd keys and are not used.
Signature Version 4: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import base64
import hashlib
import hmac
import os
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from scripts.frame.errors import FAILED, REFUSED, DeployError
from scripts.frame.settings import Environment

# With the pauses between them, enough to outlive a server that is away for five seconds. In seconds.
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 1.1, 5.0
TIMEOUT = 20.0
# Uploads at the same time. Each holds its body in memory: 25 MB of small files, 64 MB of large ones.
SMALL, SMALL_IN_FLIGHT = 256 << 10, 100
LARGE_IN_FLIGHT = 4
# Larger files are sent in parts, and never held whole.
SINGLE_PUT = 16 << 20
PART = 8 << 20
LIST_PAGE = DELETE_BATCH = 1000
# So few uploads are done before the faster library is imported.
FEW = 8
EMPTY = hashlib.sha256(b"").hexdigest()
CREDENTIALS = {"InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect"}


@dataclass(frozen=True)
class Keys:
    """Credentials. token: of a session, else empty."""

    access: str
    secret: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Remote:
    """An object as LIST shows it. The ETag is opaque: an MD5 only sometimes."""

    etag: str
    size: int


@dataclass(frozen=True)
class Upload:
    """One object to be put. path: of the file, whose size in bytes and sha256 are known."""

    key: str
    path: str
    size: int
    sha256: str
    headers: Mapping[str, str]


class S3Error(DeployError):
    """An answer of S3 that is an error. s3_code: S3's own, such as AccessDenied."""

    def __init__(self, message: str, status: int, s3_code: str, exit_code: int = FAILED) -> None:
        self.exit_code = exit_code
        super().__init__(message)
        self.status = status
        self.s3_code = s3_code


@dataclass(frozen=True)
class Answer:
    """An answer of S3. headers: names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Bucket:
    """One bucket. Requests are retried where that is right: bounded, with backoff and jitter."""

    def __init__(self, name: str, region: str, endpoint: str, keys: Keys, where: str) -> None:
        """endpoint: of a server other than AWS, else empty. where: the environment's name, for messages."""
        self.name, self.region, self._keys, self._where = name, region, keys, where
        self.requests = 0
        virtual = not endpoint and "." not in name
        host = f"{name}.s3.{region}.amazonaws.com" if virtual else f"s3.{region}.amazonaws.com"
        self._endpoint = endpoint or f"https://{host}"
        self._virtual = virtual
        self._idle: list[Any] = []

    def __del__(self) -> None:
        """The connections that are kept end with the bucket."""
        for connection in self._idle:
            connection.close()

    # Requests

    def list(self) -> dict[str, Remote]:
        """Every object by its key. One request per 1,000."""
        found: dict[str, Remote] = {}
        token = ""
        while True:
            query = {"list-type": "2", "encoding-type": "url", **({"continuation-token": token} if token else {})}
            root = self._xml(self._send("GET", "", query=query, doing="listing"), "listing", "ListBucketResult")
            for item in root.iter("Contents"):
                key = _unquoted(item.findtext("Key", ""))
                found[key] = Remote(item.findtext("ETag", "").strip('"'), int(item.findtext("Size", "0")))
            if root.findtext("IsTruncated") == "false":
                return found
            token = root.findtext("NextContinuationToken", "")
            if not token:
                raise DeployError(f"The listing of {self.name} is cut off: S3 gave no way to go on.")

    def get(self, key: str) -> tuple[bytes, str] | None:
        """An object's body and ETag, or None if there is no such key."""
        answer = self._get(key, {})
        return (answer.body, _etag(answer)) if answer else None

    def is_still(self, key: str, etag: str) -> bool:
        """Whether an object is the one with an ETag; "" for none."""
        answer = self._get(key, {"If-None-Match": f'"{etag}"'} if etag else {})
        return not etag if answer is None else answer.status == 304 or _etag(answer) == etag

    def _get(self, key: str, headers: Mapping[str, str]) -> Answer | None:
        try:
            return self._send("GET", key, headers=headers, doing=f"reading {key}")
        except S3Error as error:
            if error.status == 404 and error.s3_code in ("NoSuchKey", ""):
                return None
            raise

    def put(self, key: str, body: bytes, headers: Mapping[str, str]) -> str:
        """Put one object, and return its ETag. headers may hold If-Match or If-None-Match.

        Raises S3Error with status 412 where the condition does not hold.
        """
        return _etag(self._send("PUT", key, headers=headers, body=body, doing=f"writing {key}"))

    def delete(self, keys: Sequence[str], etags: Mapping[str, str]) -> dict[str, str]:
        """Delete objects, 1,000 in a request. Returns the keys that could not be deleted, with the reason.

        etags: of those keys that are deleted only if they still have it.
        """
        failed: dict[str, str] = {}
        for start in range(0, len(keys), DELETE_BATCH):
            root = ElementTree.Element("Delete")
            ElementTree.SubElement(root, "Quiet").text = "true"
            for key in keys[start : start + DELETE_BATCH]:
                item = ElementTree.SubElement(root, "Object")
                ElementTree.SubElement(item, "Key").text = key
                if key in etags:
                    ElementTree.SubElement(item, "ETag").text = f'"{etags[key]}"'
            body = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
            md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            answer = self._send(
                "POST", "", query={"delete": ""}, headers={"Content-MD5": md5}, body=body, doing="deleting"
            )
            for item in self._xml(answer, "deleting", "DeleteResult").iter("Error"):
                failed[item.findtext("Key", "")] = item.findtext("Code", "")
        return failed

    def put_all(self, uploads: Sequence[Upload], done: Callable[[Upload, str], None]) -> None:
        """Put many objects at the same time; `done` gets each with its ETag. Stops at the first that fails."""
        if len(uploads) <= FEW and all(upload.size <= SMALL for upload in uploads):
            with ThreadPoolExecutor(FEW) as pool:
                etags = pool.map(self._put_one, uploads)
                for upload, etag in zip(uploads, etags, strict=True):
                    done(upload, etag)
            return
        self.requests += sum(requests_of(upload.size) for upload in uploads)
        import asyncio

        from obstore.exceptions import BaseError

        try:
            asyncio.run(self._put_all(uploads, done))
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if isinstance(error, DeployError):
                raise error from None
            # A missing bucket is a FileNotFoundError there.
            if isinstance(error, (BaseError, OSError)):
                raise self._translated(error) from error
            raise

    def _put_one(self, upload: Upload) -> str:
        return self.put(upload.key, _content(upload), upload.headers)

    async def _put_all(self, uploads: Sequence[Upload], done: Callable[[Upload, str], None]) -> None:
        import asyncio

        import obstore

        async def put_each(store: Any, queue: Iterator[Upload]) -> None:
            for upload in queue:
                body: Any = _body(upload)
                attributes: Any = upload.headers
                put = obstore.put_async(
                    store,
                    upload.key,
                    body,
                    attributes=attributes,
                    use_multipart=upload.size > SINGLE_PUT,
                    chunk_size=PART,
                    max_concurrency=LARGE_IN_FLIGHT,
                )
                done(upload, str((await put)["e_tag"] or "").strip('"'))

        small = iter([upload for upload in uploads if upload.size <= SMALL])
        large = iter([upload for upload in uploads if upload.size > SMALL])
        quick, patient = self._stores
        async with asyncio.TaskGroup() as group:
            for _ in range(min(SMALL_IN_FLIGHT, len(uploads))):
                group.create_task(put_each(quick, small))
            for _ in range(LARGE_IN_FLIGHT):
                group.create_task(put_each(patient, large))

    @cached_property
    def _stores(self) -> tuple[Any, Any]:
        """For small and for large files; kept, as their connections are."""
        # The time for a large file is that of a slow line; a small one that takes as long is stuck.
        return self._store(TIMEOUT), self._store(15 * TIMEOUT)

    def _store(self, timeout: float) -> Any:
        from datetime import timedelta

        from obstore.store import S3Store

        first, longest = timedelta(seconds=FIRST_PAUSE), timedelta(seconds=LONGEST_PAUSE)
        backoff: Any = {"init_backoff": first, "max_backoff": longest, "base": 2}
        session: Any = {"session_token": self._keys.token} if self._keys.token else {}
        return S3Store(
            self.name,
            **session,
            endpoint=self._endpoint,
            region=self.region,
            access_key_id=self._keys.access,
            secret_access_key=self._keys.secret,
            virtual_hosted_style_request=self._virtual,
            client_options={
                "timeout": timedelta(seconds=timeout),
                "connect_timeout": timedelta(seconds=5),
                "allow_http": self._endpoint.startswith("http://"),
            },
            retry_config={
                "max_retries": TRIES - 1,
                "retry_timeout": timedelta(seconds=2 * timeout),
                "backoff": backoff,
            },
        )

    # One request

    def _send(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        doing: str,
    ) -> Answer:
        """Send a request until it is answered, and return the answer. Raises DeployError."""
        import http.client

        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)))  # noqa: S311
            try:
                answer = self._once(method, key, query or {}, headers or {}, body)
            except (OSError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
                continue
            if answer.status < 300 or answer.status == 304:
                return answer
            refusal = self._error(answer, doing)
            passing = answer.status >= 500 or answer.status == 429 or refusal.s3_code == "RequestTimeout"
            if not passing or attempt == TRIES - 1:
                raise refusal
        raise DeployError(f"S3 cannot be reached for {doing} {self.name} ({self._where}), {TRIES} tries: {problem}")

    def _once(self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urlsplit(self._endpoint)
        path = parts.path.rstrip("/") + ("" if self._virtual else f"/{self.name}") + "/" + quote(key, safe="/~")
        if not key and not self._virtual:
            path = path.rstrip("/")
        asked = "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in sorted(query.items()))
        signed = self._signed(method, parts.netloc, path, asked, headers, body)
        self.requests += 1
        connection = self._idle.pop() if self._idle else self._connection()
        try:
            connection.request(method, f"{path}?{asked}" if asked else path, body=body or None, headers=signed)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            received = Answer(answer.status, found, answer.read())
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return received

    def _signed(
        self, method: str, host: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, str]:
        """The headers with a signature over everything in the request."""
        now = time.gmtime()
        day, stamp = time.strftime("%Y%m%d", now), time.strftime("%Y%m%dT%H%M%SZ", now)
        digest = hashlib.sha256(body).hexdigest() if body else EMPTY
        given = {name.lower(): value for name, value in headers.items()}
        given |= {"host": host, "x-amz-date": stamp, "x-amz-content-sha256": digest}
        if self._keys.token:
            given["x-amz-security-token"] = self._keys.token
        names = ";".join(sorted(given))
        lines = "".join(f"{name}:{given[name].strip()}\n" for name in sorted(given))
        canonical = "\n".join((method, path, query, lines, names, digest))
        scope = f"{day}/{self.region}/s3/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self._keys.secret}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}".encode()
        signature = hmac.new(key, text, hashlib.sha256).hexdigest()
        given["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._keys.access}/{scope},SignedHeaders={names},Signature={signature}"
        )
        return given

    def _connection(self) -> Any:
        """A new connection. One that is idle is used again first: a handshake takes longer than a request."""
        import http.client

        parts = urlsplit(self._endpoint)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
            return http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT, context=context)
        return http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)

    # Errors

    def _xml(self, answer: Answer, doing: str, wanted: str) -> ElementTree.Element:
        """The answer's XML without namespaces. Raises DeployError for any other than the wanted document."""
        try:
            root = ElementTree.fromstring(answer.body)  # noqa: S314 - of the bucket that we write to
        except ElementTree.ParseError as error:
            raise DeployError(f"S3's answer to {doing} {self.name} is malformed: {error}.") from error
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        if root.tag != wanted:
            raise DeployError(f"S3's answer to {doing} {self.name} is malformed: {root.tag} instead of {wanted}.")
        return root

    def _error(self, answer: Answer, doing: str) -> S3Error:
        code = message = ""
        try:
            root = ElementTree.fromstring(answer.body)  # noqa: S314
            code, message = root.findtext("Code", ""), root.findtext("Message", "")
        except ElementTree.ParseError:
            pass
        code = code or {403: "AccessDenied", 301: "PermanentRedirect"}.get(answer.status, "")
        return self.explained(answer.status, code, message, doing)

    def explained(self, status: int, code: str, message: str, doing: str) -> S3Error:
        """An error of S3 in a sentence, with the exit code that it deserves."""
        where = f"{doing} the bucket {self.name} ({self._where}, {self.region})"
        text = f"S3 refused {where}: {code or status}{': ' + message if message else ''}"
        if code in CREDENTIALS:
            text = f"S3 does not accept the credentials for {where}: {code}. Log in again and run it again."
        if code in REGION or status in (301, 307):
            text = f"Wrong region for {where}: {code}. Check AWS_REGION and the settings."
        refused = code in CREDENTIALS or code in REGION or status in (301, 307)
        return S3Error(text, status, code, REFUSED if refused else FAILED)

    def _translated(self, error: BaseException) -> DeployError:
        """An error of obstore, whose text holds S3's XML."""
        text = str(error)
        code = text.partition("<Code>")[2].partition("</Code>")[0]
        message = text.partition("<Message>")[2].partition("</Message>")[0]
        if code:
            return self.explained(0, code, message, "writing to")
        return DeployError(f"Writing to the bucket {self.name} ({self._where}) failed: {text.splitlines()[0][:300]}")


def _etag(answer: Answer) -> str:
    return answer.headers.get("etag", "").strip('"')


def _body(upload: Upload) -> bytes | Path:
    """What is sent: the file's bytes, or its path if it goes in parts. Raises what `_content` does."""
    if upload.size <= SINGLE_PUT:
        return _content(upload)
    with _reading(upload) as file:
        _check(upload, hashlib.file_digest(file, "sha256").hexdigest())
    return Path(upload.path)


def _content(upload: Upload) -> bytes:
    """The file's bytes. Raises DeployError for a file that is no longer the one that was hashed."""
    with _reading(upload) as file:
        body: bytes = file.readall()
    _check(upload, hashlib.sha256(body).hexdigest())
    return body


@contextmanager
def _reading(upload: Upload) -> Iterator[Any]:
    try:
        with open(upload.path, "rb", buffering=0) as file:
            yield file
    except OSError as error:
        raise DeployError(f"{upload.path} cannot be read any more: {error.strerror}.") from error


def _check(upload: Upload, sha256: str) -> None:
    if sha256 != upload.sha256:
        raise DeployError(f"{upload.path} was changed while it was released: build again, and release that.")


def requests_of(size: int) -> int:
    """How many requests it takes to put a file of a size in bytes."""
    return 1 if size <= SINGLE_PUT else 2 + -(-size // PART)


def _unquoted(key: str) -> str:
    """A key as LIST encodes it: as in a form, but a server may leave a + as it is."""
    from urllib.parse import unquote_plus

    return unquote_plus(key)


def open_bucket(environment: Environment, name: str) -> Bucket:
    """The bucket of an environment, with the credentials that are set here.

    Standard variables count: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the keys, else whatever botocore finds
    (profiles, single sign-on, web identity). Raises Refused where there are none.
    """
    endpoint = environment.endpoint_url
    if endpoint:
        return Bucket(name, environment.region, endpoint, Keys("local", "local"), environment.name)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret and not os.environ.get("AWS_PROFILE"):
        keys = Keys(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""))
    else:
        from scripts.edges import aws

        keys = Keys(*aws.credentials(environment))
    return Bucket(name, environment.region, endpoint, keys, environment.name)
