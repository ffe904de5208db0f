"""What is copied into an application's repository, and that everything that is the application's stays as it is."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts import adopt
from scripts.adopt import BEGIN, END, GITHUB, IGNORED, RECORD, SETTINGS, Adopted, Adoption
from scripts.frame import settings, stop
from scripts.frame.errors import DeployError, Refused
from scripts.frame.run import Run
from tests.conftest import ROOT, git

OWN = '[application]\nname = "shop"\nmain_branch = "trunk"\n[defaults]\nregion = "eu-west-1"\n[environments.live]\n'


def sha256(content: bytes) -> str:
    """As a record has it."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """An application's folder, with its own settings."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / SETTINGS).write_text(OWN)
    return folder


def record(folder: Path, files: Mapping[str, bytes]) -> None:
    """What an earlier run has copied: path -> content."""
    (folder / RECORD).write_text(json.dumps({"files": {path: sha256(content) for path, content in files.items()}}))


def recorded(contents: Mapping[str, bytes]) -> dict[str, str]:
    """The record that is going to be written."""
    return dict(json.loads(contents[RECORD])["files"])


def planned(folder: Path, **files: bytes) -> tuple[Adoption, dict[str, bytes]]:
    """The plan for these files of ours, with the content of what it writes."""
    return adopt.plan(folder, {name.replace("_", "."): content for name, content in files.items()}, False)


@pytest.mark.parametrize(
    ("there", "known", "kept", "known_then"),
    [
        (None, None, "", b"new"),
        (None, b"old", "", b"new"),
        (b"old", b"old", "", b"new"),
        (b"new", None, "", b"new"),
        (b"new", b"old", "", b"new"),
        (b"new", b"new", "", b"new"),
        (b"changed", b"old", "tasks.py: it was changed here", b"old"),
        (b"changed", b"new", "tasks.py: it was changed here", b"new"),
        (b"theirs", None, "tasks.py: it is not from here", None),
        (b"old", None, "tasks.py: it is not from here", None),
    ],
)
def test_a_file_is_replaced_unless_it_is_theirs(
    there: bytes | None, known: bytes | None, kept: str, known_then: bytes | None, theirs: Path
) -> None:
    """there: what it is now. known: what an earlier run has copied. What is the same already is not written."""
    if there is not None:
        (theirs / "tasks.py").write_bytes(there)
    if known is not None:
        record(theirs, {"tasks.py": known})
    decided, contents = planned(theirs, tasks_py=b"new")

    assert decided.kept == ((kept,) if kept else ())
    assert contents.get("tasks.py") == (None if kept or there == b"new" else b"new")
    assert recorded(contents) == ({"tasks.py": sha256(known_then)} if known_then else {})
    assert decided.write == {path: len(content) for path, content in contents.items()}


@pytest.mark.parametrize(("there", "removed"), [(b"old", True), (b"changed", False), (None, False)])
def test_what_is_no_longer_ours_is_removed_unless_they_changed_it(
    there: bytes | None, removed: bool, theirs: Path
) -> None:
    """What is still ours is never removed, and nobody's other files either."""
    (theirs / "tasks.py").write_bytes(b"new")
    (theirs / "main.go").write_bytes(b"old")
    if there is not None:
        (theirs / "gone.py").write_bytes(there)
    record(theirs, {"tasks.py": b"new", "gone.py": b"old"})
    decided, contents = planned(theirs, tasks_py=b"new")

    assert decided.remove == (("gone.py",) if removed else ())
    assert set(recorded(contents)) == {"tasks.py"}


def test_a_second_run_changes_nothing(theirs: Path) -> None:
    """Not even the record."""
    decided, contents = planned(theirs, tasks_py=b"new")
    done = adopt.act(contents, decided)
    again, nothing = planned(theirs, tasks_py=b"new")

    assert (done.written, done.removed) == (5, 0)
    assert set(contents) == {"tasks.py", RECORD, ".gitignore", ".dockerignore", "Makefile"}
    assert (again.write, again.remove, nothing) == ({}, (), {})


@pytest.mark.parametrize(
    "outside",
    ["../x", "a/../../x", "/x", "a/..", "..", ".", "./x", "a/./x", "", "a\\x", "a\0x", "x" * 501],
    ids=lambda outside: outside[:9],
)
def test_a_record_that_names_something_else_than_a_file_below_the_repository_is_refused(
    outside: str, theirs: Path
) -> None:
    """What it names is removed once it is no longer ours."""
    record(theirs, {outside: b"x"})

    with pytest.raises(Refused, match=r"\.deployment\.json is damaged: .* Restore it with git\."):
        planned(theirs)


