"""How long the command line takes to start, beside Invoke with an empty tasks.py.

Prints ratios of medians; the runs alternate, so that a machine that slows down slows all of them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 15
INVOKE = [sys.executable, "-m", "invoke"]
DRY_RUN = ["deploy-service", "--env=dev", "--dry-run"]


def seconds(words: list[str], folder: Path, env: dict[str, str]) -> float:
    """One run, as a whole process."""
    started = time.perf_counter()
    # An empty tasks.py has nothing to list, and Invoke says so with exit code 1.
    subprocess.run(words, cwd=folder, env=env, capture_output=True, check=folder == ROOT)
    return time.perf_counter() - started


def main() -> None:
    """Measure, and print a table."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"AWS_ACCOUNT_ID": "123456789012", "HOME": "/nonexistent"}
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder)
        (empty / "tasks.py").write_text("")
        commands = {
            "invoke --list, empty tasks.py": ([*INVOKE, "--list"], empty),
            "invoke --list": ([*INVOKE, "--list"], ROOT),
            "invoke deploy-service --env=dev --dry-run": ([*INVOKE, *DRY_RUN], ROOT),
        }
        # The first runs write bytecode, or find that they may not.
        took: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(RUNS + 1):
            for name, (words, where) in commands.items():
                measured = seconds(words, where, env)
                if number:
                    took[name].append(measured)
    medians = {name: statistics.median(values) for name, values in took.items()}
    base = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:45} {median * 1000:6.0f} ms  x {median / base:.2f}")


if __name__ == "__main__":
    main()
