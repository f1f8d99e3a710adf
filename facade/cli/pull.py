"""`facade pull`: the reference device client on the command line.

Guarantees: trusts only the files named; what it verified last is remembered beside the pinned root (or in
`--metadata-dir`), so that the next pull cannot be rolled back.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self
from urllib.parse import urlsplit

import typer

from facade.cli.output import clean, document, line, note, size
from facade.cli.session import AsJson, Session, State, example, session_of
from facade.cli.usage import Usage, argument
from facade.target import parse_artifact_path

if TYPE_CHECKING:
    from facade.device_client.client import Step

_SHORT_DIGEST_CHARS = len("sha256:") + 12


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "pull",
        epilog=example(
            "facade pull dev/app/v1.2 --url https://facade.example:8443 --cert client.cert "
            "--key client.key --ca ca.crt --root root.json -o app.oci"
        ),
    )(pull)


def pull(
    ctx: typer.Context,
    artifact: Annotated[
        str, typer.Argument(metavar="FLEET/NAME/VERSION", help="like dev/app/v1.2")
    ],
    *,
    url: Annotated[str, typer.Option(metavar="URL", help="the device port, https://HOST:PORT")],
    cert: Annotated[Path, typer.Option(metavar="FILE", help="the device's certificate")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="its key")],
    ca: Annotated[Path, typer.Option(metavar="FILE", help="CA of the facade's certificate")],
    root: Annotated[Path, typer.Option(metavar="FILE", help="the pinned root.json")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="OCI image layout to write")
    ],
    platform: Annotated[
        str | None,
        typer.Option(metavar="P", help="like linux/arm64, or all; default: this machine's"),
    ] = None,
    metadata_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="remembers verified metadata; default: beside --root"),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Pull a signed artifact as a device: metadata verified from its own root, then every byte.

    A broken pull is taken up where it stopped when it is run again.
    """
    import asyncio

    from facade.device_client.client import ALL_PLATFORMS, DeviceClient
    from facade.device_client.session import Endpoint
    from facade.oci.platform import Platform

    session = session_of(ctx)
    session.logs_to_stderr()
    argument(parse_artifact_path, artifact)
    if platform not in (None, ALL_PLATFORMS):
        argument(Platform.parse, str(platform))
    with _Progress(session) as progress:
        client = DeviceClient(
            Endpoint(url, cert, key, ca),
            root=_read_root(root),
            metadata_dir=metadata_dir or root.parent / _memory_of(url),
            progress=progress.step,
        )
        pulled = asyncio.run(client.pull(artifact, output, platform=platform))
    body = {
        "target": pulled.target.path,
        "digest": str(pulled.target.digest),
        "manifest": str(pulled.manifest),
        "platform": pulled.platform,
        "folder": str(pulled.folder),
        "fetched": pulled.fetched,
        "reused": pulled.reused,
    }
    if session.as_json:
        document(session, body)
        return
    line(session, f"{pulled.target.path} is {pulled.target.digest}")
    line(
        session,
        f"{pulled.folder}: OCI image layout for {pulled.platform}, every byte verified "
        f"({size(pulled.fetched)} fetched, {size(pulled.reused)} were there)",
    )


def _read_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Usage(f"The pinned root {path} cannot be read: {error.strerror}.") from error


def _memory_of(url: str) -> str:
    """The folder that remembers one facade's metadata."""
    place = "".join(c if c.isalnum() or c in ".-" else "_" for c in urlsplit(url).netloc)
    return f"verified-{place}"


class _Progress:
    """A bar of bytes on a terminal, a line per finished object in a pipe; both on stderr."""

    def __init__(self, session: Session) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        self._session = session
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            console=Console(file=session.stderr),
            transient=True,
            disable=not session.stderr.isatty(),
        )
        self._task = self._bar.add_task("reading signed metadata", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, step: "Step") -> None:
        """Show how far it is."""
        name = clean(step.digest)[:_SHORT_DIGEST_CHARS]
        if not self._bar.disable:
            self._bar.update(self._task, description=name, completed=step.done, total=step.size)
        elif step.done == step.size:
            note(self._session, f"{name} {size(step.size)}")
