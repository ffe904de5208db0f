"""Access to S3: one bucket, with the few requests that a release needs.

Starting a boto3 client takes longer than a small release, so single requests are signed and sent with parts of
botocore. Many uploads go through obstore; its LIST and DELETE are not used, because they alter unusual keys. Both get
the same proxy, certificates and timeouts.
"""

import base64
import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree

from msgspec import Struct

from scripts.edges import aws, http
from scripts.frame import stop, text
from scripts.frame.errors import FAILED, REFUSED, DeployError, Refused
from scripts.frame.settings import Environment
from scripts.frame.threads import workers

# Enough tries, with the pauses between them (seconds), to survive an outage of five seconds.
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 1.1, 5.0
CONNECT_TIMEOUT, TIMEOUT = 5.0, 20.0
# Bytes of a response that are read by default: a page of LIST with the longest keys has 4 MB.
MOST = 16 << 20
# Uploads at the same time. Each holds its body in memory: 32 MB of small files, 64 MB of large ones.
SMALL, SMALL_IN_FLIGHT = 256 << 10, 128
LARGE_IN_FLIGHT = 4
# Larger files are sent in parts and never completely in memory.
SINGLE_PUT = 16 << 20
PART = 8 << 20
LIST_PAGE = DELETE_BATCH = 1000
# A listing ends after so many pages: ten million objects.
PAGES = 10_000
SIZE = re.compile(r"[0-9]{1,18}")
# Settings of AWS's tools that change S3's host, and the regions whose host ends with amazonaws.com, unless isolated.
UNUSUAL = ("use_fips_endpoint", "use_dualstack_endpoint", "use_accelerate_endpoint")
ORDINARY = ("us-", "eu-", "ap-", "sa-", "ca-", "me-", "af-", "il-", "mx-")
ISOLATED = "-iso"
PUT_HEADER = re.compile(r"x-amz-[a-z0-9-]+")
# Seconds that cancelled uploads have to end.
UNWIND = 0.1
# Below this number of uploads, importing obstore costs more time than it saves.
OBSTORE_FROM = 9
# How long obstore may use credentials that are renewed before it asks for them again. It asks early, by some minutes.
ASK_AGAIN = timedelta(minutes=10)
# Two writes of one key at the same moment: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
PASSING = {"RequestTimeout", "ConditionalRequestConflict"}
CREDENTIALS = {"InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
SKEWED = "RequestTimeTooSkewed"
REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect"}
# How obstore says how often it has tried: less often than TRIES if the server is slow.
RETRIES = re.compile(r", after ([0-9]+) retries, max_retries: [0-9]+, retry_timeout: [0-9a-z.]+ *")
# urllib3 begins its messages with the connection as Python shows objects.
OBJECT = re.compile(r"AWSHTTPS?Connection(Pool)?\(.*?\): ")


class Keys(Struct, frozen=True):
    """Credentials, under the names that botocore's signer reads. token: of a session, else empty."""

    access_key: str
    secret_key: str
    token: str = ""


class Remote(Struct, frozen=True):
    """An object as LIST shows it. The ETag is opaque: an MD5 only sometimes. size: bytes."""

    etag: str
    size: int


class Upload(Struct, frozen=True):
    """One object to upload. path: of the file. size: bytes."""

    key: str
    path: str
    size: int
    sha256: str
    headers: Mapping[str, str]


class S3Error(DeployError):
    """An error response of S3. s3_code: S3's own name for it, such as AccessDenied."""

    def __init__(self, message: str, status: int, s3_code: str, exit_code: int = FAILED) -> None:
        self.exit_code = exit_code
        super().__init__(message)
        self.status = status
        self.s3_code = s3_code


class Unanswered(DeployError):
    """No valid response from S3: it may have processed the request."""


def is_doubtful(error: DeployError) -> bool:
    """Whether S3 may have processed the request that failed with an error."""
    return isinstance(error, Unanswered) or (isinstance(error, S3Error) and error.status >= 500)


class Answer(Struct, frozen=True):
    """A response of S3. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Network(Struct, frozen=True):
    """How the endpoint is reached. proxy: URL, empty for none. certificates: PEM file of the CAs that are trusted, None
    without TLS.
    """

    proxy: str
    certificates: str | None


class Bucket:
    """One bucket. Requests that fail temporarily are retried a limited number of times, with backoff and jitter."""

    def __init__(
        self,
        name: str,
        region: str,
        endpoint: str,
        keys: Keys | Callable[[], Keys],
        where: str,
        *,
        use_proxy: bool = True,
        virtual: bool = False,
        put_headers: Mapping[str, str] | None = None,
    ) -> None:
        """name: of the bucket, or BUCKET/FOLDER: then all keys are those in the folder.

        endpoint: of a server other than AWS, else empty. keys: a function returns those that are valid at the moment.
        where: the environment's name, for messages. virtual: the endpoint's host names the bucket. put_headers: of
        every object that is written.
        """
        self.name, self.region, self._where = name, region, where
        self._keys, self._renews = (keys, True) if callable(keys) else (lambda: keys, False)
        self._put_headers = dict(put_headers or {})
        self._bucket, _, folder = name.partition("/")
        self._folder = f"{folder}/" if folder else ""
        self.requests = 0
        self._counting = Lock()
        self._use_proxy = use_proxy
        self._virtual = virtual or (not endpoint and "." not in self._bucket)
        host = f"{self._bucket}.s3.{region}.amazonaws.com" if self._virtual else f"s3.{region}.amazonaws.com"
        self._endpoint = (endpoint or f"https://{host}").rstrip("/")

    # Requests

    def list(self, prefix: str = "") -> dict[str, Remote]:
        """Every object whose key begins with a prefix, by its key, in the order of keys. One request per 1,000."""
        found: dict[str, Remote] = {}
        token = ""
        for _ in range(PAGES):
            query = {"list-type": "2", "encoding-type": "url"}
            asked = (("prefix", self._folder + prefix), ("continuation-token", token))
            query |= {name: value for name, value in asked if value}
            root = self._xml(self._send("GET", "", query=query, doing="listing"), "listing", "ListBucketResult")
            found |= (self._listed(item) for item in root.iter("Contents"))
            if root.findtext("IsTruncated") == "false":
                # A folder that was made in the console is an object whose key is the folder itself.
                found.pop("", None)
                return found
            token = root.findtext("NextContinuationToken", "")
            if not token:
                raise DeployError(f"The listing of {self.name} is incomplete: S3 sent no continuation token.")
        raise DeployError(f"The listing of {self.name} does not end: S3 sent more than {PAGES:,} pages.")

    def _listed(self, item: ElementTree.Element) -> tuple[str, Remote]:
        """Key and object of an entry of LIST. Raises DeployError for an entry that is malformed."""
        # Encoded as in a form, but some servers do not encode a +.
        key, size = unquote_plus(item.findtext("Key", "")), item.findtext("Size", "")
        if not key or not key.startswith(self._folder) or not SIZE.fullmatch(size):
            raise DeployError(
                f"The listing of {self.name} is malformed: the object {key[:200]!r} has the size {size[:20]!r}."
            )
        return key.removeprefix(self._folder), Remote(item.findtext("ETag", "").strip('"'), int(size))

    def get(self, key: str, most: int, *, tries: int | None = None) -> tuple[bytes, str] | None:
        """An object's body and ETag, or None if there is no such key. Raises Refused for more than `most` bytes.

        tries: how often to try, if not TRIES.
        """
        answer = self._get(key, {}, most, tries)
        return (answer.body, _etag(answer)) if answer else None

    def is_still(self, key: str, etag: str, most: int) -> bool:
        """Whether an object still has an ETag; with an empty one, whether there is still no object.

        most: bytes, as for `get`.
        """
        answer = self._get(key, {"If-None-Match": f'"{etag}"'} if etag else {}, most)
        return not etag if answer is None else answer.status == 304 or _etag(answer) == etag

    def _get(self, key: str, headers: Mapping[str, str], most: int, tries: int | None = None) -> Answer | None:
        try:
            return self._send("GET", key, headers=headers, doing=f"reading {key} in", most=most, tries=tries)
        except S3Error as error:
            if error.status == 404 and error.s3_code in ("NoSuchKey", ""):
                return None
            raise

    def put(self, key: str, body: bytes, headers: Mapping[str, str], *, tries: int | None = None) -> str:
        """Put one object, and return its ETag. headers may hold If-Match or If-None-Match. tries: as for `get`.

        Raises S3Error with status 412 where the condition does not hold.
        """
        return self._put(key, body, hashlib.sha256(body).digest(), headers, tries)

    def _put(self, key: str, body: Any, sha256: bytes, headers: Mapping[str, str], tries: int | None) -> str:
        doing = f"writing {key} to"
        # Object Lock demands a checksum, and S3 compares it with what has arrived.
        checksum = {"x-amz-checksum-sha256": base64.b64encode(sha256).decode()}
        given = {**self._put_headers, **checksum, **headers}
        etag = _etag(self._send("PUT", key, headers=given, body=body, doing=doing, tries=tries))
        if not etag:
            raise Unanswered(f"S3's response to {doing} {self.name} ({self._where}) has no ETag.")
        return etag

    def copy(self, key: str, to: str) -> None:
        """Copy an object of up to 5 GB in the bucket. Raises DeployError."""
        source = quote(f"{self._bucket}/{self._folder}{key}")
        doing = f"copying {key} in"
        answer = self._send("PUT", to, headers={**self._put_headers, "x-amz-copy-source": source}, doing=doing)
        # An error may come with status 200: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
        self._xml(answer, doing, "CopyObjectResult")

    def delete(self, keys: Sequence[str], etags: Mapping[str, str]) -> dict[str, str]:
        """Delete objects, 1,000 in a request. Returns the keys that could not be deleted, with the reason.

        etags: key -> ETag, for keys to be deleted only if the object still has it.
        """
        failed: dict[str, str] = {}
        for start in range(0, len(keys), DELETE_BATCH):
            root = ElementTree.Element("Delete")
            ElementTree.SubElement(root, "Quiet").text = "true"
            for key in keys[start : start + DELETE_BATCH]:
                item = ElementTree.SubElement(root, "Object")
                ElementTree.SubElement(item, "Key").text = self._folder + key
                if key in etags:
                    ElementTree.SubElement(item, "ETag").text = f'"{etags[key]}"'
            body = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
            md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            answer = self._send(
                "POST", "", query={"delete": ""}, headers={"Content-MD5": md5}, body=body, doing="deleting from"
            )
            for item in self._xml(answer, "deleting from", "DeleteResult").iter("Error"):
                failed[item.findtext("Key", "").removeprefix(self._folder)] = item.findtext("Code", "")
        return failed

    def put_all(self, uploads: Sequence[Upload], done: Callable[[Upload, str], None]) -> None:
        """Upload many objects concurrently; `done` is called with each and its ETag. Ends at the first failure.

        A single object is uploaded by the calling thread, so that no other thread goes on with it after a stop.
        obstore does not sign headers of our own: with those, it is not used.
        """
        if len(uploads) == 1 and uploads[0].size <= SINGLE_PUT:
            done(uploads[0], self._put_one(uploads[0]))
        elif self._put_headers or (len(uploads) < OBSTORE_FROM and all(upload.size <= SMALL for upload in uploads)):
            with workers(OBSTORE_FROM) as pool:
                for upload, etag in zip(uploads, pool.map(self._put_one, uploads), strict=True):
                    done(upload, etag)
        else:
            self._put_many(uploads, done)

    def _put_one(self, upload: Upload) -> str:
        if upload.size <= SINGLE_PUT:
            return self.put(upload.key, _content(upload), upload.headers)
        with open(_body(upload), "rb") as file:
            return self._put(upload.key, file, bytes.fromhex(upload.sha256), upload.headers, None)

    # Many uploads

    def _put_many(self, uploads: Sequence[Upload], done: Callable[[Upload, str], None]) -> None:
        import asyncio

        from obstore.exceptions import BaseError

        self._count(sum(requests_of(upload.size) for upload in uploads))
        try:
            asyncio.run(self._put_concurrently(uploads, done))
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if isinstance(error, DeployError):
                raise error from None
            # A missing bucket is a FileNotFoundError there.
            if isinstance(error, (BaseError, OSError)):
                raise self._translated(error) from error
            raise

    async def _put_concurrently(self, uploads: Sequence[Upload], done: Callable[[Upload, str], None]) -> None:
        import asyncio

        import obstore

        async def put_each(store: Any, queue: Iterator[Upload]) -> None:
            for upload in queue:
                body: Any = _body(upload)
                attributes: Any = upload.headers
                put = obstore.put_async(
                    store,
                    self._folder + upload.key,
                    body,
                    attributes=attributes,
                    use_multipart=upload.size > SINGLE_PUT,
                    chunk_size=PART,
                    max_concurrency=LARGE_IN_FLIGHT,
                )
                # obstore raises for a response without an ETag.
                done(upload, str((await put)["e_tag"]).strip('"'))

        small = iter([upload for upload in uploads if upload.size <= SMALL])
        large = iter([upload for upload in uploads if upload.size > SMALL])
        quick, patient = self._stores
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(SMALL_IN_FLIGHT, len(uploads))):
                    group.create_task(put_each(quick, small))
                for _ in range(LARGE_IN_FLIGHT):
                    group.create_task(put_each(patient, large))
        except BaseException:
            # The other uploads are cancelled, but a response of one may be on its way from obstore's threads, which
            # print a traceback if the loop is closed by then.
            await asyncio.sleep(UNWIND)
            raise

    @cached_property
    def _stores(self) -> tuple[Any, Any]:
        """The stores for small and for large files, kept because of their connections."""
        # Large files need a long timeout on a slow line; a small file that takes as long is stuck.
        return self._store(TIMEOUT), self._store(15 * TIMEOUT)

    def _store(self, timeout: float) -> Any:
        from obstore.store import S3Store

        first, longest = timedelta(seconds=FIRST_PAUSE), timedelta(seconds=LONGEST_PAUSE)
        backoff: Any = {"init_backoff": first, "max_backoff": longest, "base": 2}

        # As plain arguments, the keys would be combined with a session token from the environment.
        def credentials() -> Any:
            keys = self._keys()
            return {
                "access_key_id": keys.access_key,
                "secret_access_key": keys.secret_key,
                "token": keys.token or None,
                "expires_at": datetime.now(UTC) + ASK_AGAIN if self._renews else None,
            }

        client: Any = {
            "timeout": timedelta(seconds=timeout),
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT),
            "allow_http": self._endpoint.startswith("http://"),
            **self._client_options(),
        }
        try:
            return S3Store(
                self._bucket,
                endpoint=self._endpoint,
                region=self.region,
                credential_provider=credentials,
                skip_signature=False,
                checksum_algorithm="SHA256",
                virtual_hosted_style_request=self._virtual,
                client_options=client,
                retry_config={
                    "max_retries": TRIES - 1,
                    "retry_timeout": timedelta(seconds=2 * timeout),
                    "backoff": backoff,
                },
            )
        except Exception as error:
            raise DeployError(f"Uploads to {self.name} cannot start: {str(error).splitlines()[0]}") from error

    def _client_options(self) -> dict[str, str | bytes]:
        """Proxy and certificates for obstore, which would otherwise read the variables in its own way."""
        network = self._network
        proxy = {"proxy_url": network.proxy}
        if not network.proxy:
            proxy = {"proxy_url": self._endpoint, "proxy_excludes": urlsplit(self._endpoint).hostname or ""}
        if network.certificates is None:
            return {**proxy}
        return {**proxy, "root_certificate": Path(network.certificates).read_bytes()}

    # One request

    def _send(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = b"",
        doing: str,
        most: int = MOST,
        tries: int | None = None,
    ) -> Answer:
        """Send a request, with retries, and return the response. body: bytes, or a file. Raises DeployError."""
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        url, tries = self._url(key, query or {}), tries or TRIES
        problem = ""
        for attempt in range(tries):
            stop.check()
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)))  # noqa: S311
            try:
                answer = self._once(method, url, headers or {}, body, most, doing)
            except (BotoCoreError, HTTPError, OSError) as error:
                problem = _reason(error)
                if "CERTIFICATE_VERIFY_FAILED" in problem:
                    raise self._untrusted(doing) from error
                continue
            if answer.status < 300 or answer.status == 304:
                return answer
            refusal = self._error(answer, doing)
            passing = answer.status >= 500 or answer.status == 429 or refusal.s3_code in PASSING
            if not passing or attempt == tries - 1:
                raise refusal
        raise self._unreachable(doing, problem, tries)

    def _url(self, key: str, query: Mapping[str, str]) -> str:
        path = "" if self._virtual else f"/{self._bucket}"
        if key or self._virtual:
            path += "/" + quote(self._folder + key if key else "")
        asked = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items()))
        return f"{self._endpoint}{path}{'?' if asked else ''}{asked}"

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Any, most: int, doing: str) -> Answer:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method, url, headers=headers, data=body, stream_output=True)
        S3SigV4Auth(self._keys(), "s3", self.region).add_auth(request)
        self._count(1)
        answer = self._session.send(request.prepare())
        # `most` is for the object; an error document can be longer.
        most = most if answer.status_code < 300 else MOST
        received = answer.raw.read(most + 1)
        found = {name.lower(): value for name, value in answer.headers.items()}
        length = found.get("content-length", "")
        if len(received) > most:
            answer.raw.close()
            raise Refused(f"S3's response to {doing} {self.name} is larger than {most:,} bytes.")
        if SIZE.fullmatch(length) and len(received) < int(length) and answer.status_code != 304:
            answer.raw.close()
            raise OSError("the response was cut off")
        return Answer(answer.status_code, found, received)

    def _count(self, requests: int) -> None:
        with self._counting:
            self.requests += requests

    @property
    def _session(self) -> Any:
        proxies = ((urlsplit(self._endpoint).scheme, self._network.proxy),) if self._network.proxy else ()
        return _session(self._network.certificates or True, proxies, (CONNECT_TIMEOUT, TIMEOUT))

    @cached_property
    def _network(self) -> Network:
        # Reading certificates takes 0.06 s, and without TLS they are not needed.
        certificates = _certificates() if self._endpoint.startswith("https:") else None
        return Network(_proxy(self._endpoint) if self._use_proxy else "", certificates)

    # Errors

    def _xml(self, answer: Answer, doing: str, wanted: str) -> ElementTree.Element:
        """The response's XML without namespaces. Raises DeployError if it is not the wanted document."""
        try:
            root = _parsed(answer.body)
        except ValueError as error:
            raise DeployError(f"S3's response to {doing} {self.name} is malformed: {error}.") from error
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        if root.tag != wanted:
            raise DeployError(f"S3's response to {doing} {self.name} is malformed: {root.tag} instead of {wanted}.")
        return root

    def _error(self, answer: Answer, doing: str) -> S3Error:
        code = message = region = now = ""
        try:
            root = _parsed(answer.body)
            code, message = root.findtext("Code", "")[: aws.LONGEST], root.findtext("Message", "")[: aws.LONGEST]
            region, now = root.findtext("Region", "")[:30], root.findtext("ServerTime", "")[:30]
        except ValueError:
            pass
        code = code or {403: "AccessDenied", 301: "PermanentRedirect"}.get(answer.status, "")
        region = answer.headers.get("x-amz-bucket-region", "")[:30] or region
        return self._explained(answer.status, code, message, doing, region, now)

    def _explained(self, status: int, code: str, message: str, doing: str, region: str = "", now: str = "") -> S3Error:
        """An error of S3 as a sentence, with its exit code. region: of the bucket, now: S3's time, if it says so."""
        where = f"{doing} the bucket {self.name} ({self._where}, {self.region})"
        said = text.sentence(f"S3 refused {where}: {code or status}{': ' + message if message else ''}")
        if code in CREDENTIALS:
            said = f"S3 rejected the credentials for {where}: {code}. Log in again and run this again."
        if code in REGION or status in (301, 307):
            named = f"the bucket is in {region}" if region else code
            said = f"Wrong region for {where}: {named}. Check AWS_REGION and the settings."
        if code == SKEWED:
            said = f"S3 refused {where}: {code}: {_skew(now)}. Set the clock, and run this again."
        refused = code in CREDENTIALS or code in REGION or code == SKEWED or status in (301, 307)
        return S3Error(said, status, code, REFUSED if refused else FAILED)

    def _translated(self, error: BaseException) -> DeployError:
        """Translate an error of obstore. Its text holds S3's XML, or names the cause far below the first line."""
        told, doing = str(error), "writing to"
        code = told.partition("<Code>")[2].partition("</Code>")[0]
        if code:
            return self._explained(0, code, told.partition("<Message>")[2].partition("</Message>")[0], doing)
        if "invalid peer certificate" in told or "InvalidCertificate" in told:
            return self._untrusted(doing)
        retried = RETRIES.search(told)
        problem = RETRIES.sub(" ", told.splitlines()[0])[:300] + (": timed out" if "kind: Timeout" in told else "")
        return self._unreachable(doing, problem, 1 + int(retried[1]) if retried else 1)

    def _unreachable(self, doing: str, problem: str, tries: int) -> DeployError:
        reached = f"S3 cannot be reached for {doing} {self.name} ({self._where}) in {tries} tries: {problem}"
        return Unanswered(text.sentence(reached))

    def _untrusted(self, doing: str) -> DeployError:
        return DeployError(
            f"The certificate of {urlsplit(self._endpoint).netloc} is not trusted, for {doing} {self.name}"
            f" ({self._where}): set AWS_CA_BUNDLE to a file with the certificate of its CA."
        )


@cache
def _session(certificates: str | bool, proxies: tuple[tuple[str, str], ...], timeouts: tuple[float, float]) -> Any:
    """Keeps the connections of this process, also from one bucket to the next: a handshake takes longer than a request.

    certificates: PEM file of the CAs that are trusted. proxies: scheme and URL. timeouts: for connecting and reading.
    """
    from botocore.httpsession import URLLib3Session
    from urllib3.connection import HTTPConnection

    aws.bound_responses()
    return URLLib3Session(
        verify=certificates,
        proxies=dict(proxies),
        timeout=timeouts,
        max_pool_connections=OBSTORE_FROM + 1,
        # urllib3's defaults, which botocore drops: without TCP_NODELAY a body waits 40 ms for an acknowledgement.
        socket_options=HTTPConnection.default_socket_options,
    )


def _parsed(body: bytes) -> ElementTree.Element:
    """A document of S3. Raises ValueError for anything else, and for one that declares entities."""
    if b"<!DOCTYPE" in body:
        raise ValueError("it declares entities")
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - without declarations nothing can be expanded
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(str(error)) from error


def _reason(error: Exception) -> str:
    """Why a connection failed, in urllib3's words: botocore's own message leaves out the cause."""
    inner = getattr(error, "kwargs", {}).get("error") or error
    return OBJECT.sub("", str(inner)) or type(inner).__name__


def _proxy(endpoint: str) -> str:
    """The proxy for an endpoint from HTTP_PROXY, HTTPS_PROXY and NO_PROXY, empty for none. Raises Refused."""
    from botocore.httpsession import ProxyConfiguration
    from botocore.utils import get_environ_proxies

    proxy = str(ProxyConfiguration(get_environ_proxies(endpoint)).proxy_url_for(endpoint) or "")
    try:
        parts = urlsplit(proxy)
        malformed = bool(proxy) and not (parts.hostname and parts.port != 0)
    except ValueError:
        malformed = True
    if malformed:
        # Not shown, because it may hold a password.
        scheme = urlsplit(endpoint).scheme.upper()
        raise Refused(f"{scheme}_PROXY is not the URL of a proxy: it must begin with http:// and a host.")
    return proxy


def _certificates() -> str:
    """The PEM file of the trusted CAs, found like botocore does. Raises Refused for a file without certificates."""
    import ssl

    from botocore.httpsession import get_cert_path

    chosen = (
        os.environ.get("AWS_CA_BUNDLE") or aws.profile().get("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or ""
    )
    if chosen:
        try:
            ssl.create_default_context(cafile=chosen)
        except (OSError, ValueError) as error:
            raise Refused(
                f"{chosen} is not a file of CA certificates: {getattr(error, 'strerror', None) or error}."
                " Check AWS_CA_BUNDLE, ca_bundle in the AWS profile, and REQUESTS_CA_BUNDLE."
            ) from error
    return str(get_cert_path(chosen or True))


def _skew(now: str) -> str:
    """How far this machine's clock is from S3's time, as a clause."""
    try:
        seconds = round((datetime.now(UTC) - datetime.fromisoformat(now)).total_seconds())
    except (ValueError, TypeError):
        return "this machine's clock is wrong"
    return f"this machine's clock is {abs(seconds):,} s {'ahead of' if seconds > 0 else 'behind'} S3's"


def _etag(answer: Answer) -> str:
    return answer.headers.get("etag", "").strip('"')


def _body(upload: Upload) -> bytes | Path:
    """The body of an upload: the file's bytes, or its path if it is sent in parts. Raises as `_content` does."""
    if upload.size <= SINGLE_PUT:
        return _content(upload)
    with _reading(upload) as file:
        _check(upload, hashlib.file_digest(file, "sha256").hexdigest())
    return Path(upload.path)


def _content(upload: Upload) -> bytes:
    """The file's bytes. Raises DeployError if the file has changed since it was hashed."""
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
        raise DeployError(f"{upload.path} can no longer be read: {error.strerror}.") from error


def _check(upload: Upload, sha256: str) -> None:
    if sha256 != upload.sha256:
        raise DeployError(f"{upload.path} changed during the release: build again, and release the new build.")


def requests_of(size: int) -> int:
    """How many requests an upload of `size` bytes takes."""
    return 1 if size <= SINGLE_PUT else 2 + -(-size // PART)


def open_bucket(environment: Environment, name: str) -> Bucket:
    """A bucket of an environment, with the credentials of this machine.

    The endpoint comes from `aws.endpoint_of`, the keys from the environment variables or else from wherever botocore
    finds them (profiles, single sign-on, web identity). Raises Refused if there are none.
    """
    aws.quiet()
    wanted, region = _wanted_headers(environment), environment.region
    if environment.endpoint_url:
        # An embedded AWS is on this machine: no proxy.
        embedded, url = Keys("local", "local"), environment.endpoint_url
        return Bucket(name, region, url, embedded, environment.name, use_proxy=False, put_headers=wanted)
    endpoint = aws.endpoint_of("s3", environment)
    if endpoint.url:
        http.checked(endpoint.url, f"the endpoint of S3 ({endpoint.origin})")
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    keys: Keys | Callable[[], Keys]
    if access and secret and not os.environ.get("AWS_PROFILE"):
        keys = Keys(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""))
    else:
        keys = partial(_found_keys, environment)
        keys()
    if not endpoint.url and _is_unusual(region):
        url, virtual = _resolved(environment, name.partition("/")[0])
        return Bucket(name, region, url, keys, environment.name, virtual=virtual, put_headers=wanted)
    return Bucket(name, region, endpoint.url, keys, environment.name, put_headers=wanted)


def _is_unusual(region: str) -> bool:
    """Whether botocore has to say S3's host: FIPS, dual-stack, accelerated, or another partition. That takes 0.2 s."""
    asked = any(os.environ.get(f"AWS_{name.upper()}") for name in UNUSUAL)
    elsewhere = not region.startswith(ORDINARY) or ISOLATED in region
    return asked or elsewhere or any(map(aws._file_names, UNUSUAL))


def _resolved(environment: Environment, bucket: str) -> tuple[str, bool]:
    """The endpoint that botocore chooses for a bucket, and whether its host names the bucket."""
    client = aws.client("s3", environment)
    with aws.errors(f"finding the endpoint of {bucket}", environment):
        accelerated = urlsplit(client.generate_presigned_url("list_objects_v2", {"Bucket": bucket})).netloc
    host = urlsplit(client.meta.endpoint_url).netloc
    if ".s3-accelerate." in accelerated:
        host = accelerated
    elif "." not in bucket:
        host = f"{bucket}.{host}"
    return f"https://{host}", host.startswith(f"{bucket}.")


def _found_keys(environment: Environment) -> Keys:
    """The credentials that botocore finds, which renews those of a role or a login when they are about to expire."""
    return Keys(*aws.credentials(environment))


def _wanted_headers(environment: Environment) -> Mapping[str, str]:
    """The headers of the settings for everything that is written. Raises Refused for any that S3 does not define."""
    for name in environment.frontend.put_headers:
        if not PUT_HEADER.fullmatch(name):
            raise Refused(f"frontend.put_headers of {environment.name}: {name[:100]!r} does not begin with x-amz-.")
    return {name: str(value) for name, value in environment.frontend.put_headers.items()}
