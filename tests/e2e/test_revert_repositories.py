"""`invoke revert` in repositories that are shallow, partial or unusual, and of people who have configured git."""

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke, git
from tests.stand_in import Reply, stand_in
from tests.test_revert import Checkout, checkout, hook, revert, template, write

__all__ = ["checkout", "template"]


def shallow(checkout: Checkout, tmp_path: Path, depth: int, *words: str) -> Path:
    """A shallow clone, as actions/checkout makes it."""
    folder = tmp_path / f"depth-{depth}"
    url = checkout.remote.as_uri()
    git(tmp_path, "clone", "--quiet", f"--depth={depth}", *words, url, str(folder))
    return folder


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("which", ["squash", "merge"])
def test_in_a_shallow_checkout_the_history_is_fetched_first(
    checkout: Checkout, invoke: Invoke, tmp_path: Path, depth: int, which: str
) -> None:
    """There git sees the oldest fetched commit as the first one, and reverting it would delete every file."""
    folder = shallow(checkout, tmp_path, depth)
    commit = getattr(checkout, which)
    done = revert(invoke, checkout, f"--commit={commit}", cwd=folder)

    assert done.returncode == 0, done.stderr
    changed = git(checkout.remote, "diff", "--name-only", "main", f"revert-{commit[:7]}").splitlines()
    assert changed == (["page.txt"] if which == "squash" else ["feature.txt", "migrations/V1__plan.sql"])


def test_a_history_that_cannot_be_fetched_is_refused(checkout: Checkout, invoke: Invoke, tmp_path: Path) -> None:
    """It is not known what the commit changed. Nothing is pushed, and a dry run says the same."""
    folder = shallow(checkout, tmp_path, 1)
    git(folder, "config", "remote.origin.url", str(tmp_path / "gone.git"))
    done = revert(invoke, checkout, cwd=folder)
    dry = revert(invoke, checkout, "--dry-run", cwd=folder)

    assert (done.returncode, dry.returncode) == (1, 2), done.stderr + dry.stderr
    assert "which is shallow" in dry.stderr
    assert "git fetch --unshallow" in dry.stderr
    assert git(checkout.remote, "branch", "--list") == "* main"


ODD = {"é ü.txt": "a", " leading and trailing ": "b", "new\nline.txt": "c", "quote\"'$x.txt": "d", "tab\there": "e"}


def test_odd_names_are_reverted_and_nothing_else(checkout: Checkout, invoke: Invoke) -> None:
    """Names that git would quote."""
    git(checkout.folder, "checkout", "--quiet", "--force", "main")
    for name, text in ODD.items():
        (checkout.folder / name).write_text(text)
    git(checkout.folder, "add", "--all", "--", *ODD)
    git(checkout.folder, "commit", "--quiet", "-m", "Odd names")
    git(checkout.folder, "push", "--quiet", "origin", "main")
    done = revert(invoke, checkout)

    assert done.returncode == 0, done.stderr
    branch = git(checkout.remote, "branch", "--list", "revert-*").strip()
    assert git(checkout.remote, "diff", "--name-only", "-z", checkout.squash, branch) == ""


HOSTILE = {
    "log.showSignature": "true",
    "core.quotePath": "true",
    "color.ui": "always",
    "revert.reference": "true",
    "diff.noprefix": "true",
    "diff.renames": "copies",
    "diff.external": "false",
    "merge.renames": "false",
    "core.autocrlf": "true",
    "core.attributesFile": "/nowhere",
    "format.pretty": "raw",
    "log.date": "relative",
    "i18n.logOutputEncoding": "latin1",
    "submodule.recurse": "true",
    "status.short": "true",
    "alias.revert": "!false",
    "core.pager": "false",
    "core.abbrev": "4",
    "diff.mnemonicPrefix": "true",
    "diff.submodule": "log",
    "fetch.recurseSubmodules": "true",
    "merge.conflictStyle": "diff3",
    "merge.ff": "only",
    "pull.rebase": "true",
    "push.default": "nothing",
    "push.followTags": "true",
    "push.recurseSubmodules": "only",
    "rerere.enabled": "true",
}
VARIABLES = {
    **dict.fromkeys(("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_EXTERNAL_DIFF"), "/nowhere"),
    **dict.fromkeys(("GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE"), "/nowhere"),
    "LC_ALL": "de_DE.UTF-8",
    "LANGUAGE": "de",
}


