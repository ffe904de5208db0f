"""Allows one run at a time to change an environment: its lock is a lease, an object in the bucket of the releases.

It is created with If-None-Match. The body names the holder, so that a writer whose response was lost recognizes its own
lease. A lease is taken over if it has expired or its holder is known to be gone: its process, host or workflow run.
While it is held, a thread renews it, whatever the run waits for.
"""

import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Container, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from scripts.edges import aws, github, http
from scripts.edges.s3 import CREDENTIALS, Bucket, S3Error, is_doubtful, open_bucket
from scripts.frame import console, stop, waiting
from scripts.frame import version as versions
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run, actor
from scripts.frame.waiting import TimedOut
from scripts.release.manifest import JSON, LEASE, Text, decoded

# How long a lease lasts, unless it is renewed.
SECONDS = 900
# A lease is renewed when at most this much of it is left; the thread looks every so many seconds.
RENEW_BELOW_SECONDS, BEAT = 600, 60.0
# Seconds between two attempts while somebody else holds it, and between two questions to GitHub about one run.
TRY_EVERY, ASK_EVERY = 3.0, 60.0
# How long to look for a lease whose PUT got no response, because S3 may still process it. Shorter than stop.LIMIT.
LOOK_SECONDS, LOOK_EVERY = 0.8, 0.1
# Bytes of a lease that are read.
MOST = 64 << 10
GITHUB_TIMEOUT = 5.0
WORKFLOW_RUN = re.compile(
    r"(?P<server>https?://[\w.:-]+)/(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)/actions/runs/(?P<id>\d{1,20})"
)
# Commands whose lease is only for a bucket; earlier versions named none.
RELEASES = {"", "release-static", "release-storybook", "release.rollback"}
NOTHING = "Nothing was changed."


class Holder(Struct, frozen=True, kw_only=True):
    """Who holds a lease, and until when (Unix time). run: the URL of the workflow's run, empty on a laptop; attempt:
    of that run, 0 on a laptop. command, version: what it does.

    pid, began: its process, and when that started, in the kernel's ticks. space: the kernel's name for the processes
    that pid counts among. boot, machine: of its host, which another boot, and another host of that name, do not share.
    Empty or 0 where it is not known: leases of earlier versions have only a host and a pid.
    """

    id: Text = ""
    actor: Text = ""
    run: Text = ""
    attempt: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0
    command: Text = ""
    version: Text = ""
    host: Text = ""
    machine: Text = ""
    boot: Text = ""
    space: Text = ""
    pid: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0
    began: Annotated[int, Meta(ge=0, lt=1 << 53)] = 0
    expires: Annotated[float, Meta(ge=0, le=4_102_444_800)]


class _WorkflowRun(Struct):
    """https://docs.github.com/en/rest/actions/workflow-runs#get-a-workflow-run"""

    status: str


def load(body: bytes) -> Holder:
    """A holder from JSON. Raises Refused for a document that is damaged."""
    try:
        return decoded(body, Holder)
    except ValueError as error:
        raise Refused(
            f"{LEASE} is damaged ({error}): if nothing is running there, take it over with --force-lock. {NOTHING}"
        ) from error


