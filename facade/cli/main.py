"""Entry point of the `facade` command: builds the commands, turns failures into exit codes.

Guarantees: exit 0 for success, 1 for a failure, 2 for a usage error, 130 after Ctrl-C; a failure is one
line on stderr that says what to do, never a traceback; with `--json` a failure's body is the one
document on stdout. Only the modules of the command that is run are loaded.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any

import typer

from facade import __version__
from facade.app.unwanted import no_plugins
from facade.cli.output import clean, document, note
from facade.cli.session import Session, session_of
from facade.cli.usage import Usage
from facade.errors import FacadeError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


NOUNS = (
    *("registry", "artifact", "fleet", "device", "trust", "cache", "apikey", "sealing", "config"),
)
"""Each is a module of its name, with commands below it."""
MODULES: Mapping[str, str] = MappingProxyType(
    {
        "up": "run",
        "demo": "run",
        "pull": "pull",
        "runtime-config": "runtime_config",
        "audit": "records",
        "pulls": "records",
        "doctor": "doctor",
        **{noun: noun for noun in NOUNS},
    }
)
"""By a command's first word, the module that adds it."""


def build(word: str | None = None) -> typer.Typer:
    """All commands; given one's first word, only those of its module: the others are not loaded."""
    app = typer.Typer(
        name="facade",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    only = MODULES.get(word or "")
    for name in dict.fromkeys(MODULES.values()) if only is None else [only]:
        module: Any = import_module(f"facade.cli.{name}")
        if name in NOUNS:
            app.add_typer(module.build(), name=name)
        else:
            module.add(app)
    return app


def _show_version(session_context: typer.Context, value: bool) -> None:
    if value:
        from facade.serving.identity.openssl import library

        words = f"facade {__version__}, devices' TLS by {library()}\n"
        session_of(session_context).stdout.write(words)
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """The device-facing door of a fleet-update platform.

    Signed, verified, cached container image pulls over mutual TLS.
    """


def main(argv: Sequence[str] | None = None, session: Session | None = None) -> int:
    """Run one command and give its exit code.

    Arguments:
        argv: arguments without the program's name; None = the process's.
        session: where to read and write; None = the process's.
    """
    session = session or Session(environ=os.environ, owns_process=True)
    if session.owns_process:
        no_plugins()  # typer imports pydantic for every option
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = typer.main.get_command(build(arguments[0] if arguments else None)).main(
            args=arguments,
            prog_name="facade",
            standalone_mode=False,
            obj=session,
        )
    except typer.TyperException as error:
        # Parsing stopped before it came to every option.
        session.as_json = session.as_json or "--json" in arguments
        return _usage(session, error)
    except typer.Abort:
        note(session, "facade: stopped; nothing more was done.")
        return FAILED
    except KeyboardInterrupt:
        return _interrupted(session)
    except FacadeError as error:
        return _failed(session, error)
    except BrokenPipeError:
        # Whoever read our output has enough; leave nothing for the interpreter to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if code == INTERRUPTED:
        return _interrupted(session)
    return code if isinstance(code, int) else OK


def _usage(session: Session, error: typer.TyperException) -> int:
    message = error.format_message().replace("Value error, ", "")
    if "\n" in message:  # the help text itself, for a noun without a command
        note(session, message)
        return USAGE
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "facade"
    end = "" if message.endswith((".", "?", "!")) else "."
    sentence = f"{clean(message)}{end} See: {path} --help"
    if session.as_json:
        document(session, {"error": sentence})
    note(session, f"facade: {sentence}")
    return error.exit_code


def _failed(session: Session, error: FacadeError) -> int:
    from facade.cli.client import ApiError

    if session.as_json:
        document(session, error.body if isinstance(error, ApiError) else {"error": error.message})
    lines = error.message.splitlines() or [type(error).__name__]
    note(session, "\n".join(clean(text) for text in (f"facade: {lines[0]}", *lines[1:])))
    return USAGE if isinstance(error, Usage) else FAILED


def _interrupted(session: Session) -> int:
    note(session, "facade: interrupted.")
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