@pytest.mark.parametrize(
    "named", ["..x", "a/..x", "a/x..", ".x", "x" * 300, "a b/\u00e9.py"], ids=lambda name: name[:6]
)
def test_any_other_name_is_a_file_of_the_record(named: str, theirs: Path) -> None:
    """Also one that no file can have: it is not there."""
    record(theirs, {named: b"x"})

    assert planned(theirs)[0].remove == ()


BLOCK = "\n".join((BEGIN, *IGNORED, END, ""))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, BLOCK),
        (b"", BLOCK),
        (b"/build", f"/build\n{BLOCK}"),
        (b"/build\n", f"/build\n{BLOCK}"),
        (f"/build\n{BEGIN}\n.venv/\n{END}\n/dist\n".encode(), f"/build\n{BLOCK}/dist\n"),
        (f"/build\n{BEGIN}\n.venv/\n{END}".encode(), f"/build\n{BLOCK}"),
        (f"{BEGIN}\n/dist\n".encode(), f"{BEGIN}\n/dist\n{BLOCK}"),
        (f"{BEGIN}\n/dist\n{BLOCK}/x\n".encode(), None),
        (f"/build\n{BLOCK}/dist\n".encode(), None),
        (b"/build\r\n", f"/build\n{BLOCK}".replace("\n", "\r\n")),
        (f"{BEGIN}\n.venv/\n{END}\n/dist\n".replace("\n", "\r\n").encode(), f"{BLOCK}/dist\n".replace("\n", "\r\n")),
        (b"/caf\xe9\n", f"/caf\udce9\n{BLOCK}"),
    ],
    ids=[
        "no file",
        "empty",
        "without a line break at its end",
        "a last line",
        "an old block between theirs",
        "an old block at the end",
        "a block that does not end",
        "our block after one that does not end",
        "our block",
        "the line breaks of Windows",
        "an old block with the line breaks of Windows",
        "another encoding",
    ],
)
def test_our_block_is_all_that_changes_in_a_file_of_theirs(
    before: bytes | None, after: str | None, theirs: Path
) -> None:
    """It stays where an earlier run has put it. None: the file is not written."""
    if before is not None:
        (theirs / ".gitignore").write_bytes(before)

    written = planned(theirs)[1].get(".gitignore")

    assert written == (None if after is None else after.encode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("makefile", "taken"),
    [
        ("", ""),
        ("build:\n\tgo build\n", ""),
        ("test:\n\tgo test\n", "test"),
        ("setup deploy:\n\tx\ndeploy : setup\n\tx\n", "deploy"),
        ("setup:\ntest:\ndeploy:\n", "deploy, setup, test"),
        ("test := yes\ndeploy=no\n.PHONY: test\n\ttest: x\n", ""),
        ("test-all:\n\tx\n", ""),
        (f"build:\n\tx\n{BEGIN}\ntest:\n{END}\n", ""),
    ],
)
def test_a_makefile_gets_our_targets_unless_it_has_such_ones(makefile: str, taken: str, theirs: Path) -> None:
    """Then it stays as it is, and it is said how to reach ours."""
    if makefile:
        (theirs / "Makefile").write_text(makefile)
    decided, contents = planned(theirs)

    assert decided.kept == ((f"Makefile: it has the targets {taken}",) if taken else ())
    assert [what for what in decided.to_do if what.startswith("Makefile: use `make -f deployment.mk")] == (
        [decided.to_do[1]] if taken else []
    )
    written = contents.get("Makefile", b"").decode()
    assert written.endswith("" if taken else f"{BEGIN}\ninclude deployment.mk\n{END}\n")
    assert bool(written) is not bool(taken)


@pytest.mark.parametrize(
    ("before", "indented"),
    [
        ("repos:\n  - repo: x\n    hooks: []\n", "  "),
        ("fail_fast: true\nrepos:\n- repo: x\n  hooks: []\n- repo: y\n", ""),
        ("repos:\n  - repo: x\nfail_fast: true\n", None),
        ("repos: []\n", None),
        ("fail_fast: true\n", None),
        ("x\n", None),
    ],
)
def test_a_hook_is_added_at_the_end_of_the_list_of_hooks(before: str, indented: str | None, theirs: Path) -> None:
    """Indented as theirs are; where the list is not at the end, a person has to do it."""
    (theirs / ".pre-commit-config.yaml").write_text(before)
    decided, contents = planned(theirs)

    after = contents.get(".pre-commit-config.yaml", b"").decode()
    if indented is None:
        assert (after, decided.to_do[1]) == ("", ".pre-commit-config.yaml: add a hook for `make test-deployment`")
    else:
        assert after.startswith(f"{before}{BEGIN}\n{indented}- repo: local\n{indented}  hooks:\n")
        assert decided.to_do == (GITHUB,)
    (theirs / ".pre-commit-config.yaml").write_text(after or before)
    assert ".pre-commit-config.yaml" not in planned(theirs)[1]


