"""How tasks.py declares a command: a function without a body, whose parameters are the command's own flags.

`command` turns it into an Invoke task, which also has the four flags of every command. mypy checks that the function
that does the work takes exactly the declared flags. Its module is imported only when the command runs, because
`invoke --list` and completion have to be quick.

Every parameter has a default: one without would be positional, and swallow --help and --dry (pyinvoke/invoke#1084).
There are no short flags, because they would take -e and -h from Invoke itself.
"""

import atexit
import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeAlias

from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.tasks import Task, task

from scripts.frame import errors, stop
from scripts.frame.errors import Refused

if TYPE_CHECKING:
    from scripts.frame.run import Run

P = ParamSpec("P")
Text: TypeAlias = str | None

# What a command imports stays in use: to look for cycles after every 700 new objects takes time, and finds none.
gc.set_threshold(20_000)
# A process that ends looks for cycles in all that it has loaded: a fifth of the time of a short command.
atexit.register(gc.freeze)


class _Flag(NamedTuple):
    help: str
    default: Any


def flag(help: str) -> Any:
    """A flag that takes a text; None if it is not given."""
    return _Flag(help, None)


def switch(help: str) -> Any:
    """A flag that takes no value; False if it is not given."""
    return _Flag(help, False)


class Command(NamedTuple):
    """A declared command. name: with its collection, such as release.list."""

    name: str
    task: "Task[Any]"


COMMON = {
    "env": flag("Environment: dev, impl, prod or local. Default: $APP_ENV, else local; in CI there is no default."),
    "dry_run": switch("Print what would be done and change nothing; needs no credentials and no network."),
    "yes": switch("Do not ask for a confirmation, which prod otherwise needs."),
    "json": switch("Print one JSON document on stdout: the plan, and the result of a run."),
}
# Of the commands that hold the environment's lock. They are kept in the run, where the lock reads them.
LOCK = {
    "force_lock": switch("Take over the environment's lock. Only if you know that its holder is dead."),
    "lock_wait": flag("Seconds to wait while somebody else holds the environment's lock. Default: 0."),
}

# Of several commands.
FUNCTION = flag("Name of the ecs-manager Lambda. Default: from the settings.")
QUALIFIER = flag("Version or alias of the Lambda. Default: from the settings, or $LATEST with --function-name.")
VIA = flag("lambda: call the ecs-manager Lambda; ecs: call ECS directly. Default: from the settings.")
TAG = flag("Tag of the image. Default: $GITHUB_SHA, else the checked-out commit.")
DIGEST = flag("Digest of the image, sha256:…, instead of its tag.")
BUCKET = flag("Bucket of the releases. Default: $STATIC_S3_BUCKET_<ENV>, $STATIC_S3_BUCKET, or the settings.")
TARGET = flag("Bucket to release to. Default: $STATIC_S3_BUCKET_<ENV>, $STATIC_S3_BUCKET, or the settings.")
WAIT = switch("Wait until CloudFront has completed the invalidation.")
SCENARIO = flag("What is to go wrong in it: a name in docs/runbook.md, or healthy to end that.")
REHEARSED = flag("Only this one: a name in docs/runbook.md. Default: all of them, in about two minutes.")
SITE = flag("URL of the site: fetch its files there too.")
RELEASE = flag("Release to go back to. Default: the newest earlier one that was not rolled back from.")
URI = flag("Full URI of the image, instead of --tag.")
BUILD_DIR = flag("Folder of the built frontend. Default: from the settings.")
FOLDER = flag("Folder to release. Default: from the settings.")
ALLOW_MISSING = flag("Patterns, separated by commas, of files that pages need and that may be missing in the build.")
STORYBOOK = flag("Bucket to release to. Default: $STORYBOOK_S3_BUCKET_<ENV>, $STORYBOOK_S3_BUCKET, or the settings.")
PORT = flag("Port on 127.0.0.1. Default: from the settings. Set AWS_ENDPOINT_URL so that other commands use it.")
HTML = flag("HTML file to write instead: a page with the runs of all environments.")
SUPERSEDE = switch("Deploy although a rollout of somebody else is in progress, which then ends.")
REMOVE = switch("Remove the secrets that no SSM parameter stands for.")


def command(
    work: Callable[[], Callable[Concatenate["Run", P], object]],
    *,
    name: str = "",
    changes: bool = True,
    application: bool = False,
    embedded: bool = True,
    locks: bool = False,
    asks: bool = False,
    env: str | None = None,
) -> Callable[[Callable[P, None]], Command]:
    """Declare a command. work: imports and returns the function that does the work. name: if it is not the declared
    function's own. changes, application, embedded, asks: see `running`. locks: whether it has the flags of the lock.
    env: the environment if --env is not given.
    """

    def declare(declared: Callable[P, None]) -> Command:
        title = name or declared.__name__.replace("_", "-")
        own = {key: parameter.default for key, parameter in inspect.signature(declared).parameters.items()}

        def body(invoke_context: Any, /, **given: Any) -> None:
            from scripts.frame.run import running

            flags: Any = {key: given[key] for key in own}
            with running(
                title,
                env if given["env"] is None else given["env"],
                dry_run=given["dry_run"] or bool(invoke_context.config.run.dry),
                yes=given["yes"],
                json=given["json"],
                changes=changes,
                application=application,
                embedded=embedded,
                asks=asks,
                **{key: given[key] for key in LOCK if locks},
            ) as run:
                # mypy has compared the two signatures where the command is declared.
                do: Any = work()
                do(run, **flags)

        flags = {"env": COMMON["env"], **own, **(LOCK if locks else {}), **COMMON}
        keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(key, keyword, default=value.default) for key, value in flags.items()]
        body.__signature__ = inspect.Signature([inspect.Parameter("invoke_context", keyword), *parameters])  # type: ignore[attr-defined]
        body.__doc__ = declared.__doc__
        explained = {key: value.help for key, value in flags.items()}
        last = title.rpartition(".")[2]
        return Command(title, task(name=last, help=explained, auto_shortflags=False)(body))

    return declare


