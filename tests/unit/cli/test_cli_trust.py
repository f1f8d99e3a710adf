"""`facade trust` from the outside: what a person is asked, told, and stopped from."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from facade.control.signing.keys import OnlineKeys, new_key, public_pem, write_key
from tests.support.operator_server import CommandLine


@pytest.fixture
def usb(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "p").write_text("correct horse")
    return ("--offline-keys", str(tmp_path / "usb"), "--passphrase-file", str(tmp_path / "p"))


@pytest.fixture
def made(alone: CommandLine, usb: tuple[str, ...]) -> dict[str, Any]:
    ran = alone("trust", "init", "--fleet", "dev", *usb, "--json")
    assert ran.code == 0, ran
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_init_says_what_it_made(alone: CommandLine, usb: tuple[str, ...], tmp_path: Path) -> None:
    ran = alone("trust", "init", *usb, "--root-keys", "3", "--root-threshold", "2")
    assert ran.code == 0
    lines = ran.stdout.splitlines()
    assert lines[0] == "The first signed repository is published."
    assert lines[1].startswith("root: 2 of 3: ")
    assert lines[-1] == f"root to pin on devices: {tmp_path / 'state' / 'root.json'}"
    assert "carry" in ran.stderr


@pytest.mark.parametrize("options", [("--root-threshold", "2"), ("--targets-threshold", "2")])
def test_an_impossible_threshold_makes_no_key(
    alone: CommandLine, usb: tuple[str, ...], tmp_path: Path, options: tuple[str, ...]
) -> None:
    ran = alone("trust", "init", *usb, *options)
    assert ran.code == 2
    assert "threshold" in ran.stderr
    assert not list(tmp_path.rglob("*.pem"))


def test_a_key_is_made_for_root_or_targets_only(alone: CommandLine, usb: tuple[str, ...]) -> None:
    ran = alone("trust", "key", "timestamp", *usb)
    assert ran.code == 2
    assert "root or targets" in ran.stderr


def test_a_key_goes_nowhere_else(alone: CommandLine, usb: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "alice.pub"
    ran = alone("trust", "key", "root", *usb, "--out", str(out))
    assert ran.code == 0
    assert out.read_text().startswith("-----BEGIN PUBLIC KEY-----")
    (private,) = (tmp_path / "usb").iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in private.read_bytes()


@pytest.mark.usefixtures("made")
def test_rotate_renew_and_remove_in_words(alone: CommandLine, usb: tuple[str, ...]) -> None:
    assert alone("trust", "rotate", "timestamp", "dev", *usb).stdout == "Rotated: timestamp, dev.\n"
    assert alone("trust", "renew", *usb).stdout == "Renewed: root, targets.\n"
    renewed = json.loads(alone("trust", "renew", "root", *usb, "--json").stdout)
    assert renewed["published"] is True
    assert renewed["versions"]["root"] == 4
    assert alone("trust", "remove", "dev", *usb).stdout == "Removed: dev.\n"
    assert alone("trust", "delegate", "dev", *usb).stdout == "Delegated: dev.\n"
    assert alone("trust", "delegate", "dev", *usb).stdout == "Delegated: nothing new.\n"


@pytest.mark.usefixtures("made")
def test_no_passphrase_is_asked_for_where_no_key_is(alone: CommandLine, tmp_path: Path) -> None:
    ran = alone("trust", "renew", "--offline-keys", str(tmp_path / "none"))
    assert ran.code == 0
    assert "Signatures are missing" in ran.stdout
    assert "facade trust export FILE" in ran.stderr
    assert alone("trust", "discard").stdout == "Discarded.\n"
    assert alone("trust", "discard").stdout == "No change was waiting.\n"


@pytest.mark.usefixtures("made")
def test_without_a_terminal_the_passphrase_file_is_named(
    alone: CommandLine, tmp_path: Path
) -> None:
    ran = alone("trust", "renew", "--offline-keys", str(tmp_path / "usb"))
    assert ran.code == 2
    assert "--passphrase-file" in ran.stderr


@pytest.mark.usefixtures("made")
def test_an_online_key_by_its_uri(alone: CommandLine, usb: tuple[str, ...], tmp_path: Path) -> None:
    signer = new_key("ecdsa")
    write_key(tmp_path / "secure" / "t.pem", signer)
    (tmp_path / "t.pub").write_bytes(public_pem(signer))
    uri = ("--key-uri", f"timestamp=file:{tmp_path}/secure/t.pem")
    half = alone("trust", "rotate", "timestamp", *usb, *uri)
    assert half.code == 2
    assert "for the same roles" in half.stderr
    public = ("--public-key", f"timestamp={tmp_path}/t.pub")
    assert alone("trust", "rotate", "timestamp", *usb, *uri, *public).code == 0
    keys = OnlineKeys(tmp_path / "state" / "trust" / "online")
    assert keys.signer("timestamp").public_key.keyid == signer.public_key.keyid
    again = alone("trust", "rotate", "snapshot", *usb, "--key-uri", "x", "--public-key", "y")
    assert again.code == 2


@pytest.mark.usefixtures("made")
def test_files_that_are_no_keys_are_named(
    alone: CommandLine, usb: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "x.pub").write_text("hello")
    ran = alone("trust", "rotate", "root", "--add", str(tmp_path / "x.pub"), *usb)
    assert ran.code == 2
    assert "x.pub" in ran.stderr


def test_before_a_first_ceremony_it_says_what_to_run(
    alone: CommandLine, usb: tuple[str, ...], tmp_path: Path
) -> None:
    for command in (("renew",), ("delegate", "dev"), ("rotate", "dev"), ("remove", "dev")):
        ran = alone("trust", *command, *usb)
        assert ran.code == 1
        assert "facade trust init" in ran.stderr
    assert alone("trust", "export", str(tmp_path / "x")).code == 1
    assert alone("trust", "import", str(tmp_path / "x")).code == 1
    assert alone("trust", "sign", str(tmp_path / "x"), "--root", str(tmp_path / "r")).code == 1


@pytest.mark.usefixtures("made")
def test_a_root_that_cannot_be_read_is_a_usage_error(
    alone: CommandLine, usb: tuple[str, ...], tmp_path: Path
) -> None:
    alone("trust", "renew", "--offline-keys", str(tmp_path / "none"))
    change = str(tmp_path / "change.json")
    assert json.loads(alone("trust", "export", change, "--json").stdout)["file"] == change
    ran = alone("trust", "sign", change, *usb, "--root", str(tmp_path / "none.json"))
    assert ran.code == 2
    signed = alone("trust", "sign", change, *usb)
    assert "Every threshold is met" in signed.stdout
    assert alone("trust", "import", change).stdout == "Published: renew root and targets.\n"


def test_advancing_shows_the_new_versions(
    alone: CommandLine, made: dict[str, Any], tmp_path: Path
) -> None:
    ran = alone("trust", "advance", "--by", "10")
    assert (ran.code, ran.stdout) == (0, "dev\t11\nsnapshot\t11\ntimestamp\t11\n")
    assert "facade trust renew" in ran.stderr
    again = json.loads(alone("trust", "advance", "--json").stdout)
    assert again == {"versions": {"dev": 1011, "snapshot": 1011, "timestamp": 1011}}
    elsewhere = alone("trust", "advance", "--repository", str(tmp_path / "none"))
    assert elsewhere.code == 1
    assert alone("trust", "advance", "--by", "0").code == 2
