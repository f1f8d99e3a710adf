"""Failures of the command line: exit codes, one line, what stdout holds."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from facade.control.api.app import operator_app
from tests.support.operator_server import CommandLine, serving
from tests.support.operator_services import Fakes
from tests.support.pki import Authority, server_context


def _unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_no_server_is_one_line_that_names_the_url_and_facade_up(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{_unused_port()}"
    ran = CommandLine({"FACADE_URL": url, "FACADE_API_KEY": "k"})("registry", "list", "--json")
    assert ran.code == 1
    assert ran.stderr == f"facade: No facade answers at {url}. Start one with: facade up\n"
    assert json.loads(ran.stdout) == {"error": ran.stderr.removeprefix("facade: ").strip()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("registry", "add", "ghcr.io", "--json"),
        ("artifact", "import", "ghcr.io/org/app:v1", "--json"),
        ("apikey", "create", "--json"),
        ("runtime-config", "rkt", "--json"),
        ("pulls", "--nonsense", "--json"),
    ],
)
def test_a_usage_error_is_one_document_too(alone: CommandLine, arguments: tuple[str, ...]) -> None:
    ran = alone(*arguments)
    assert ran.code == 2
    assert f"facade: {json.loads(ran.stdout)['error']}\n" == ran.stderr
    assert alone(*arguments[:-1]).stdout == ""


def test_no_key_says_where_one_was_looked_for(alone: CommandLine) -> None:
    ran = alone("registry", "list")
    assert ran.code == 1
    assert "facade up" in ran.stderr
    assert "api-key" in ran.stderr
    assert ran.stdout == ""


def test_the_state_folder_of_facade_up_says_where_and_with_which_key(
    fakes: Fakes, facade: CommandLine, tmp_path: Path
) -> None:
    state = tmp_path / "elsewhere"
    state.mkdir()
    (state / "url").write_text(facade.environ["FACADE_URL"] + "\n")
    (state / "api-key").write_text("key-for-everything\n")
    assert CommandLine()("registry", "list", "--state", str(state)).code == 0
    assert CommandLine({"FACADE_STATE": str(state)})("registry", "list").code == 0


def test_a_wrong_key_is_said_in_the_servers_words(facade: CommandLine) -> None:
    wrong = CommandLine({**facade.environ, "FACADE_API_KEY": "wrong"})
    ran = wrong("fleet", "list", "--json")
    assert ran.code == 1
    assert "not known here" in json.loads(ran.stdout)["error"]


def test_https_is_verified_with_the_ca_of_the_state_folder(fakes: Fakes, tmp_path: Path) -> None:
    authority = Authority.root()
    tls = server_context(authority.server())
    with serving(operator_app(fakes.services()), tls) as url:
        command = CommandLine(
            {
                "FACADE_URL": url,
                "FACADE_API_KEY": "key-for-everything",
                "FACADE_STATE": str(tmp_path),
            }
        )
        untrusted = command("fleet", "list")
        authority.write(tmp_path, "server-ca.pem")
        trusted = command("fleet", "list")
        (tmp_path / "server-ca.pem").write_text("nonsense")
        damaged = command("fleet", "list")
    assert untrusted.code == 1
    assert "is not trusted" in untrusted.stderr
    assert trusted.code == 0
    assert "server-ca.pem" in damaged.stderr


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://x:99999"])
def test_a_url_that_is_none_is_said_plainly(url: str) -> None:
    ran = CommandLine({"FACADE_URL": url, "FACADE_API_KEY": "k"})("fleet", "list")
    assert ran.code == 2
    assert "FACADE_URL" in ran.stderr


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "schlüssel"])
def test_a_key_with_line_breaks_is_not_sent(facade: CommandLine, key: str) -> None:
    ran = CommandLine({**facade.environ, "FACADE_API_KEY": key})("fleet", "list")
    assert ran.code == 2


async def _plain(request: web.Request) -> web.Response:
    return web.Response(text="<html>hello</html>")


async def _breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'event: progress\ndata: {"tag": "v1", "step": "x"}\n\n')
    await response.write_eof()
    return response


def _other(handler: object) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)  # type: ignore[arg-type]
    return app


def test_a_server_that_is_no_facade_is_said_plainly() -> None:
    with serving(_other(_plain)) as url:
        ran = CommandLine({"FACADE_URL": url, "FACADE_API_KEY": "k"})("fleet", "list")
    assert ran.code == 1
    assert "is it one?" in ran.stderr


def test_a_stream_that_breaks_off_is_a_failure() -> None:
    with serving(_other(_breaks_off)) as url:
        ran = CommandLine({"FACADE_URL": url, "FACADE_API_KEY": "k"})(
            "artifact", "import", "ghcr.io/org/app:v1", "--fleet", "dev"
        )
    assert ran.code == 1
    assert "run it again" in ran.stderr


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nonsense"], "No such command"),
        (["registry", "lst"], "Did you mean 'list'?"),
        (["registry", "show"], "Missing argument"),
        (["registry", "list", "--colour"], "No such option"),
        (["audit", "--limit", "0"], "--limit"),
        (["runtime-config", "rocket", "--facade", "x:1"], "rocket"),
        (["runtime-config", "podman", "--facade", "no-port"], "HOST:PORT"),
        (["device", "issue", "noslash"], "FLEET/NAME"),
        (["artifact", "show", "dev/app"], "FLEET/NAME/VERSION"),
    ],
)
def test_a_usage_error_is_exit_2_and_one_line(
    facade: CommandLine, argv: list[str], says: str
) -> None:
    ran = facade(*argv)
    assert ran.code == 2
    assert says in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""


def test_ctrl_c_is_130_without_a_traceback(tmp_path: Path) -> None:
    """A server that never answers, and SIGINT while the command waits for it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "facade.cli.main", "fleet", "list"],
            env={"FACADE_URL": url, "FACADE_API_KEY": "k", "PATH": "/usr/bin:/bin"},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            process.send_signal(2)
            _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from facade.cli.main import main; main(['--help']);"
        "print([m for m in ('aiohttp', 'pydantic', 'sqlalchemy', 'cryptography', 'rich', 'tuf')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version(alone: CommandLine) -> None:
    ran = alone("--version")
    assert (ran.code, ran.stderr) == (0, "")
    assert re.fullmatch(r"facade 0\.\S+, devices' TLS by OpenSSL \d+\.\d+\.\d+ .*\n", ran.stdout)
