"""What the command line says of itself, and the runtime files, compared with what was agreed.

`UPDATE_GOLDEN=1 pytest tests/unit/cli/test_cli_texts.py` writes the files anew; read the difference.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from facade.cli.main import MODULES, build
from tests.support.operator_server import CommandLine

GOLDEN = Path(__file__).parent / "golden"


def _agreed(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def _commands(command: Any, path: tuple[str, ...] = ("facade",)) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


def _all(app: typer.Typer) -> list[tuple[str, Any]]:
    return list(_commands(typer.main.get_command(app)))


def _help(path: str, command: Any) -> str:
    context = command.make_context(
        path, [], resilient_parsing=True, terminal_width=80, max_content_width=80
    )
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def test_help_is_as_agreed() -> None:
    texts = [f"$ {path} --help\n{_help(path, command)}\n" for path, command in _all(build())]
    _agreed("help.txt", "\n".join(texts))


def test_every_command_has_an_example() -> None:
    for path, command in _all(build()):
        if not hasattr(command, "commands"):
            assert f"Example:  {' '.join(path.split()[:3])}" in _help(path, command), path


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("runtime", ["podman", "containerd", "docker", "crio"])
def test_runtime_files_are_as_agreed(alone: CommandLine, runtime: str, *, fallback: bool) -> None:
    argv = ["runtime-config", runtime, "--facade", "facade.example:8443"]
    argv += ["--registry", "hub.docker.com", "--registry", "ghcr.io"]
    ran = alone(*argv, *(["--fallback"] if fallback else []))
    assert ran.code == 0
    _agreed(f"{runtime}{'-fallback' if fallback else ''}.txt", ran.stdout)


@pytest.mark.parametrize("runtime", ["podman", "containerd", "docker", "crio"])
def test_without_fallback_no_file_names_the_original_registry(
    alone: CommandLine, runtime: str
) -> None:
    ran = alone(
        *("runtime-config", runtime, "--facade", "facade.example:8443"),
        *("--registry", "ghcr.io", "--json"),
    )
    config = json.loads(ran.stdout)
    for file in config["files"]:
        for line in file["content"].splitlines():
            if "ghcr.io" in line:
                assert "facade.example:8443" in line or line.startswith("prefix"), line
    assert [copy["source"] for copy in config["copies"]] == ["ca.crt", "client.cert", "client.key"]


def test_a_command_alone_is_what_it_is_among_all() -> None:
    """What the first word picks is all that is loaded: it must be there, and be the same."""
    texts = {path: _help(path, command) for path, command in _all(build())}
    words = {path.split()[1] for path in texts if path != "facade"}
    assert words == set(MODULES)
    for word in words:
        alone = {path: _help(path, command) for path, command in _all(build(word))}
        own = {path for path in texts if path.split()[1:2] == [word]}
        assert own <= alone.keys() - {"facade"}, word
        assert all(alone[path] == texts[path] for path in alone.keys() - {"facade"})
        assert len(alone) < len(texts) / 2, word


def test_no_command_and_an_unknown_one_are_answered_out_of_all() -> None:
    assert len(_all(build("nothing"))) == len(_all(build("--help"))) == len(_all(build()))