def test_without_hooks_of_their_own_they_get_none(theirs: Path) -> None:
    """Not everybody has pre-commit."""
    decided, contents = planned(theirs)

    assert ".pre-commit-config.yaml" not in contents
    assert decided.to_do == (GITHUB,)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (OWN, []),
        (
            OWN + 'region = "us-west-2"\n',
            ["the workflows: aws-region, of which the settings have eu-west-1, us-west-2"],
        ),
        (None, ["environments.toml is the example: write the application's own values, or use --from-scripts"]),
    ],
)
def test_what_a_person_has_to_do_about_the_settings(own: str | None, said: list[str], theirs: Path) -> None:
    """Settings that are there stay; without any the application gets an example."""
    (theirs / SETTINGS).unlink()
    if own is not None:
        (theirs / SETTINGS).write_text(own)
    decided, contents = planned(theirs)

    assert decided.to_do == (GITHUB, *said)
    assert contents.get(SETTINGS) == (None if own else (ROOT / SETTINGS).read_bytes())


def test_settings_that_are_there_are_not_read_from_scripts(theirs: Path) -> None:
    """Those that were read may have been corrected since."""
    decided, contents = adopt.plan(theirs, {}, True)

    assert SETTINGS not in contents
    assert decided.to_do == (GITHUB,)


@pytest.mark.parametrize("own", [b"\xff", b"[application"], ids=["no text", "no TOML"])
def test_settings_that_cannot_be_read_are_refused(own: bytes, theirs: Path) -> None:
    """The workflows follow from them."""
    (theirs / SETTINGS).write_bytes(own)

    with pytest.raises(Refused, match=r"environments\.toml cannot be read"):
        planned(theirs)


@pytest.mark.parametrize("pinned", [True, False])
def test_a_workflow_gets_their_values_and_nothing_else_does(pinned: bool, theirs: Path) -> None:
    """Node's version comes from package.json where no .nvmrc says it."""
    if pinned:
        (theirs / ".nvmrc").write_text("20\n")
    text = b"aws-region: us-west-2\nnode-version-file: .nvmrc\n"
    _, contents = adopt.plan(theirs, {".github/workflows/x.yml": text, "scripts/x.py": text}, False)

    node = ".nvmrc" if pinned else "package.json"
    assert contents[".github/workflows/x.yml"].decode() == f"aws-region: eu-west-1\nnode-version-file: {node}\n"
    assert contents["scripts/x.py"] == text


@pytest.mark.parametrize(
    ("path", "there", "said"),
    [
        ("scripts/x.py", "scripts", r"scripts/x\.py cannot be written: File exists\."),
        ("scripts/deep/x.py", "scripts", r"scripts/deep/x\.py cannot be written: Not a directory\."),
        ("x.py", "x.py/", r"x\.py' is not a regular file and was not overwritten\."),
    ],
)
def test_a_file_that_cannot_be_written_is_a_failure(path: str, there: str, said: str, theirs: Path) -> None:
    """It is not a refusal: other files may have been written."""
    (theirs / there).mkdir() if there.endswith("/") else (theirs / there).touch()

    with pytest.raises(DeployError, match=said) as error:
        adopt.act({path: b"x"}, Adoption(str(theirs), {path: 1}, (), (), ()))

    assert error.value.code == 1


def test_what_is_removed_may_be_gone_and_has_to_be_a_file(theirs: Path) -> None:
    """A folder in its place is a failure."""
    (theirs / "old.py").touch()
    done = adopt.act({}, Adoption(str(theirs), {}, ("old.py", "gone.py"), (), ()))
    (theirs / "old.py").mkdir()

    assert done.removed == 2
    with pytest.raises(DeployError, match=r"old\.py cannot be removed: "):
        adopt.act({}, Adoption(str(theirs), {}, ("old.py",), (), ()))


