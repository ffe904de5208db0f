"""Runs releases in processes that need not start: a line on stdin is a folder to release, the answer is the pid.

After a second line, which may be empty, follows how it ended. Until then the pid stays its own, and can be killed.
The process imports everything once and forks for each release, so that two hundred of them can be killed in a minute.
"""

import importlib
import os
import sys

from invoke.main import program

MODULES = ("frame.run", "release_static", "release.cdn", "release.publish", "release.verify")


def main() -> None:
    """Fork for each folder, say the child's pid, and then how it ended: -9 if it was killed."""
    for name in (*(f"scripts.{name}" for name in MODULES), "asyncio", "http.client", "obstore", "obstore.store"):
        importlib.import_module(name)
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            words = ["invoke", "release-static", "--env=dev", "--no-build", f"--build-dir={line.strip()}"]
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
            program.run(words)
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