class Lease:
    """The lease of this run on a bucket. etag: of the lease object, empty while we do not hold it.

    shared: whether more of the run needs it after the release.
    """

    def __init__(self, bucket: Bucket, own: Holder, shared: bool) -> None:
        """own: this run, as `here` describes it."""
        self.bucket, self.shared, self._own = bucket, shared, own
        self._unanswered = False
        self.etag = ""
        # Why the lease is no longer ours, empty while it is.
        self._lost = ""
        self._writing, self._ended = threading.Lock(), threading.Event()
        # When GitHub was last asked about a run, by its URL.
        self._asked: dict[str, float] = {}

    def take(self, *, force: bool = False, wait: float = 0.0) -> None:
        """Take the lease. Raises Refused if somebody else holds it; force: take it anyway. wait: seconds."""

        def look() -> tuple[str, bool | None]:
            held_by = self._try(force)
            return held_by, None if held_by else True

        silent = (lambda _: None) if not wait else console.say
        try:
            waiting.wait(look, seconds=wait, every=min(TRY_EVERY, wait / 2 or TRY_EVERY), say=silent)
        except TimedOut as error:
            hint = "Wait for it with --lock-wait=SECONDS, or break it with --force-lock if that run is dead."
            raise Refused(f"{error}. {hint} {NOTHING}") from error
        threading.Thread(target=self._beat, daemon=True).start()

    def _try(self, force: bool) -> str:
        """Take the lease, if it can be taken now. Returns who holds it otherwise."""
        condition = {"If-None-Match": "*"}
        for _ in range(3):
            try:
                with self._writing:
                    self._write(condition)
                return ""
            except S3Error as error:
                if error.status not in (404, 409, 412):
                    raise
            found = self.bucket.get(LEASE, MOST)
            if found is None:
                condition = {"If-None-Match": "*"}
                continue
            body, etag = found
            if self._is_ours(body):
                self.etag = etag
                return ""
            holder = self._holder(body, force)
            if not (force or is_over(holder, self._own, time.time()) or self._is_completed(holder.run)):
                return _described(self.bucket, holder)
            console.say(f"taking over the lease of {holder.actor or 'somebody unknown'}")
            condition = {"If-Match": f'"{etag}"'}
        return f"Several runs on {self.bucket.name} are starting at the same time"

    def _holder(self, body: bytes, force: bool) -> Holder:
        """The holder of a lease. Raises Refused if it is damaged, unless it is taken over anyway."""
        try:
            return load(body)
        except Refused:
            if not force:
                raise
            return Holder(expires=0)

    def _is_completed(self, run: str) -> bool:
        """Whether GitHub says that a workflow run is over. It is asked again only after a while."""
        now = time.monotonic()
        if now - self._asked.get(run, -ASK_EVERY) < ASK_EVERY:
            return False
        self._asked[run] = now
        return is_completed(run)

    def _beat(self) -> None:
        """Renew the lease until it is given back or lost. Runs in a thread of its own."""
        said = ""
        while not self._ended.wait(BEAT):
            try:
                self.renew()
                said = ""
            except DeployError as error:
                if self._lost:
                    return
                if not said:
                    said = f"the lease of {self.bucket.name} could not be renewed: {error}"
                    console.say(said)

    def renew(self) -> None:
        """Extend the lease if it expires soon. Raises DeployError if another run has taken it over."""
        with self._writing:
            if self._lost:
                raise DeployError(self._lost)
            if self._own.expires - time.time() > RENEW_BELOW_SECONDS:
                return
            try:
                self._write({"If-Match": f'"{self.etag}"'})
            except S3Error as error:
                if error.status not in (404, 412):
                    raise
                self._check_ours(error)

    def _check_ours(self, refusal: S3Error) -> None:
        """After a write that S3 refused: the one before it, whose response was lost, may have changed the ETag.

        Raises DeployError if the lease is somebody else's.
        """
        found = self.bucket.get(LEASE, MOST)
        if found and self._is_ours(found[0]):
            self.etag = found[1]
            return
        self.etag = ""
        releases, name = self._own.command in RELEASES, self.bucket.name
        what = f"the lease of this release to {name}" if releases else f"the lock of {name} from this run"
        self._lost = f"Somebody took over {what}, so it stops here. Run it again."
        raise DeployError(self._lost) from refusal

    def give_back(self) -> None:
        """Release the lease if we hold it. A failure is only a warning: it must not hide how the run ended."""
        self._ended.set()
        # The thread may hang in a request. Whatever S3 does with that, only the lease with our id is deleted.
        idle = self._writing.acquire(timeout=LOOK_SECONDS)
        try:
            if self._unanswered:
                self.etag = self._look()
            if self.etag:
                self._delete()
        except DeployError as error:
            console.warn(f"The lease could not be deleted; it expires by itself: {error}")
        finally:
            if idle:
                self._writing.release()
        self.etag = ""

    def _look(self) -> str:
        """The ETag of our lease after a PUT whose response was lost, empty if it was not written."""
        deadline = time.monotonic() + LOOK_SECONDS
        while True:
            found = self.bucket.get(LEASE, MOST, tries=1)
            if found and self._is_ours(found[0]):
                return found[1]
            if time.monotonic() > deadline:
                return ""
            time.sleep(LOOK_EVERY)

    def _is_ours(self, body: bytes) -> bool:
        try:
            return load(body).id == self._own.id
        except Refused:
            return False

    def _delete(self) -> None:
        try:
            refused = bool(self.bucket.delete([LEASE], self.condition))
        except S3Error:
            refused = True
        if not refused:
            return
        try:
            # Without the permission to delete, write a lease that has expired.
            self._write({"If-Match": f'"{self.etag}"'}, seconds=0)
        except S3Error as error:
            if error.status not in (404, 412):
                raise

    @property
    def condition(self) -> dict[str, str]:
        """The condition under which a delete removes only our lease: key -> ETag."""
        return {LEASE: self.etag}

    def _write(self, condition: Mapping[str, str], seconds: float = SECONDS) -> None:
        """Write the lease. Until S3 responds, it is not known whether it was written."""
        self._own = replace(self._own, expires=int(time.time() + seconds))
        self._unanswered = True
        try:
            self.etag = self.bucket.put(LEASE, msgspec.json.encode(asdict(self._own)), {**JSON, **condition})
        except S3Error as error:
            self._unanswered = error.status >= 500
            raise
        self._unanswered = False


