"""Online keys that lie elsewhere, through the URIs of their signers."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signature, Signer

from facade.control.signing.changes import RoleKeys
from facade.control.signing.holders import Ceremony
from facade.control.signing.keys import (
    OfflineKeys,
    OnlineKeys,
    new_key,
    public_key_of_pem,
    public_pem,
    write_key,
)
from facade.control.signing.outcome import Elsewhere
from facade.control.signing.publisher import Publisher
from facade.control.signing.uris import file_path, open_uri
from facade.errors import Conflict, Invalid, Unavailable
from tests.support.signing import PASSPHRASE, StockClient, make_repository, make_target


class Token(Signer):
    """A signer with its key inside, as an HSM has; the library's documented way to add a kind."""

    key = CryptoSigner.generate_ed25519()
    pins: ClassVar[list[str]] = []
    works = True

    def __init__(self, public: Key) -> None:
        self._public = public

    @classmethod
    def from_priv_key_uri(cls, uri: str, public: Key, secrets_handler: object = None) -> "Token":
        assert callable(secrets_handler)
        cls.pins.append(secrets_handler("PIN"))
        return cls(public)

    @property
    def public_key(self) -> Key:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        if not self.works:
            raise OSError("the token was pulled out")
        return self.key.sign(payload)


@pytest.fixture
def token() -> Iterator[type[Token]]:
    kind = type("FreshToken", (Token,), {"pins": [], "key": CryptoSigner.generate_ed25519()})
    SIGNER_FOR_URI_SCHEME["test-token"] = kind
    yield kind
    del SIGNER_FOR_URI_SCHEME["test-token"]


def test_a_file_uri_is_an_absolute_path() -> None:
    assert file_path("file:/etc/facade/key.pem") == Path("/etc/facade/key.pem")
    assert file_path("file:///etc/a%20b.pem") == Path("/etc/a b.pem")
    assert file_path("awskms:alias/facade") is None
    for text in ("file:key.pem", "file://host/key.pem"):
        with pytest.raises(Invalid, match="whole path"):
            file_path(text)


def test_a_key_elsewhere_on_the_disk_signs(tmp_path: Path) -> None:
    signer = new_key("ecdsa")
    write_key(tmp_path / "elsewhere.pem", signer)
    public = public_key_of_pem(public_pem(signer))
    assert public.keyid == signer.public_key.keyid
    keys = OnlineKeys(tmp_path / "online")
    keys.adopt("timestamp", f"file:{tmp_path}/elsewhere.pem", public)
    again = OnlineKeys(tmp_path / "online")
    assert again.has("timestamp", [public.keyid])
    public.verify_signature(again.signer("timestamp").sign(b"data"), b"data")
    write_key(tmp_path / "elsewhere.pem", new_key("ecdsa"))
    with pytest.raises(Conflict, match="private part"):
        again.signer("timestamp")
    assert not again.has("timestamp", [public.keyid])


def test_a_repository_whose_timestamp_is_signed_by_a_token(
    tmp_path: Path, token: type[Token]
) -> None:
    (tmp_path / "online").mkdir(mode=0o700)
    pin = tmp_path / "online" / "pin"
    pin.write_text("123456\n")
    pin.chmod(0o600)
    online = OnlineKeys(tmp_path / "online")
    repo = make_repository(tmp_path / "clock-only")
    offline = OfflineKeys(tmp_path / "offline", PASSPHRASE)
    ceremony = Ceremony(tmp_path / "repository", online, offline, repo.clock)
    roles = {
        role: RoleKeys([signer.public_key for signer in offline.make(role, 1)])
        for role in ("root", "targets")
    }
    where = {"timestamp": Elsewhere("test-token:1", token.key.public_key)}
    assert ceremony.initialise(roles, ["dev"], where).published
    assert not (tmp_path / "online" / "timestamp.pem").exists()
    publisher = Publisher(tmp_path / "repository", online, repo.clock)
    publisher.publish("dev", add=[make_target()])
    assert set(token.pins) == {"123456"}
    root = (ceremony.files.metadata / "1.root.json").read_bytes()
    assert StockClient(ceremony.files.metadata, root).target("dev/app/v1") == make_target()
    token.works = False
    with pytest.raises(Conflict, match="pulled out"):
        publisher.publish("dev", add=[make_target("v2")])
    token.works = True
    pin.chmod(0o644)
    with pytest.raises(Conflict, match="Others may read"):
        publisher.publish("dev", add=[make_target("v2")])


def test_an_unknown_kind_of_uri_names_those_that_there_are(tmp_path: Path) -> None:
    public = new_key("ed25519").public_key
    with pytest.raises(Invalid, match=r"awskms.*azurekms.*file.*gcpkms.*hsm.*hv"):
        OnlineKeys(tmp_path).adopt("dev", "carrier-pigeon:1", public)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    [
        *("awskms:alias/facade", "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k"),
        *("azurekms://v.vault.azure.net/keys/k/1", "hsm:", "hv:facade/1"),
    ],
)
def test_a_signer_that_cannot_be_used_says_why(uri: str) -> None:
    """Their libraries are extras of securesystemslib, which are not installed here."""
    with pytest.raises(Conflict, match="signer of"):
        open_uri(uri, new_key("ecdsa").public_key, lambda name: "")


@pytest.mark.parametrize("content", ["", "{}", '{"uri": "file:/x", "keyid": "a", "key": {}}'])
def test_a_damaged_note_of_a_key_is_said_in_words(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dev@0123456789abcdef.json"
    path.write_text(content)
    path.chmod(0o600)
    keys = OnlineKeys(tmp_path)
    assert not keys.has("dev", ["a"])
    with pytest.raises(Invalid, match="which key"):
        keys.signer("dev")


def test_one_fleets_keys_are_never_anothers(tmp_path: Path) -> None:
    """`dev-0123…` is a fleet's name; "@" is in none."""
    keys = OnlineKeys(tmp_path)
    first, second = keys.add("dev"), keys.add("dev")
    other = keys.add("dev-0123456789abcdef")
    assert {s.public_key.keyid for s in keys.signers("dev")} == {
        first.public_key.keyid,
        second.public_key.keyid,
    }
    assert keys.signer("dev", [second.public_key.keyid]).public_key == second.public_key
    with pytest.raises(Conflict, match="dev"):
        keys.signer("dev", [other.public_key.keyid])
    assert len(keys.retire("dev", [second.public_key.keyid])) == 1
    assert keys.signer("dev").public_key == second.public_key


def test_no_public_key_is_said_in_words() -> None:
    for data in (b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(Invalid, match="public key"):
            public_key_of_pem(data)


def test_a_folder_that_cannot_be_written_keeps_the_key_from_being_retired(tmp_path: Path) -> None:
    keys = OnlineKeys(tmp_path / "file" / "online")
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        keys.add("dev")
    assert keys.retire("dev", []) == []
