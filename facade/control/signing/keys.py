"""Private signing keys: the online ones as PEM in the clear or as a signer's URI, the offline ones encrypted.

Guarantees: a key is read only from a file that nobody else may read, and is an Ed25519 or ECDSA key;
what is written is PKCS#8 PEM with mode 0600, whole or not at all; a key that is asked for by the
metadata's key ids is one of these or none. No message holds key material. Does not make a key that
was once retired usable again: `add` always makes a new one.
"""

import json
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from facade.control.signing.files import make_folder, sync_folder, write_file
from facade.control.signing.layout import OFFLINE
from facade.control.signing.uris import file_path, open_uri
from facade.errors import Conflict, Denied, FacadeError, Invalid, Unavailable
from facade.secret import Secret

Algorithm = Literal["ed25519", "ecdsa"]
PublicKey = SSlibKey
"""What `public_key_of_pem` gives: a TUF key."""
Passphrase = Secret | Callable[[], Secret]
"""A passphrase, or how to ask for it: nobody is asked when there is no key to open."""
MAX_KEY_BYTES = 16 * 1024
_KEY_ID_CHARS = 16


class OnlineKeys:
    """The keys that the control plane signs with by itself, in one folder.

    A role's first key is `<role>.pem`; one that is to follow it is `<role>@<start of key id>.pem`,
    or `….json` for a key that lies elsewhere and is used through its URI. ("@" is in no role's name.)

    Arguments:
        folder: where they are; made when the first key is.
        algorithm: of keys made here.
    """

    def __init__(self, folder: Path, *, algorithm: Algorithm = "ed25519") -> None:
        self.folder = folder
        self._algorithm = algorithm

    def has(self, role: str, key_ids: Collection[str] | None = None) -> bool:
        """Whether a key of `role` is here; with `key_ids`, one of these that can be used."""
        for path in self._paths(role):
            try:
                if key_ids is None or self._open(path).public_key.keyid in key_ids:
                    return True
            except FacadeError:
                continue
        return False

    def signers(self, role: str) -> list[Signer]:
        """Every key of `role` that is here. Raises Invalid when a file is not fit to be used."""
        return [self._open(path) for path in self._paths(role)]

    def signer(self, role: str, key_ids: Collection[str] | None = None) -> Signer:
        """The signer of `role`, read afresh: a rotated key is used at once.

        Arguments:
            key_ids: those that the metadata names; None = whichever key is here.

        Raises Conflict when it is not here, Invalid when its file is not fit to be used.
        """
        for signer in map(self._open, self._paths(role)):
            if key_ids is None or signer.public_key.keyid in key_ids:
                return signer
        raise Conflict(f"The online key of the role {role} is not in {self.folder}.")

    def make(self, role: str) -> Signer:
        """The signer of `role`, with a new key if there is none yet (as after a crash).

        For a first ceremony only: later, what lies here may be a key that was revoked.
        """
        return self.signer(role) if self.has(role) else self.add(role)

    def add(self, role: str) -> Signer:
        """A new key of `role`, beside those that are here."""
        signer = new_key(self._algorithm)
        path = self.folder / f"{role}.pem"
        if path.exists():
            path = self._beside(role, signer.public_key.keyid, "pem")
        write_key(path, signer)
        return signer

    def adopt(self, role: str, uri: str, public: Key) -> Signer:
        """Use a key that lies elsewhere: on a disk, in an HSM, a KMS, a vault.

        Arguments:
            uri: like `awskms:alias/facade`; see `signing.uris`.

        Raises Invalid for an unknown kind of URI, Conflict when it cannot be opened.
        """
        signer = self._from_uri(uri, public)
        content = {"uri": uri, "keyid": public.keyid, "key": public.to_dict()}
        make_folder(self.folder, 0o700)
        path = self._beside(role, public.keyid, "json")
        write_file(path, json.dumps(content, indent=1).encode(), mode=0o600)
        sync_folder(self.folder)
        return signer

    def retire(self, role: str, keep: Collection[str]) -> list[Path]:
        """Remove every key of `role` but those with a key id in `keep`; gives what was removed."""
        removed = []
        for path in tuple(self._paths(role)):
            if self._open(path).public_key.keyid not in keep:
                try:
                    path.unlink()
                except OSError as error:
                    raise Unavailable(f"{path} cannot be removed: {error.strerror}.") from error
                removed.append(path)
        return removed

    def _paths(self, role: str) -> Iterator[Path]:
        """Lazily: with a thousand fleets, looking through the folder for each would be slow."""
        first = self.folder / f"{role}.pem"
        if first.is_file():
            yield first
        others = (self.folder.glob(f"{role}@*.{kind}") for kind in ("pem", "json"))
        yield from sorted(path for found in others for path in found)

    def _beside(self, role: str, key_id: str, kind: str) -> Path:
        return self.folder / f"{role}@{key_id[:_KEY_ID_CHARS]}.{kind}"

    def _open(self, path: Path) -> Signer:
        if path.suffix == ".pem":
            return read_key(path)
        try:
            content = json.loads(_read(path))
            public = Key.from_dict(content["keyid"], content["key"])
            uri = str(content["uri"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid(f"{path} does not say which key to use.") from error
        return self._from_uri(uri, public)

    def _from_uri(self, uri: str, public: Key) -> Signer:
        path = file_path(uri)
        if path is None:
            return open_uri(uri, public, self._pin)
        signer = read_key(path)
        if signer.public_key.keyid != public.keyid:
            raise Conflict(f"{path} does not hold the private part of the key {public.keyid}.")
        return signer

    def _pin(self, name: str) -> str:
        """A service has nobody to ask: what a token wants to know lies in a private file."""
        return _read(self.folder / "pin").decode().strip("\r\n")


class OfflineKeys:
    """The keys of root and targets: `<role>-<start of key id>.pem`, encrypted with one passphrase.

    Arguments:
        folder: meant for an offline machine; may be absent.
        passphrase: opens every key in it.
    """

    def __init__(
        self, folder: Path, passphrase: Passphrase, *, algorithm: Algorithm = "ed25519"
    ) -> None:
        self.folder = folder
        self._passphrase = passphrase
        self._algorithm = algorithm

    def signers(self, role: str, key_ids: Collection[str] | None = None) -> list[CryptoSigner]:
        """Every key of `role` in the folder, or those of them with one of these ids.

        Raises Denied when the passphrase does not open one, Invalid when a file is unfit.
        """
        names = None if key_ids is None else {offline_key_name(role, key) for key in key_ids}
        found = [
            read_key(path, self._secret())
            for path in sorted(self.folder.glob(f"{role}-*.pem"))
            if names is None or path.name in names
        ]
        return [s for s in found if key_ids is None or s.public_key.keyid in key_ids]

    def make(self, role: str, count: int) -> list[CryptoSigner]:
        """`count` keys of `role`: those that are here (as after a crash), and new ones."""
        self._secret(new=True)
        signers = self.signers(role)
        return [*signers, *self.add(role, max(0, count - len(signers)))][:count]

    def add(self, role: str, count: int) -> list[CryptoSigner]:
        """`count` new keys of `role`. Raises Invalid without a passphrase."""
        passphrase = self._secret(new=True)
        made = [new_key(self._algorithm) for _ in range(count)]
        for signer in made:
            write_key(
                self.folder / offline_key_name(role, signer.public_key.keyid), signer, passphrase
            )
        return made

    def _secret(self, *, new: bool = False) -> Secret:
        if not isinstance(self._passphrase, Secret):
            self._passphrase = self._passphrase()
        if new and not self._passphrase:
            raise Invalid("The offline keys need a passphrase that is not empty.")
        return self._passphrase


def offline_key_name(role: str, key_id: str) -> str:
    """The file name of an offline key, so that it can be told without its passphrase."""
    if role not in OFFLINE:
        raise ValueError(role)
    return f"{role}-{key_id[:_KEY_ID_CHARS]}.pem"


def new_key(algorithm: Algorithm) -> CryptoSigner:
    """A fresh key pair: Ed25519, or ECDSA on P-256."""
    if algorithm == "ed25519":
        return CryptoSigner(ed25519.Ed25519PrivateKey.generate())
    return CryptoSigner(ec.generate_private_key(ec.SECP256R1()))


def read_key(path: Path, passphrase: Secret | None = None) -> CryptoSigner:
    """Read one private key.

    Raises Invalid when others may read the file or it holds no Ed25519 or ECDSA key, Denied when
    the passphrase is wrong, Unavailable when it cannot be read.
    """
    pem = _read(path)
    password = passphrase.reveal().encode() if passphrase else None
    try:
        private = load_pem_private_key(pem, password)
    except TypeError as error:  # encrypted and no passphrase, or the other way round
        raise Invalid(
            f"The key {path} is encrypted where it must not be, or not where it must."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if b"ENCRYPTED" in pem:
            raise Denied(f"The passphrase does not open the key {path}.") from error
        raise Invalid(f"{path} holds no private key in PEM form.") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise Invalid(f"The key {path} is neither an Ed25519 nor an ECDSA key.")
    try:
        return CryptoSigner(private)
    except ValueError as error:
        raise Invalid(f"The key {path} is of a kind that TUF clients do not verify.") from error


def write_key(path: Path, signer: CryptoSigner, passphrase: Secret | None = None) -> None:
    """Write one private key, mode 0600, encrypted if there is a passphrase. Raises Unavailable."""
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.reveal().encode())
    private = load_pem_private_key(signer.private_bytes, None)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    make_folder(path.parent, 0o700)
    write_file(path, pem, mode=0o600)
    sync_folder(path.parent)


def public_pem(signer: CryptoSigner) -> bytes:
    """The public part of a key in PEM form, to be carried; its key id follows from its content."""
    public = load_pem_private_key(signer.private_bytes, None).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_key_of_pem(pem: bytes) -> SSlibKey:
    """The public key in PEM form, with the signature scheme that is usual for its kind. Raises Invalid."""
    try:
        key: Any = load_pem_public_key(pem[:MAX_KEY_BYTES])
        return SSlibKey.from_crypto(key)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid("That is no public key that TUF clients verify with.") from error


def _read(path: Path) -> bytes:
    """A private file's content, at most `MAX_KEY_BYTES` of it."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            content = file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise Unavailable(f"The key {path} cannot be read: {error.strerror}.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise Invalid(f"Others may read the key {path}. Run: chmod 600 {path}")
    return content