# The leases that this process holds, by their buckets: a part of a run needs no lease beside that of the whole.
_held: dict[str, Lease] = {}


@contextmanager
def held(
    bucket: Bucket, own: Holder, *, force: bool = False, wait: float = 0.0, shared: bool = False
) -> Iterator[Lease]:
    """Hold the lease during the block, and release it however the block ends; one that is held already stays held.

    A stop may interrupt taking the lease, because S3 may be slow. Releasing it is not interrupted, and looks for a
    lease whose PUT got no response. Raises Refused as `take` does.
    """
    if bucket.name in _held:
        yield _held[bucket.name]
        return
    with stop.owned(lambda: Lease(bucket, own, shared), Lease.give_back) as lease:
        lease.take(force=force, wait=wait)
        _held[bucket.name] = lease
        try:
            yield lease
        finally:
            del _held[bucket.name]


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold the lock of a run's environment during the block, unless the run holds it already.

    If the environment has no bucket, or there is no right to write there, the run goes on with a warning. A dry run
    only says who holds the lock.
    """
    if run.locked:
        yield
        return
    run.locked = True
    name = run.environment.frontend.bucket.known()
    with ExitStack() as stack:
        if run.dry_run:
            if name and aws.has_credentials(run.environment):
                run.read("the lock", lambda: warn_of_holder(open_bucket(run.environment, name), {LEASE}))
        elif name:
            try:
                stack.enter_context(_held_by(run, name, shared=True))
            except DeployError as error:
                _go_on_without(run, error)
        else:
            _warn_of_no_lock(run, "its settings have no bucket")
        yield


@contextmanager
def awaited(run: Run, name: str) -> Iterator[None]:
    """If a release is to wait for others, hold the lease of its bucket during the block, which reads the bucket.

    A release that does not wait takes the lease before its first write, in `publish`: one that has nothing to do, or
    whose build is not fit for it, takes none. name: of the bucket.
    """
    with ExitStack() as stack:
        if run.lock_wait and not run.dry_run:
            stack.enter_context(_held_by(run, name))
        yield


def _held_by(run: Run, name: str, *, shared: bool = False) -> AbstractContextManager[Lease]:
    own = here(*actor(), command=run.name, version=run.facts.get("version", ""))
    return held(open_bucket(run.environment, name), own, force=run.force_lock, wait=run.lock_wait, shared=shared)


def bucket(name: str) -> Bucket | None:
    """The bucket whose lease this process holds, so that its connection is used again; None if it holds none."""
    return _held[name].bucket if name in _held else None


def check(run: Run) -> None:
    """Raises DeployError if somebody has taken the lock of a run's environment over."""
    mine = _held.get(run.environment.frontend.bucket.known())
    if mine:
        mine.renew()


def _go_on_without(run: Run, error: DeployError) -> None:
    """Warn that there is no lock, if a run may go on without it. Raises DeployError otherwise."""
    if isinstance(error, Refused) or (isinstance(error, S3Error) and error.s3_code in CREDENTIALS):
        raise error
    if is_doubtful(error) and not run.force_lock:
        raise Refused(
            f"The lock of {run.environment.name} could not be taken: {error} {NOTHING} --force-lock goes on without it."
        ) from error
    _warn_of_no_lock(run, str(error))


def _warn_of_no_lock(run: Run, why: str) -> None:
    console.warn(f"nothing keeps others from changing {run.environment.name} at the same time, it has no lock: {why}")


