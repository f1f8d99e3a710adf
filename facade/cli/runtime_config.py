"""`facade runtime-config`: print the files that make a runtime pull through the facade."""

import dataclasses
import re
from enum import StrEnum
from typing import Annotated

import typer

from facade.cli.output import document, line
from facade.cli.session import AsJson, State, example, session_of
from facade.cli.usage import argument
from facade.oci.host import RegistryHost

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):[0-9]{1,5}")


class Runtime(StrEnum):
    """Runtimes we know the files of."""

    PODMAN = "podman"
    CONTAINERD = "containerd"
    DOCKER = "docker"
    CRIO = "crio"


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "runtime-config",
        epilog=example(
            "facade runtime-config podman --facade facade.example:8443 --registry ghcr.io"
        ),
    )(runtime_config)


def runtime_config(
    ctx: typer.Context,
    runtime: Annotated[Runtime, typer.Argument(help="the runtime on the device")],
    *,
    facade: Annotated[str, typer.Option(metavar="HOST:PORT", help="the device port")],
    registry: Annotated[
        list[str] | None,
        typer.Option(metavar="H", help="registries to pull through it; default: docker.io"),
    ] = None,
    fallback: Annotated[
        bool,
        typer.Option(
            "--fallback", help="let the runtime bypass the facade when it refuses or fails"
        ),
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Print a runtime's files, with their paths, for a device.

    Without --fallback a refusal is final: runtimes given a mirror go to the original registry
    silently when the mirror refuses.
    """
    from facade.cli.runtimes import RUNTIMES

    session = session_of(ctx)
    if not _ADDRESS.fullmatch(facade):
        raise typer.BadParameter("write HOST:PORT, like facade.example:8443", param_hint="--facade")
    registries = [argument(RegistryHost.parse, text) for text in registry or ["docker.io"]]
    config = RUNTIMES[runtime.value](facade, registries, fallback=fallback)
    if session.as_json:
        document(session, dataclasses.asdict(config))
        return
    for file in config.files:
        line(session, f"# ==> {file.path}\n{file.content}")
    if config.copies:
        line(
            session,
            "# ==> the device's certificate, from: facade device issue FLEET/NAME --out DIR",
        )
    for copy in config.copies:
        mode = "0600" if copy.source.endswith(".key") else "0644"
        line(session, f"install -D -m {mode} DIR/{copy.source} {copy.target}")
    for text in config.notes:
        line(session, f"\n# {text}")