def namespace_of(declared: Iterable[object]) -> Collection:
    """A collection for Invoke of the commands among some objects: of those that the command line names, where it names
    any, because Invoke copies every flag of all that it gets. Raises Refused for an unknown task or flag.
    """
    commands = [one for one in declared if isinstance(one, Command)]
    program = _running_program()
    if program:
        _keep_bytecode("tasks")
    return _collection(_asked_for(commands, program) if program else commands)


def _keep_bytecode(name: str) -> None:
    """Keep the bytecode of the module that Invoke loads while caches are off, unless it is kept already."""
    spec: Any = getattr(sys.modules.get(name), "__spec__", None)
    if sys.dont_write_bytecode or not (spec and spec.cached):
        return
    with suppress(OSError):
        if os.path.getmtime(spec.cached) >= os.path.getmtime(spec.origin):
            return
    spec.loader.get_code(name)


def _collection(commands: Iterable[Command]) -> Collection:
    whole, subs = Collection(), dict[str, Collection]()
    for one in commands:
        group = one.name.rpartition(".")[0]
        where = subs.setdefault(group, Collection(group)) if group else whole
        where.add_task(one.task)
    for sub in subs.values():
        whole.add_collection(sub)
    return whole


def _contexts(commands: Sequence[Command]) -> list[Any]:
    """What Invoke's parser takes. Making it removes the help texts, which Invoke needs again."""
    helps = [dict(one.task.help) for one in commands]
    found = _collection(commands).to_contexts()
    for one, texts in zip(commands, helps, strict=True):
        one.task.help = texts
    return list(found)


def _running_program() -> Any:
    """Invoke's program if it is running; None if a test or a tool imports tasks.py."""
    from invoke.main import program

    return program if hasattr(program, "core") else None


def _asked_for(commands: Sequence[Command], program: Any) -> Sequence[Command]:
    """The commands that the command line is about: those that it names, or all for a list, a help or a completion.

    Parses the command line before Invoke does, so that `a_b` works as well as `a-b` and an unknown name exits with 2:
    Invoke itself accepts only dashes and exits with 1. Raises Refused, with the nearest name.
    """
    words, asked, names = program.core.unparsed, program.args, [one.name for one in commands]
    for number, word in enumerate(words):
        if word.replace("_", "-") in names:
            words[number] = word.replace("_", "-")
    wanted = asked.help.value.replace("_", "-") if isinstance(asked.help.value, str) else None
    if wanted in names:
        asked.help.set_value(wanted)
    if not (words or asked.list.value or asked.complete.value or asked.help.value):
        asked.list.set_value(True, cast=False)
    named = [one for one in commands if one.name in words]
    try:
        Parser(contexts=_contexts(named), initial=program.initial_context).parse_argv(list(words))
        if wanted is not None and wanted not in names:
            raise ParseError(f"No idea what {asked.help.value!r} is!")
    except ParseError as error:
        raise Refused(_said(str(error), [*_contexts(commands), program.initial_context])) from error
    return commands if asked.list.value or asked.complete.value or asked.help.value else named


def _said(problem: str, contexts: Iterable[Any]) -> str:
    """Invoke's message as a sentence, with the known name that is nearest to the unknown one."""
    import difflib

    if "needed value" in problem:
        return f"--{problem.partition(': ')[2].partition('>')[0].split()[0]} needs a value."
    unknown = problem.partition("'")[2].rpartition("'")[0].partition("=")[0]
    if not unknown:
        return problem
    known = [name for context in contexts for name in (context.name, *context.flags) if name]
    if unknown in known:
        return f"{unknown} belongs after the task: `invoke TASK {unknown}`."
    close = difflib.get_close_matches(unknown.replace("_", "-"), known, n=1)
    hint = f"Did you mean {close[0]}?" if close else "`invoke --list` shows all tasks, `invoke TASK --help` its flags."
    return f"{unknown!r} is not a task or a flag. {hint}"


def _open_streams() -> None:
    """Replace a standard stream that the parent has closed: print() takes stdout in place of a stderr that is None, and
    the next file that is opened would take its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)
            setattr(sys, name, open(null, mode))  # noqa: SIM115


if _running_program():
    _open_streams()
    stop.listen()
    errors.hook_tracebacks()