def test_a_plan_and_its_result_say_what_is_kept_and_left_to_do() -> None:
    """In lines, and on stdout as a table."""
    decided = Adoption("/shop", {"b": 2000, "a": 1}, ("c",), ("d: why",), ("e", "f"))
    adopted = Adopted("/shop", 2, 1, ("d: why",), ("e", "f"))
    quiet = Adopted("/shop", 0, 0, (), ())

    assert decided.describe() == [
        "write a (1 bytes)",
        "write b (2,000 bytes)",
        "remove c",
        "keep d: why",
        "to do: e",
        "to do: f",
    ]
    assert adopted.line() == "/shop has the deployment commands: 2 files written, 1 removed; 2 things are left to do"
    assert adopted.table() == [("WHAT", ""), ("kept", "d: why"), ("to do", "e"), ("to do", "f")]
    assert quiet.line() == "/shop has the deployment commands: 0 files written, 0 removed"
    assert quiet.table() == []


def test_the_commands_and_what_they_need_are_copied() -> None:
    """To deploy, and to rehearse that: no tests, and not this project's own settings."""
    ours = adopt.ours()

    needed = {"tasks.py", "deployment.mk", "scripts/adopt.py", ".github/actions/setup/action.yml"}
    needed |= {"ecs_manager/handler.py", "local_aws/server.py", "examples/backend/Dockerfile"}
    needed |= {f"requirements{name}.{ending}" for name in ("", "-dev") for ending in ("in", "txt")}
    needed |= {f".github/workflows/{name}.yml" for name in ("deploy", "frontend", "operate")}
    assert needed <= set(ours)
    assert not {SETTINGS, "Makefile", "README.md", ".github/workflows/build.yml", ""} & set(ours)
    assert not [path for path in ours if path.startswith("tests/") or "__pycache__" in path]
    assert ours["tasks.py"] == (ROOT / "tasks.py").read_bytes()


def test_only_what_git_knows_and_has_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that somebody has begun here, and nothing that somebody has removed."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/a b.py", "scripts/gone.py", "main.go"):
        (tmp_path / name).write_text(name)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    (tmp_path / "scripts/gone.py").unlink()
    (tmp_path / "scripts/new.py").touch()
    monkeypatch.setattr(adopt, "ROOT", tmp_path)

    assert adopt.ours() == {"scripts/a b.py": b"scripts/a b.py"}


def test_what_the_commands_make_is_neither_committed_nor_in_an_image(theirs: Path) -> None:
    """Nor is in an image what only a deployment needs."""
    git(theirs, "init", "--quiet")
    decided, contents = planned(theirs)
    adopt.act(contents, decided)
    made = (".venv", ".local", "scripts/__pycache__", "examples/frontend/build", "examples/frontend/storybook-static")
    for folder in (*made, "build"):
        (theirs / folder).mkdir(parents=True)
        (theirs / folder / "x").touch()

    shown = git(theirs, "status", "--porcelain", "--untracked-files=all").splitlines()
    assert [line[3:] for line in shown if line.endswith("/x")] == ["build/x"]
    only_here = {".venv", ".local", "**/__pycache__", "deployment.mk", SETTINGS, "local_aws", "ecs_manager", "examples"}
    assert only_here <= set((theirs / ".dockerignore").read_text().splitlines())


@pytest.mark.parametrize("into", [None, "", "/nowhere", "plain", str(ROOT), "x" * 300])
def test_only_the_top_folder_of_another_repository_is_adopted_into(
    into: str | None, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read."""
    monkeypatch.chdir(theirs)
    os.mkdir("plain")
    run = Run("adopt", settings.environment("local"))

    with pytest.raises(Refused, match="is missing" if not into else "is not the top folder of another git repository"):
        adopt.adopt(run, into=into)

    assert run.steps == []


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_command_copies_and_says_what_is_left_to_do(
    dry_run: bool, theirs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run only says what it would do."""
    monkeypatch.setattr(adopt, "ours", lambda: {"scripts/deep/x.py": b"ours"})
    git(theirs, "init", "--quiet")
    run = Run("adopt", settings.environment("local"), dry_run=dry_run)

    adopted = adopt.adopt(run, into=str(theirs))

    told = f"to do: {GITHUB}"
    lines = capsys.readouterr().err.splitlines()
    if dry_run:
        assert adopted is None
        assert f"  would {told}" in lines
    else:
        assert adopted == Adopted(str(theirs), 5, 0, (), (GITHUB,))
        assert lines == [told]
    assert (theirs / "scripts/deep/x.py").is_file() is not dry_run
    assert stop.exit_code() == (2 if dry_run else 3)
