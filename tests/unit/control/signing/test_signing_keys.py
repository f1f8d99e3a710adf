"""Key files: private, whole, encrypted where they must be."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from facade.control.signing.keys import (
    Algorithm,
    OfflineKeys,
    OnlineKeys,
    offline_key_name,
    read_key,
)
from facade.errors import Conflict, Denied, Invalid, Unavailable
from facade.secret import Secret

PASSPHRASE = Secret("correct horse")


@pytest.mark.parametrize(
    ("algorithm", "scheme"), [("ed25519", "ed25519"), ("ecdsa", "ecdsa-sha2-nistp256")]
)
def test_an_online_key_is_made_once_and_signs(
    tmp_path: Path, algorithm: Algorithm, scheme: str
) -> None:
    keys = OnlineKeys(tmp_path / "online", algorithm=algorithm)
    assert not keys.has("dev")
    made = keys.make("dev")
    assert made.public_key.scheme == scheme
    assert keys.make("dev").public_key == made.public_key
    signature = OnlineKeys(tmp_path / "online").signer("dev").sign(b"data")
    made.public_key.verify_signature(signature, b"data")


def test_key_files_and_their_folder_are_private(tmp_path: Path) -> None:
    OnlineKeys(tmp_path / "online").make("dev")
    OfflineKeys(tmp_path / "offline", PASSPHRASE).make("root", 1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_offline_keys_are_encrypted_and_open_with_the_passphrase_only(tmp_path: Path) -> None:
    keys = OfflineKeys(tmp_path, PASSPHRASE)
    (signer,) = keys.make("root", 1)
    (path,) = tmp_path.iterdir()
    assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()
    assert path.name == offline_key_name("root", signer.public_key.keyid)
    assert read_key(path, PASSPHRASE).public_key == signer.public_key
    with pytest.raises(Denied, match="passphrase"):
        OfflineKeys(tmp_path, Secret("wrong")).signers("root")
    with pytest.raises(Invalid, match="encrypted"):
        read_key(path)


def test_offline_keys_that_are_there_are_used_again(tmp_path: Path) -> None:
    first = OfflineKeys(tmp_path, PASSPHRASE).make("root", 2)
    second = OfflineKeys(tmp_path, PASSPHRASE).make("root", 3)
    assert {s.public_key.keyid for s in first} <= {s.public_key.keyid for s in second}
    assert len(OfflineKeys(tmp_path, PASSPHRASE).signers("root")) == 3
    assert OfflineKeys(tmp_path, PASSPHRASE).signers("targets") == []


def test_an_empty_passphrase_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="passphrase"):
        OfflineKeys(tmp_path, Secret("")).make("root", 1)
    assert list(tmp_path.iterdir()) == []


def test_only_offline_roles_have_offline_names() -> None:
    with pytest.raises(ValueError, match="snapshot"):
        offline_key_name("snapshot", "ab")


def test_a_missing_online_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="snapshot"):
        OnlineKeys(tmp_path).signer("snapshot")
    with pytest.raises(Unavailable, match=r"x\.pem"):
        read_key(tmp_path / "x.pem")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    OnlineKeys(tmp_path).make("dev")
    (tmp_path / "dev.pem").chmod(mode)
    with pytest.raises(Invalid, match="chmod 600"):
        OnlineKeys(tmp_path).signer("dev")


def write_pem(path: Path, private: object) -> None:
    assert isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    write_pem(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))
    with pytest.raises(Invalid, match="neither"):
        read_key(tmp_path / "rsa.pem")
    write_pem(tmp_path / "k1.pem", ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(Invalid, match="TUF"):
        read_key(tmp_path / "k1.pem")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", b"\0" * 20_000]
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Invalid, match=r"bad\.pem"):
        read_key(path)


def test_an_unencrypted_offline_key_is_refused(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "root-x.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(Invalid, match="encrypted"):
        OfflineKeys(tmp_path, PASSPHRASE).signers("root")