def warn_of_holder(bucket: Bucket, listing: Container[str]) -> None:
    """Warn of a lease in the bucket that is held by another run, or damaged. Raises only Refused."""
    try:
        # For a dry run, which does not wait for a network that is missing.
        found = bucket.get(LEASE, MOST, tries=1) if LEASE in listing else None
    except Refused:
        raise
    except DeployError as error:
        console.warn(f"it is not known whether another run holds {bucket.name}: {error}")
        return
    if not found:
        return
    try:
        holder = load(found[0])
    except Refused as damaged:
        console.warn(str(damaged))
        return
    if bucket.name not in _held and not is_over(holder, here("", ""), time.time()):
        console.warn(f"{_described(bucket, holder)}.")


def here(who: str, run: str, *, command: str = "", version: str = "") -> Holder:
    """This process as a holder."""
    attempt = os.environ.get("GITHUB_RUN_ATTEMPT", "") if run else ""
    # Not shown to others as it is: https://www.freedesktop.org/software/systemd/man/latest/machine-id.html
    machine = _read("/etc/machine-id")
    return Holder(
        id=uuid.uuid4().hex,
        actor=who,
        run=run,
        attempt=int(attempt) if re.fullmatch("[0-9]{1,9}", attempt) else 0,
        command=command,
        version=version,
        host=os.uname().nodename,
        machine=hashlib.sha256(machine.encode()).hexdigest()[:16] if machine else "",
        boot=_read("/proc/sys/kernel/random/boot_id"),
        space=_space(),
        pid=os.getpid(),
        began=_began(os.getpid()),
        expires=0,
    )


def _read(path: str) -> str:
    """A line of the system, empty where there is none, as on macOS."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()[:100]
    except (OSError, ValueError):
        return ""


def _space() -> str:
    """The namespace of this process's pid: containers of one host count for themselves."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _began(pid: int) -> int:
    """When a process started, in the kernel's ticks; 0 if it is not known."""
    # The name of the program, in brackets, may hold anything: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    fields = _read_stat(pid).rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else 0


def _read_stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def is_over(holder: Holder, own: Holder, now: float) -> bool:
    """Whether a holder can no longer be running, as far as that can be known on this machine; if unsure, no.

    Its lease has expired, it was an earlier attempt of the same workflow run, its process on this machine has ended, or
    this machine was started anew since.
    """
    if now >= holder.expires:
        return True
    if own.run and holder.run == own.run and (not own.attempt or holder.attempt != own.attempt):
        return True
    if holder.host != own.host or not holder.pid:
        return False
    if holder.boot != own.boot and holder.boot and own.boot:
        # Runners in CI are copies of each other, with the same names: there, GitHub is asked instead.
        return not holder.run and holder.machine == own.machine != ""
    return (holder.space == own.space or not holder.space) and _has_ended(holder)


def _has_ended(holder: Holder) -> bool:
    """Whether a process of this machine has ended; another one may have its pid by now."""
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return bool(holder.began) and holder.began != _began(holder.pid)


def is_completed(run: str) -> bool:
    """Whether GitHub says that a workflow run is over; False if it does not say. run: its URL.

    With GITHUB_TOKEN if that is set; for a public repository none is needed.
    """
    found = WORKFLOW_RUN.fullmatch(run)
    if not found or found["server"] != console.github("").rstrip("/"):
        return False
    try:
        url = f"{github.api()}/repos/{found['name']}/actions/runs/{found['id']}"
        token = ""
        with suppress(Refused):
            token = github.token() if http.keeps_secrets(url) else ""
        answer = github.request("GET", url, timeout=GITHUB_TIMEOUT, token=token)
        return answer.ok and answer.record(_WorkflowRun).status == "completed"
    except (DeployError, ValueError):
        return False


def _described(bucket: Bucket, holder: Holder) -> str:
    until = time.strftime("%H:%M:%S UTC", time.gmtime(holder.expires))
    run = f", {holder.run}" if holder.run else ""
    who = f"{holder.actor or 'Somebody'} ({holder.host}{run})"
    version = f" of {versions.short(holder.version)}" if holder.version else ""
    doing = f"releasing to {bucket.name}" if holder.command in RELEASES else f"running {holder.command}{version}"
    return f"{who} is {doing}; the lease ends at {until}"
