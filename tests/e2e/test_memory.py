"""Planning a release of a hundred thousand files needs little memory."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

FILES = 100_000
LIMIT_MB = 300

# The whole of a plan: listing and manifest as S3 sends them, a site with a tenth of its files changed, what to put
# and delete, and the next manifest. Only disk and network are left out.
PROGRAM = """
import json, re, sys
from scripts.release import manifest, plan
from scripts.edges.s3 import Remote
from scripts.release.manifest import Entry, Manifest, Release, State
from scripts.release.site import File, Site
from scripts.release import content

FILES = int(sys.argv[1])

def key(number, version):
    return f"assets/folder{number % 100}/chunk{number}-{version if number % 10 == 0 else 0:08x}.js"

def digest(number, version):
    return f"{number:032x}{version if number % 10 == 0 else 0:032x}"

def headers(name):
    return content.headers(name, content.content_type(name, {}), {})

def written():
    releases = {}
    for version in (3, 2, 1):
        files = {}
        for number in range(FILES):
            name = key(number, version)
            files[name] = Entry(digest(number, version), 100, f"{number:032x}", headers(name))
        files["index.html"] = Entry("0" * 64, 1, "e", headers("index.html"))
        releases[Release(f"r{version}", str(version), version, "somebody", "")] = files
    return manifest.dump(Manifest("mint-app", "prod", releases))

def most_memory():
    # In MB. What getrusage says is not this process's alone: it includes the moment before exec.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

if sys.argv[2] == "write":
    open(sys.argv[3], "wb").write(written())
else:
    old = manifest.load(open(sys.argv[3], "rb").read())
    listing = {name: Remote(entry.etag, entry.size) for name, entry in old.known().items()}
    files = {key(n, 4): File(f"/build/{key(n, 4)}", 100, digest(n, 4), headers(key(n, 4))) for n in range(FILES)}
    files["index.html"] = File("/build/index.html", 1, "1" * 64, headers("index.html"))
    site, state = Site("/build", files), State(listing, old, "etag")
    settings = {"keep_releases": 2, "application": "mint-app", "environment": "prod"}
    decided = plan.plan(
        site, state, bucket="b", release=Release("r4", "4", 4, "", ""), max_delete_percent=50, **settings
    )
    etags = {put.key: "e" for put in decided.puts}
    body = manifest.dump(plan.next_manifest(decided, site, state, etags, **settings))
    print(json.dumps([most_memory(), len(decided.puts), len(decided.deletes), len(decided.unchanged), len(body)]))
"""


def test_a_hundred_thousand_files_are_planned_in_three_hundred_megabytes(tmp_path: Path) -> None:
    """The listing, a manifest of three releases, the plan and the next manifest, in a separate process."""

    def run(what: str) -> str:
        words = [sys.executable, "-c", PROGRAM, str(FILES), what, str(tmp_path / "manifest.json")]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    run("write")
    memory, puts, deletes, unchanged, _ = json.loads(run("plan"))

    assert (puts, deletes, unchanged) == (FILES // 10 + 1, FILES // 10, FILES - FILES // 10)
    assert memory < LIMIT_MB