def test_the_users_git_configuration_does_not_change_the_result(
    checkout: Checkout, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do a language, variables such as GIT_DIR, which hooks set, or a commit that is replaced in this clone."""
    git(checkout.folder, "tag", "--annotate", "--message=x", "mine", checkout.merge)
    git(checkout.folder, "replace", checkout.squash, checkout.merge)
    for name, value in HOSTILE.items():
        git(checkout.folder, "config", "--global", name, value)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    done = revert(invoke, checkout, f"--commit={checkout.squash}")
    for name in VARIABLES:
        monkeypatch.delenv(name)

    assert done.returncode == 0, done.stderr
    # A push sends no tag of the user with the branch.
    assert git(checkout.remote, "tag") == ""
    branch = f"revert-{checkout.squash[:7]}"
    assert git(checkout.remote, "show", f"{branch}:page.txt") == "one"
    assert f"This reverts commit {checkout.squash}" in git(checkout.remote, "log", "-1", "--format=%B", branch)
    git(checkout.remote, "update-ref", "refs/heads/main", branch)
    git(checkout.remote, "branch", "--quiet", "-D", branch)
    git(checkout.folder, "branch", "--quiet", "-D", branch)
    again = revert(invoke, checkout, f"--commit={checkout.squash}")
    assert (again.returncode, "is already reverted on main" in again.stderr) == (2, True), again.stderr


@pytest.mark.parametrize("name", ["pre-push", "prepare-commit-msg"])
def test_a_hook_that_refuses_is_obeyed(checkout: Checkout, invoke: Invoke, name: str) -> None:
    """Its message is shown, and nothing is left over."""
    hook(checkout.folder, name, "echo 'not on Fridays' >&2; exit 1")
    before = checkout.state()
    done = revert(invoke, checkout)

    assert done.returncode == 2, done.stderr
    assert "not on Fridays" in done.stderr
    assert checkout.state() == before


def test_a_signed_commit_is_reverted(checkout: Checkout, invoke: Invoke) -> None:
    """Whoever's signature it is, also one that cannot be checked here; its message may look like a header."""
    git(checkout.folder, "checkout", "--quiet", "--force", "main")
    write(checkout.folder, "page.txt", "three\n", "Sign it")
    head, _, message = git(checkout.folder, "cat-file", "commit", "HEAD").partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ==\n -----END PGP SIGNATURE-----"
    raw = checkout.folder.with_name("raw")
    raw.write_text(f"{head}\n{signature}\n\n{message}\n\nparent {'0' * 40}\n")
    signed = git(checkout.folder, "hash-object", "-t", "commit", "-w", str(raw))
    git(checkout.folder, "push", "--quiet", "origin", f"{signed}:main")
    done = revert(invoke, checkout)

    assert done.returncode == 0, done.stderr
    assert git(checkout.remote, "show", f"revert-{signed[:7]}:page.txt") == "two"


@pytest.mark.parametrize("version", ["HEAD", "main~1", "--all", "v1"])
def test_a_version_that_is_no_hash_is_not_reverted(checkout: Checkout, invoke: Invoke, version: str) -> None:
    """git would take a name for a commit, and an answer must not choose one."""
    before = checkout.state()
    with stand_in(lambda *_: Reply(json.dumps({"version": version}).encode())) as site:
        done = revert(invoke, checkout, "--env=impl", **{"https://impl.mint.cms.gov": site.url})

    assert done.returncode == 2, done.stderr
    assert f"The healthcheck of impl returns {version!r}, which is not a commit's hash: give --commit." in done.stderr
    assert checkout.state() == before


def test_a_merge_of_three_branches_is_reverted(checkout: Checkout, invoke: Invoke) -> None:
    """Against its first parent, like any merge."""
    git(checkout.folder, "checkout", "--quiet", "--force", "main")
    for name in ("left", "right"):
        git(checkout.folder, "switch", "--quiet", "-c", name, "main")
        write(checkout.folder, f"{name}.txt", name, f"Add {name}")
    git(checkout.folder, "switch", "--quiet", "main")
    git(checkout.folder, "merge", "--quiet", "--no-ff", "left", "right", "-m", "Merge both")
    git(checkout.folder, "push", "--quiet", "origin", "main")
    done = revert(invoke, checkout)

    assert done.returncode == 0, done.stderr
    branch = git(checkout.remote, "branch", "--list", "revert-*").strip()
    assert git(checkout.remote, "diff", "--name-only", checkout.squash, branch) == ""


def test_a_partial_and_sparse_clone_is_enough(checkout: Checkout, invoke: Invoke, tmp_path: Path) -> None:
    """The revert is that of the whole repository, not only of the files in the checkout."""
    git(checkout.remote, "config", "uploadpack.allowFilter", "true")
    folder = tmp_path / "partial"
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", "--sparse", checkout.remote.as_uri(), str(folder))
    git(folder, "sparse-checkout", "set", "nothing")
    done = revert(invoke, checkout, f"--commit={checkout.merge}", cwd=folder)

    assert done.returncode == 0, done.stderr
    changed = git(checkout.remote, "diff", "--name-only", "main", f"revert-{checkout.merge[:7]}").splitlines()
    assert changed == ["feature.txt", "migrations/V1__plan.sql"]


def test_submodules_and_git_lfs_pointers_are_reverted(checkout: Checkout, invoke: Invoke, tmp_path: Path) -> None:
    """No submodule is fetched, and no LFS filter runs."""
    git(checkout.folder, "checkout", "--quiet", "--force", "main")
    git(
        checkout.folder,
        *("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(checkout.remote), "module"),
    )
    (checkout.folder / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (checkout.folder / "large.bin").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\n")
    git(checkout.folder, "add", "--all", "--", ".gitattributes", ".gitmodules", "module", "large.bin")
    git(checkout.folder, "commit", "--quiet", "-m", "Module and large file")
    git(checkout.folder, "push", "--quiet", "origin", "main")
    done = revert(invoke, checkout)

    assert done.returncode == 0, done.stderr
    branch = git(checkout.remote, "branch", "--list", "revert-*").strip()
    assert git(checkout.remote, "diff", "--name-only", checkout.squash, branch) == ""
