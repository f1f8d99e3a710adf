"""Sealing secrets at rest: AES-256-GCM under a ring of keys.

Guarantees: a sealed text opens only with a key of the ring, for the purpose it was sealed for, and
bound to the very same names (a row's id and field, a cache key's parts); a text moved elsewhere,
shortened or changed in any character raises `Integrity`. Each purpose has its own subkey (HKDF,
RFC 5869). Sealing uses the ring's primary key; opening any key of it, so that keys can change
while both are in use. Does not guarantee more than 2**32 seals per key (random 96-bit nonces,
NIST SP 800-38D, 8.3), or that memory is wiped.
"""

import base64
import binascii
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from facade.errors import Integrity, Invalid, Unavailable
from facade.reasons import Reason

KEY_BYTES = 32
NONCE_BYTES = 12
_VERSION = "f1"
_MAX_RING_BYTES = 64 * 1024


class KeyRing:
    """Named keys, one of which seals.

    Arguments:
        keys: id → 32 bytes.
        primary: id of the key that seals.

    Raises Invalid when a key has another length or the primary is missing.
    """

    def __init__(self, keys: Mapping[str, bytes], primary: str) -> None:
        if primary not in keys:
            raise Invalid("The sealing key ring has no primary key.")
        if any(len(key) != KEY_BYTES for key in keys.values()):
            raise Invalid(f"A key of the sealing key ring is not {KEY_BYTES} bytes long.")
        if not all(name.isascii() and name.isalnum() for name in keys):
            raise Invalid("A key of the sealing key ring has an id that is not letters and digits.")
        self._keys = dict(keys)
        self.primary = primary

    def __repr__(self) -> str:
        return f"KeyRing(primary={self.primary!r}, keys={sorted(self._keys)})"

    @property
    def ids(self) -> frozenset[str]:
        """The keys' ids."""
        return frozenset(self._keys)

    def key(self, key_id: str) -> bytes | None:
        """The key of that id."""
        return self._keys.get(key_id)

    @classmethod
    def generate(cls) -> "KeyRing":
        """A ring of one fresh random key."""
        key_id = secrets.token_hex(4)
        return cls({key_id: secrets.token_bytes(KEY_BYTES)}, key_id)

    def with_fresh_primary(self) -> "KeyRing":
        """This ring and a new key, which seals from now on."""
        fresh = KeyRing.generate()
        return KeyRing({**self._keys, **fresh._keys}, fresh.primary)  # noqa: SLF001 - same class

    def only_primary(self) -> "KeyRing":
        """Without the keys that seal no more: what they sealed cannot be opened any longer."""
        return KeyRing({self.primary: self._keys[self.primary]}, self.primary)

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """Read `{"primary": ID, "keys": {ID: base64}}`. Raises Invalid; never repeats the text."""
        try:
            document = json.loads(text)
            keys = {
                str(key_id): base64.b64decode(value, validate=True)
                for key_id, value in document["keys"].items()
            }
            primary = document["primary"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Invalid("The sealing key ring cannot be read.") from None
        return cls(keys, str(primary))

    def format(self) -> str:
        """The text that `parse` reads. It holds the keys."""
        keys = {key_id: base64.b64encode(key).decode() for key_id, key in self._keys.items()}
        return json.dumps({"primary": self.primary, "keys": keys})

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """Read a ring's file.

        Raises Unavailable when it cannot be read, Invalid when others may read it (mode) or it
        is no key ring.
        """
        try:
            with path.open(encoding="utf-8") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(_MAX_RING_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"The sealing key file {path} cannot be read.", reason=Reason.CONTROL_UNAVAILABLE
            ) from error
        if mode & 0o077:
            raise Invalid(
                f"The sealing key file {path} can be read by others: run chmod 600 {path}."
            )
        return cls.parse(text)

    def save(self, path: Path) -> None:
        """Write the ring's file with mode 0600, in one step. Raises Unavailable."""
        path = path.resolve()  # a link stays one
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self.format())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise Unavailable(
                f"The sealing key file {path} cannot be written: {error.strerror}.",
                reason=Reason.CONTROL_UNAVAILABLE,
            ) from error


class Sealer:
    """Seals and opens for one purpose.

    Arguments:
        ring: the keys.
        purpose: what the subkeys are for, like "connections" or "tokens".
    """

    def __init__(self, ring: KeyRing, purpose: str) -> None:
        self._primary = ring.primary
        self._ciphers = {
            key_id: AESGCM(_subkey(key, purpose))
            for key_id in ring.ids
            if (key := ring.key(key_id)) is not None
        }

    def seal(self, text: str, bound: tuple[str, ...]) -> str:
        """The sealed form of `text`, which opens only together with the same `bound` names."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        header = f"{_VERSION}.{self._primary}"
        cipher = self._ciphers[self._primary]
        body = nonce + cipher.encrypt(nonce, text.encode(), _associated(header, bound))
        return f"{header}.{base64.urlsafe_b64encode(body).decode().rstrip('=')}"

    def open(self, sealed: str, bound: tuple[str, ...]) -> str:
        """The text that was sealed.

        Raises Unavailable when its key is not in the ring, Integrity when it does not open.
        """
        header, _, encoded = sealed.rpartition(".")
        version, _, key_id = header.partition(".")
        if version != _VERSION:
            raise Integrity("A sealed value is not in a form that this version knows.")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Unavailable(
                f"A secret was sealed with key {key_id[:16]!r}, which is not in the key ring.",
                reason=Reason.CONTROL_UNAVAILABLE,
            )
        try:
            body = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
            if base64.urlsafe_b64encode(body).decode().rstrip("=") != encoded:
                raise Integrity("A sealed value was changed.")
            plain = cipher.decrypt(
                body[:NONCE_BYTES], body[NONCE_BYTES:], _associated(header, bound)
            )
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise Integrity(
                "A sealed value does not open: it was changed, or belongs elsewhere."
            ) from error
        return plain.decode()

    def is_current(self, sealed: str) -> bool:
        """Whether it was sealed with the primary key."""
        return sealed.startswith(f"{_VERSION}.{self._primary}.")


def _subkey(key: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"facade sealing {purpose}".encode()).derive(
        key
    )


def _associated(header: str, bound: tuple[str, ...]) -> bytes:
    """An unambiguous encoding: ("a", "b") and ("a,b",) differ."""
    return json.dumps([header, *bound], ensure_ascii=True).encode()
