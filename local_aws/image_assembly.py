"""Assembles an image without a Docker engine and pushes it, for the embedded AWS.

Supports FROM scratch, ARG, ENV, COPY, USER, EXPOSE, ENTRYPOINT and CMD, and refuses every other instruction. The
formats are those of https://github.com/opencontainers/image-spec.
"""

import base64
import hashlib
import io
import json
import re
import shlex
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.ecs import images
from scripts.edges import http
from scripts.edges.http import Unreachable
from scripts.frame.errors import DeployError, OutcomeUnknown, Refused

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
# Seconds for one response, and bytes of it that are read.
TIMEOUT, MOST = 30.0, 2000


@dataclass
class Assembly:
    """What a Dockerfile says. settings: the image's configuration. files: path in the image -> source."""

    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def read(file: Path, context: Path, arguments: Mapping[str, str]) -> Assembly:
    """What a Dockerfile says. Raises Refused for an instruction that only an engine can follow."""
    assembly, known = Assembly({"Env": []}), dict[str, str]()
    for line in file.read_text().splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        rest = re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), rest.strip())
        if word == "ARG":
            name, _, default = rest.partition("=")
            known[name] = arguments.get(name, default)
        elif word == "ENV":
            assembly.settings["Env"] += shlex.split(rest)
        elif word == "COPY":
            _copy(assembly, context, rest.split())
        elif word in ("ENTRYPOINT", "CMD"):
            assembly.settings["Entrypoint" if word == "ENTRYPOINT" else "Cmd"] = json.loads(rest)
        elif word == "USER":
            assembly.settings["User"] = rest
        elif word == "EXPOSE":
            assembly.settings["ExposedPorts"] = {f"{rest}/tcp": {}}
        elif (word, rest) != ("FROM", "scratch"):
            raise Refused(f"{file}: `{line}` needs a Docker engine, and none answers.")
    return assembly


def _copy(assembly: Assembly, context: Path, words: list[str]) -> None:
    *sources, target = words
    for source in sources:
        for found in sorted(context.glob(source.rstrip("/"))):
            inside = sorted(p for p in found.rglob("*") if p.is_file()) if found.is_dir() else [found]
            base = found if found.is_dir() else found.parent
            for path in inside:
                assembly.files[f"{target.strip('/')}/{path.relative_to(base)}".strip("/")] = path


def layer(files: Mapping[str, Path]) -> bytes:
    """The files as an uncompressed tar, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            # Without this mode only root could open the folder.
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, path in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            body = path.read_bytes()
            entry.size, entry.mode = len(body), 0o755 if path.stat().st_mode & 0o100 else 0o644
            archive.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


def sha256(body: bytes) -> str:
    """A digest as registries write it."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def assemble_and_push(uri: str, file: Path, context: Path, arguments: Mapping[str, str], password: str) -> str:
    """Assemble the image of a Dockerfile, push it by the registry's protocol, and return its digest.

    Raises Refused for a Dockerfile that needs an engine, DeployError if the registry refuses, OutcomeUnknown if it is
    not known whether the registry has the image.
    """
    assembly = read(file, context, arguments)
    tar = layer(assembly.files)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": assembly.settings,
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar)]},
        }
    ).encode()
    parts = ((LAYER, tar), (CONFIG, config))
    described = [{"mediaType": kind, "size": len(body), "digest": sha256(body)} for kind, body in parts]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[1], "layers": [described[0]]}
    ).encode()
    image = images.checked(uri)
    for _, body in parts:
        upload = f"/v2/{image.repository}/blobs/uploads/?digest={sha256(body)}"
        _send(image.registry, "POST", upload, body, "application/octet-stream", password)
    _send(image.registry, "PUT", f"/v2/{image.repository}/manifests/{image.tag}", manifest, MANIFEST, password)
    return sha256(manifest)


def _send(registry: str, method: str, path: str, body: bytes, kind: str, password: str) -> None:
    login = base64.b64encode(f"AWS:{password}".encode()).decode()
    headers = {"Content-Type": kind, "Authorization": f"Basic {login}"}
    url, asked = f"http://{registry}{path}", f"{method} {path.partition('?')[0]}"
    try:
        answer = http.request(method, url, timeout=TIMEOUT, headers=headers, body=body, most=MOST)
    except Unreachable as error:
        raise _failure(method, error.sent)(f"The registry {registry} did not answer {asked}: {error}") from error
    if not answer.ok:
        said = answer.body.decode(errors="replace")
        failure = _failure(method, answer.status >= 500)
        raise failure(f"The registry {registry} refused {asked}: HTTP {answer.status}: {said}")


def _failure(method: str, doubtful: bool) -> type[DeployError]:
    """Only the PUT of the manifest, the last request, makes the image exist, so only its outcome can be unknown."""
    return OutcomeUnknown if method == "PUT" and doubtful else DeployError
