"""`facade pull`: what is wrong before any byte comes. Whole pulls are tried over real mutual TLS."""

import json
import socket
from pathlib import Path

import pytest

from tests.support.operator_server import CommandLine, Ran
from tests.support.pki import Authority


@pytest.fixture
def files(alone: CommandLine, tmp_path: Path) -> Path:
    """What a device has: certificate, key, the server's CA, a pinned root."""
    authority = Authority.root()
    authority.write(tmp_path)
    authority.device().write(tmp_path)
    (tmp_path / "passphrase").write_text("x")
    made = alone(
        *("trust", "init", "--repository", str(tmp_path / "r"), "--online-keys", str(tmp_path)),
        *("--offline-keys", str(tmp_path / "k"), "--root-out", str(tmp_path / "root.json")),
        *("--passphrase-file", str(tmp_path / "passphrase")),
    )
    assert made.code == 0
    return tmp_path


def _pull(alone: CommandLine, files: Path, *changes: str, artifact: str = "dev/app/v1") -> Ran:
    options = {
        "--url": "https://127.0.0.1:1",
        "--cert": str(files / "client.cert"),
        "--key": str(files / "client.key"),
        "--ca": str(files / "ca.crt"),
        "--root": str(files / "root.json"),
        "-o": str(files / "out"),
    }
    options.update(zip(changes[::2], changes[1::2], strict=True))
    return alone("pull", artifact, *(word for pair in options.items() for word in pair), "--json")


@pytest.mark.parametrize(
    ("artifact", "changes"),
    [
        ("dev/app", ()),
        ("dev/app/v1", ("--platform", "linux")),
        ("dev/app/v1", ("--root", "/nowhere/root.json")),
    ],
)
def test_a_wrong_argument_is_exit_2(
    alone: CommandLine, files: Path, artifact: str, changes: tuple[str, ...]
) -> None:
    ran = _pull(alone, files, *changes, artifact=artifact)
    assert ran.code == 2
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (("--url", "http://127.0.0.1:1"), "https://host:port"),
        (("--cert", "/nowhere/client.cert"), "/nowhere/client.cert"),
        (("--ca", "/nowhere/ca.crt"), "/nowhere/ca.crt"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    alone: CommandLine, files: Path, changes: tuple[str, ...], says: str
) -> None:
    ran = _pull(alone, files, *changes)
    assert ran.code == 1
    assert says in json.loads(ran.stdout)["error"]


def test_no_facade_there_is_one_line(alone: CommandLine, files: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    ran = _pull(alone, files, "--url", f"https://127.0.0.1:{port}")
    assert ran.code == 1
    assert ran.stderr.count("\n") == 1
    assert "connection" in ran.stderr
    assert not (files / "out").exists()
