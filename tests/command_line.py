"""Runs the command line in processes that need not start: it imports everything once, and forks for each command.

A request is a connection to the socket in argv[1]: one line of JSON with words, folder and environment, sent with the
descriptors for stdout and stderr. The answer is the command's pid, and after another line, which may be empty, its exit
code, as subprocess gives it: until then the pid stays its own. Several run at the same time.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import cast

from tests import lines

# The command line's own modules are not among them: what they do when they load is part of a command's run.
LIBRARIES = (
    *("asyncio", "boto3", "botocore.config", "botocore.auth", "botocore.httpsession", "http.client", "sh"),
    *("invoke", "invoke.main", "invoke.loader", "obstore", "selectolax.lexbor", "tinycss2", "sqlite3"),
)
SERVICES = ("ecs", "ecr", "lambda", "logs", "ssm", "sts", "rds", "cloudfront")
LATER = {"declaration", "flags"}
# What a command line may be sent at most, in bytes: the kernel's own bound is about the same.
MOST = 2 << 20


def main(path: str) -> None:
    """Serve until the process is ended."""
    root = Path(__file__).resolve().parent.parent
    lines.install()
    for file in sorted((root / "scripts").rglob("*.py")):
        if file.stem not in LATER:
            words = file.relative_to(root).with_suffix("").parts
            importlib.import_module(".".join(words[:-1] if words[-1] == "__init__" else words))
    for name in LIBRARIES:
        importlib.import_module(name)
    keep_data()
    lines.prepare()
    import boto3

    for name in SERVICES:
        boto3.client(name, region_name="us-west-2", aws_access_key_id="x", aws_secret_access_key="x")
    # No fork looks through, or copies, what is here already.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
        # The path is there once it can be connected to.
        server.bind(f"{path}.new")
        server.listen(64)
        os.rename(f"{path}.new", path)
        serve(server, selector)


def keep_data() -> None:
    """Read botocore's data once in a process: each of its sessions reads them anew, 0.1 s of a test's time."""
    import botocore.loaders

    loader = botocore.loaders.JSONFileLoader()
    for name in ("load_file", "exists"):
        kept = functools.cache(getattr(loader, name))
        setattr(botocore.loaders.JSONFileLoader, name, lambda _, path, kept=kept: kept(path))
    # They are the same for every session too, as long as none has data of its own.
    named = functools.cache(botocore.loaders.Loader().list_available_services)
    botocore.loaders.Loader.list_available_services = lambda _, type_name: named(type_name)


def serve(server: socket.socket, selector: selectors.BaseSelector) -> None:
    """Start what is asked for, and answer how it ended."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    selector.register(server, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    asked = dict[int, socket.socket]()
    while True:
        for key, _ in selector.select():
            if key.fileobj is server:
                connection, _ = server.accept()
                selector.register(connection, selectors.EVENT_READ, start(connection, selector))
            elif key.fileobj == woken:
                os.read(woken, 4096)
            else:
                connection = cast(socket.socket, key.fileobj)
                connection.recv(1)
                selector.unregister(connection)
                asked[key.data] = connection
        for child, connection in list(asked.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                with connection, suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                del asked[child]


def start(connection: socket.socket, selector: selectors.BaseSelector) -> int:
    """Run one command in a process of its own, and answer its pid."""
    request, descriptors, _, _ = socket.recv_fds(connection, MOST, 2)
    while not request.endswith(b"\n"):
        request += connection.recv(MOST)
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.close()
        for key in list(selector.get_map().values()):
            os.close(key.fd)
        run(json.loads(request), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(f"{child}\n".encode())
    return child


def run(request: dict[str, object], descriptors: list[int]) -> None:
    """Become the command: its folder, environment and standard streams, and then Invoke's own entry point."""
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, *descriptors)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    tempfile.tempdir = None
    sys.argv = ["invoke", *request["words"]]  # type: ignore[misc]
    from invoke.main import program

    code: object = 0
    try:
        program.run()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        code = end.code
    # Threads, what was left for the end, and the output: what is left out is taking the interpreter apart, 0.05 s.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(cast(int, code))


if __name__ == "__main__":
    main(sys.argv[1])
