"""What every command shares: streams, environment, options, and where the server is.

Guarantees: commands reach the outside (environment, standard streams, time) through a `Session` only,
so tests pass their own. Finds the server as interface.md says: `--state` or `FACADE_STATE`, else
`./.facade`; `FACADE_URL`, else `STATE/url`, else http://127.0.0.1:8080; `FACADE_API_KEY`, else
`STATE/api-key`. A key never comes from the command line.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from facade.cli.usage import Usage
from facade.errors import Unavailable
from facade.secret import Secret
from facade.up.state import StateFolder

if TYPE_CHECKING:
    from facade.cli.client import Api

DEFAULT_STATE = ".facade"
DEFAULT_URL = "http://127.0.0.1:8080"
_MAX_SMALL_FILE = 1024 * 1024


@dataclass
class Session:
    """One run of the command.

    Arguments:
        environ: environment variables.
        as_json: stdout is exactly one JSON document.
        state: the value of `--state`, if given.
        assume_yes: the value of `--yes`.
        owns_process: this is the process's only session, so it may say where logs go.
    """

    environ: Mapping[str, str]
    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    as_json: bool = False
    state: Path | None = None
    assume_yes: bool = False
    owns_process: bool = False

    @property
    def state_dir(self) -> Path:
        """The folder that `facade up` keeps."""
        return self.state or Path(self.environ.get("FACADE_STATE") or DEFAULT_STATE)

    @property
    def folder(self) -> StateFolder:
        """What lies where in it."""
        return StateFolder(self.state_dir)

    @property
    def url(self) -> str:
        """Where the operator API is. What listens on every address is asked on loopback."""
        url = self.environ.get("FACADE_URL") or _content(self.folder.url) or DEFAULT_URL
        return _near(url).rstrip("/")

    @property
    def metrics_url(self) -> str | None:
        """Where the metrics port of the folder's facade is; None for a server elsewhere, or unknown."""
        elsewhere = self.environ.get("FACADE_URL")
        if elsewhere and elsewhere.rstrip("/") != _content(self.folder.url):
            return None
        return _near(_content(self.folder.metrics_url)) or None

    @property
    def api_key(self) -> Secret:
        """The operator's key. Raises Unavailable when there is none."""
        key = self.environ.get("FACADE_API_KEY") or _content(self.folder.api_key)
        if not key:
            raise Unavailable(
                f"There is no API key for {self.url} ({self.folder.api_key} is not there). Start "
                "a facade here with: facade up, point --state at its folder, or set FACADE_URL "
                "and FACADE_API_KEY."
            )
        return Secret(key)

    def api(self) -> "Api":
        """A client of the operator API. Raises Unavailable without a key."""
        from facade.cli.client import Api

        ca = self.state_dir / "server-ca.pem"
        return Api(self.url, self.api_key, ca_file=ca if ca.exists() else None)

    def read_secret(self, what: str, *, from_stdin: bool, option: str) -> Secret:
        """A secret from standard input, or from a prompt on a terminal; never from arguments.

        Raises Usage when neither is possible or what was read is empty.
        """
        if from_stdin:
            value = self.stdin.read(_MAX_SMALL_FILE).removesuffix("\n").removesuffix("\r")
        elif self.stdin.isatty():
            from getpass import getpass

            value = getpass(f"{what}: ", stream=self.stderr)
        else:
            raise Usage(f"Give the {what.lower()} on standard input, with {option}.")
        if not value:
            raise Usage(f"The {what.lower()} is empty; nothing was sent.")
        return Secret(value)

    def logs_to_stderr(self) -> None:
        """Before running library code here that may log: nothing but results goes to stdout."""
        if self.owns_process:
            from facade.observability.logs import configure

            configure("warning", "console", self.stderr)

    def confirm(self, question: str) -> None:
        """Ask on a terminal; without one, go ahead. Raises typer.Abort on no."""
        if self.assume_yes or not self.stdin.isatty():
            return
        typer.confirm(question, abort=True, err=True)


def _near(url: str) -> str:
    """A URL to ask: what listens on every address is asked on loopback."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _content(path: Path) -> str:
    """A small file's content, "" when it is not there. Raises Unavailable."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"{path} cannot be read.") from error


def session_of(ctx: typer.Context) -> Session:
    """The session of a command."""
    session = ctx.find_root().obj
    assert isinstance(session, Session)
    return session


def read_file(path: Path, what: str) -> str:
    """A small text file named on the command line. Raises Usage."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_SMALL_FILE + 1)
    except OSError as error:
        raise Usage(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Usage(f"The {what} {path} is no text file.") from error
    if len(text) > _MAX_SMALL_FILE:
        raise Usage(f"The {what} {path} is larger than {_MAX_SMALL_FILE} bytes.")
    return text


def _note_json(ctx: typer.Context, value: bool) -> bool:
    session = session_of(ctx)
    session.as_json = session.as_json or value
    return value


def _note_state(ctx: typer.Context, value: Path | None) -> Path | None:
    if value is not None:
        session_of(ctx).state = value
    return value


def _note_yes(ctx: typer.Context, value: bool) -> bool:
    session_of(ctx).assume_yes = value
    return value


AsJson = Annotated[
    bool, typer.Option("--json", callback=_note_json, help="Print exactly one JSON document.")
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        callback=_note_state,
        metavar="DIR",
        help="Folder of `facade up` (FACADE_STATE; default ./.facade).",
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", callback=_note_yes, help="Do not ask on a terminal.")
]


def example(*lines: str) -> str:
    """The epilog of a command's help."""
    return "Example:  " + "\n\n          ".join(lines)
